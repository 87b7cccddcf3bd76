/** Two images under one matrix: how alike they are, and which way up it goes. The heart of `climbing`. */

import type { Mask } from "./masks";
import { inverse, product } from "./matrix";
import type { Matrix4, Vector, Volume } from "./volume";

type Row = [number, number, number, number];

/** What a scan is compared with: `pointsMm`, n times x, y, z in standard world mm, and `values`, n, there. */
export interface Target {
  readonly pointsMm: Float64Array;
  readonly values: Float64Array;
}

/** How alike the images are at one place, and the least squares problem of going up from there. */
export interface Look {
  readonly correlation: number;
  readonly normal: number[][];
  readonly towards: number[];
}

/** Compares the images under one matrix after another, in memory that is taken once. */
export class Looker {
  private readonly n: number;
  private readonly unknowns: number;
  private readonly values: Float64Array;
  private readonly wanted: Float64Array;
  /** For each point, the change of the value with each unknown. */
  private readonly changes: Float64Array;
  private readonly toIndex: Matrix4;

  constructor(
    private readonly scan: Volume,
    private readonly seen: Mask,
    private readonly target: Target,
    private readonly centre: Vector,
    private readonly stretches: boolean,
    private readonly fewestSeen: number,
  ) {
    this.n = target.values.length;
    this.unknowns = stretches ? 12 : 6;
    this.values = new Float64Array(this.n);
    this.wanted = new Float64Array(this.n);
    this.changes = new Float64Array(this.n * this.unknowns);
    this.toIndex = inverse(scan.affine);
  }

  /** Share of the points that lie in the scanner's view. */
  shareSeen(matrix: Matrix4): number {
    return this.sampleAll(matrix) / this.n;
  }

  /** Null where there is too little to compare. */
  look(matrix: Matrix4): Look | null {
    const count = this.sampleAll(matrix);
    if (count < this.fewestSeen * this.n) return null;
    const length = centredLength(this.values, count);
    const other = centredLength(this.wanted, count);
    if (!(length > 0 && other > 0)) return null;
    for (let index = 0; index < count; index++) {
      this.values[index]! /= length;
      this.wanted[index]! /= other;
    }
    this.normaliseChanges(count, length);
    return this.summed(count);
  }

  /** Fill values, what is wanted there, and changes, for the points that are seen; return how many are. */
  private sampleAll(matrix: Matrix4): number {
    const { scan, seen, target, centre, stretches, unknowns, values, wanted, changes } = this;
    const { data, shape } = scan;
    const [ni, nj, nk] = shape;
    const [x, y, z] = product(this.toIndex, matrix) as [Row, Row, Row];
    const [a, b, c] = this.toIndex as [Row, Row, Row];
    const [m, n, o] = matrix as [Row, Row, Row];
    let count = 0;
    for (let point = 0; point < this.n; point++) {
      const px = target.pointsMm[3 * point]!;
      const py = target.pointsMm[3 * point + 1]!;
      const pz = target.pointsMm[3 * point + 2]!;
      const i = px * x[0] + py * x[1] + pz * x[2] + x[3];
      const j = px * y[0] + py * y[1] + pz * y[2] + y[3];
      const k = px * z[0] + py * z[1] + pz * z[2] + z[3];
      if (!(i >= 0 && j >= 0 && k >= 0 && i < ni - 1 && j < nj - 1 && k < nk - 1)) continue;
      if (!seen[(Math.floor(i + 0.5) * nj + Math.floor(j + 0.5)) * nk + Math.floor(k + 0.5)]) continue;
      const [li, lj, lk] = [Math.floor(i), Math.floor(j), Math.floor(k)];
      const [u, v, w] = [i - li, j - lj, k - lk];
      // Along the last axis first, each with its slope.
      const at = (li * nj + lj) * nk + lk;
      const plane = nj * nk;
      const [n00, n01, n10, n11] = [data[at]!, data[at + nk]!, data[at + plane]!, data[at + plane + nk]!];
      const w00 = data[at + 1]! - n00;
      const w01 = data[at + nk + 1]! - n01;
      const w10 = data[at + plane + 1]! - n10;
      const w11 = data[at + plane + nk + 1]! - n11;
      const [e00, e01, e10, e11] = [n00 + w * w00, n01 + w * w01, n10 + w * w10, n11 + w * w11];
      const near = e00 + v * (e01 - e00);
      const far = e10 + v * (e11 - e10);
      const slopeI = far - near;
      const nearV = e01 - e00;
      const slopeJ = nearV + u * (e11 - e10 - nearV);
      const nearW = w00 + v * (w01 - w00);
      const slopeK = nearW + u * (w10 + v * (w11 - w10) - nearW);
      values[count] = near + u * slopeI;
      wanted[count] = target.values[point]!;
      // Per mm of the scan's world.
      const gx = slopeI * a[0] + slopeJ * b[0] + slopeK * c[0];
      const gy = slopeI * a[1] + slopeJ * b[1] + slopeK * c[1];
      const gz = slopeI * a[2] + slopeJ * b[2] + slopeK * c[2];
      const [cx, cy, cz] = [px - centre[0], py - centre[1], pz - centre[2]];
      let into = count * unknowns;
      if (stretches) {
        for (const slope of [gx, gy, gz]) {
          changes[into++] = slope * cx;
          changes[into++] = slope * cy;
          changes[into++] = slope * cz;
        }
      } else {
        const qx = cx * m[0] + cy * m[1] + cz * m[2];
        const qy = cx * n[0] + cy * n[1] + cz * n[2];
        const qz = cx * o[0] + cy * o[1] + cz * o[2];
        changes[into++] = qy * gz - qz * gy;
        changes[into++] = qz * gx - qx * gz;
        changes[into++] = qx * gy - qy * gx;
      }
      changes[into++] = gx;
      changes[into++] = gy;
      changes[into++] = gz;
      count++;
    }
    return count;
  }

  /** Turn changes of the value into changes of the value scaled to mean 0 and length 1. */
  private normaliseChanges(count: number, length: number): void {
    const { unknowns: p, changes, values } = this;
    const mean = new Float64Array(p);
    for (let index = 0; index < count; index++) {
      for (let q = 0; q < p; q++) mean[q]! += changes[index * p + q]!;
    }
    for (let q = 0; q < p; q++) mean[q]! /= count;
    const along = new Float64Array(p);
    for (let index = 0; index < count; index++) {
      for (let q = 0; q < p; q++) {
        changes[index * p + q]! -= mean[q]!;
        along[q]! += values[index]! * changes[index * p + q]!;
      }
    }
    for (let index = 0; index < count; index++) {
      for (let q = 0; q < p; q++) {
        changes[index * p + q] = (changes[index * p + q]! - values[index]! * along[q]!) / length;
      }
    }
  }

  private summed(count: number): Look {
    const { unknowns: p, changes, values, wanted } = this;
    const normal = new Float64Array(p * p);
    const towards = new Float64Array(p);
    let correlation = 0;
    for (let index = 0; index < count; index++) {
      const residual = wanted[index]! - values[index]!;
      correlation += values[index]! * wanted[index]!;
      const at = index * p;
      for (let q = 0; q < p; q++) {
        const change = changes[at + q]!;
        towards[q]! += change * residual;
        for (let r = q; r < p; r++) normal[q * p + r]! += change * changes[at + r]!;
      }
    }
    const entry = (q: number, r: number): number => normal[Math.min(q, r) * p + Math.max(q, r)]!;
    const rows = Array.from({ length: p }, (_, q) => Array.from({ length: p }, (__, r) => entry(q, r)));
    return { correlation, normal: rows, towards: [...towards] };
  }
}

/** Take the mean off the first `count` values, and return their length then. */
function centredLength(values: Float64Array, count: number): number {
  let mean = 0;
  for (let index = 0; index < count; index++) mean += values[index]!;
  mean /= count;
  let squares = 0;
  for (let index = 0; index < count; index++) {
    values[index]! -= mean;
    squares += values[index]! ** 2;
  }
  return Math.sqrt(squares);
}
