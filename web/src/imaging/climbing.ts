/**
 * Turn, shift and stretch one image until it correlates best with another: damped Gauss-Newton steps.
 *
 * The same as `adpet.imaging.climbing`, which names the sources, step by step.
 */

import { InputError } from "./errors";
import { apply, inverse, joined, product, rotationByVector, solve, upperLeft } from "./matrix";
import type { RegistrationConstants } from "./model";
import type { Mask } from "./morphology";
import type { Matrix4, Vector, Volume } from "./volume";

/** What a scan is compared with: `pointsMm`, n times x, y, z in standard world mm, and `values`, n, there. */
export interface Target {
  readonly pointsMm: Float64Array;
  readonly values: Float64Array;
}

/** How alike the images are at one place, and the least squares problem of going up from there. */
interface Look {
  readonly correlation: number;
  readonly normal: number[][];
  readonly towards: number[];
}

/**
 * Return the matrix near `start` at which the scan correlates best with the target.
 *
 * @param scan - Smooth enough that its slopes mean something at the distance still to go.
 * @param seen - Which of the scan's voxels count.
 * @param start - Standard world mm -> the scan's world mm.
 * @param stretches - Whether lengths and angles may change (12 unknowns), or the head only turns and shifts (6).
 * @throws InputError where hardly any of the target lies in the scan's view, or all is constant there.
 */
export function climb(
  scan: Volume,
  seen: Mask,
  target: Target,
  start: Matrix4,
  stretches: boolean,
  constants: RegistrationConstants,
): Matrix4 {
  const [lowest, highest] = constants.damping_range;
  const centre = meanPoint(target.pointsMm);
  const looker = new Looker(scan, seen, target, centre, stretches, constants.fewest_seen);
  let matrix = start;
  let damping = constants.damping;
  let here = looker.look(matrix);
  if (!here) {
    throw new InputError("scan and template do not overlap: look at the scan");
  }
  for (let count = 0; count < constants.most_steps; count++) {
    const there = moved(matrix, centre, step(here, damping));
    const look = looker.look(there);
    const lengthMm = distanceMm(matrix, there, target.pointsMm);
    if (look && look.correlation > here.correlation) {
      matrix = there;
      here = look;
      damping = Math.max(damping * constants.eased, lowest);
    } else {
      damping *= constants.tightened;
    }
    if (lengthMm < constants.shortest_step_mm || damping > highest) break;
  }
  return matrix;
}

/** Compares the images under one matrix after another, in memory that is taken once. */
class Looker {
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
    const all = product(this.toIndex, matrix);
    const [x, y, z] = all as [number[], number[], number[], number[]];
    const [xi, xj, xk] = x as [number, number, number];
    const [yi, yj, yk] = y as [number, number, number];
    const [zi, zj, zk] = z as [number, number, number];
    const [x0, y0, z0] = apply(all, centre);
    const [a, b, c] = this.toIndex as [number[], number[], number[], number[]];
    const [m, n, o] = matrix as [number[], number[], number[], number[]];
    let count = 0;
    for (let point = 0; point < this.n; point++) {
      const px = target.pointsMm[3 * point]! - centre[0];
      const py = target.pointsMm[3 * point + 1]! - centre[1];
      const pz = target.pointsMm[3 * point + 2]! - centre[2];
      const i = px * xi + py * xj + pz * xk + x0;
      const j = px * yi + py * yj + pz * yk + y0;
      const k = px * zi + py * zj + pz * zk + z0;
      if (!(i >= 0 && j >= 0 && k >= 0 && i < ni - 1 && j < nj - 1 && k < nk - 1)) continue;
      if (!seen[(Math.floor(i + 0.5) * nj + Math.floor(j + 0.5)) * nk + Math.floor(k + 0.5)]) continue;
      const [li, lj, lk] = [Math.floor(i), Math.floor(j), Math.floor(k)];
      const [u, v, w] = [i - li, j - lj, k - lk];
      // Along the last axis first, each with its slope.
      const at = (li * nj + lj) * nk + lk;
      const row = nk;
      const plane = nj * nk;
      const n00 = data[at]!;
      const w00 = data[at + 1]! - n00;
      const n01 = data[at + row]!;
      const w01 = data[at + row + 1]! - n01;
      const n10 = data[at + plane]!;
      const w10 = data[at + plane + 1]! - n10;
      const n11 = data[at + plane + row]!;
      const w11 = data[at + plane + row + 1]! - n11;
      const e00 = n00 + w * w00;
      const e01 = n01 + w * w01;
      const e10 = n10 + w * w10;
      const e11 = n11 + w * w11;
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
      const gx = slopeI * a[0]! + slopeJ * b[0]! + slopeK * c[0]!;
      const gy = slopeI * a[1]! + slopeJ * b[1]! + slopeK * c[1]!;
      const gz = slopeI * a[2]! + slopeJ * b[2]! + slopeK * c[2]!;
      let into = count * unknowns;
      if (stretches) {
        changes[into++] = gx * px;
        changes[into++] = gx * py;
        changes[into++] = gx * pz;
        changes[into++] = gy * px;
        changes[into++] = gy * py;
        changes[into++] = gy * pz;
        changes[into++] = gz * px;
        changes[into++] = gz * py;
        changes[into++] = gz * pz;
      } else {
        const qx = px * m[0]! + py * m[1]! + pz * m[2]!;
        const qy = px * n[0]! + py * n[1]! + pz * n[2]!;
        const qz = px * o[0]! + py * o[1]! + pz * o[2]!;
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

/** The damped least squares step: turns and shifts, 6, or entries of the matrix and shifts, 12. */
function step({ normal, towards }: Look, damping: number): number[] {
  const scale = normal.map((row, index) => row[index]!);
  const least = 1e-12 * Math.max(...scale);
  const damped = normal.map((row, index) =>
    row.map((value, column) => (index === column ? value + (damping * scale[index]! + least) : value)),
  );
  return solve(damped, towards);
}

/** Apply a step about the centre. */
function moved(matrix: Matrix4, centre: Vector, change: number[]): Matrix4 {
  const before = upperLeft(matrix);
  const turned =
    change.length === 6
      ? product(rotationByVector(change.slice(0, 3) as Vector), before)
      : before.map((row, index) => row.map((value, column) => value + change[3 * index + column]!));
  const was = apply(matrix, centre);
  const shift = [0, 1, 2].map((axis) => {
    const turnedCentre = turned[axis]!.reduce((sum, value, column) => sum + value * centre[column]!, 0);
    return was[axis]! + change[change.length - 3 + axis]! - turnedCentre;
  });
  return joined(turned, shift as Vector);
}

/** The root mean square distance between where two matrices put the points. */
export function distanceMm(a: Matrix4, b: Matrix4, pointsMm: Float64Array): number {
  const apart = a.map((row, index) => row.map((value, column) => value - b[index]![column]!));
  let sum = 0;
  for (let at = 0; at < pointsMm.length; at += 3) {
    for (let axis = 0; axis < 3; axis++) {
      const [x, y, z, shift] = apart[axis] as [number, number, number, number];
      sum += (x * pointsMm[at]! + y * pointsMm[at + 1]! + z * pointsMm[at + 2]! + shift) ** 2;
    }
  }
  return Math.sqrt(sum / (pointsMm.length / 3));
}

function meanPoint(pointsMm: Float64Array): Vector {
  const mean: Vector = [0, 0, 0];
  for (let at = 0; at < pointsMm.length; at += 3) {
    for (let axis = 0; axis < 3; axis++) mean[axis]! += pointsMm[at + axis]!;
  }
  return mean.map((sum) => sum / (pointsMm.length / 3)) as Vector;
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
