/** Linear interpolation as scipy's: 0 outside the outermost voxel centres. */

import { inverse, product, roundedIndex, roundedIndices } from "./matrix";
import { type Matrix4, type Shape, type Volume, voxelCount } from "./volume";

/**
 * Sample a volume linearly on another grid.
 *
 * @param grid - `shape`, and `affine`: the grid's voxel indices -> RAS+ mm.
 * @param matrix - The grid's world mm -> the volume's world mm.
 */
export function resample(
  volume: Volume,
  grid: { shape: Shape; affine: Matrix4 },
  matrix?: Matrix4,
): Float32Array {
  const inWorld = matrix ? product(inverse(volume.affine), matrix) : inverse(volume.affine);
  // Rounded so that a grid that coincides with the volume's own is not thrown off its edge by the last bits.
  const indices = roundedIndices(product(inWorld, grid.affine));
  return affineTransform(volume.data, volume.shape, indices, grid.shape);
}

/** Sample at `matrix` times each index of `outputShape`. */
export function affineTransform(
  data: Float32Array,
  shape: Shape,
  matrix: Matrix4,
  outputShape: Shape,
): Float32Array {
  return sampledGrid(data, shape, matrix, outputShape, false);
}

/** The same, each index being rounded to nine digits. */
export function roundedTransform(
  data: Float32Array,
  shape: Shape,
  matrix: Matrix4,
  outputShape: Shape,
): Float32Array {
  return sampledGrid(data, shape, matrix, outputShape, true);
}

function sampledGrid(
  data: Float32Array,
  shape: Shape,
  matrix: Matrix4,
  [ni, nj, nk]: Shape,
  round: boolean,
): Float32Array {
  const [x, y, z] = matrix as [number[], number[], number[], number[]];
  const [xi, xj, xk, x0] = x as [number, number, number, number];
  const [yi, yj, yk, y0] = y as [number, number, number, number];
  const [zi, zj, zk, z0] = z as [number, number, number, number];
  const sampled = new Float32Array(voxelCount([ni, nj, nk]));
  let at = 0;
  for (let i = 0; i < ni; i++) {
    for (let j = 0; j < nj; j++) {
      for (let k = 0; k < nk; k++) {
        let u = xi * i + xj * j + xk * k + x0;
        let v = yi * i + yj * j + yk * k + y0;
        let w = zi * i + zj * j + zk * k + z0;
        if (round) {
          u = roundedIndex(u);
          v = roundedIndex(v);
          w = roundedIndex(w);
        }
        sampled[at++] = sample(data, shape, u, v, w);
      }
    }
  }
  return sampled;
}

/** The value at one place in voxel indices. */
export function sample(
  data: Float32Array | Float64Array,
  shape: Shape,
  u: number,
  v: number,
  w: number,
): number {
  const ni = shape[0];
  const nj = shape[1];
  const nk = shape[2];
  if (!(u >= 0 && v >= 0 && w >= 0 && u <= ni - 1 && v <= nj - 1 && w <= nk - 1)) return 0;
  const i = Math.floor(u);
  const j = Math.floor(v);
  const k = Math.floor(w);
  const fu = u - i;
  const fv = v - j;
  const fw = w - k;
  const gu = 1 - fu;
  const gv = 1 - fv;
  const gw = 1 - fw;
  // On the last voxel the next one has no weight.
  const di = i < ni - 1 ? nj * nk : 0;
  const dj = j < nj - 1 ? nk : 0;
  const dk = k < nk - 1 ? 1 : 0;
  const at = (i * nj + j) * nk + k;
  return (
    data[at]! * gu * gv * gw +
    data[at + dk]! * gu * gv * fw +
    data[at + dj]! * gu * fv * gw +
    data[at + dj + dk]! * gu * fv * fw +
    data[at + di]! * fu * gv * gw +
    data[at + di + dk]! * fu * gv * fw +
    data[at + di + dj]! * fu * fv * gw +
    data[at + di + dj + dk]! * fu * fv * fw
  );
}

/** NumPy's percentile, by its linear rule, in single precision. */
export function percentile(data: Float32Array, percent: number): number {
  const sorted = Float32Array.from(data).sort();
  const where = (sorted.length - 1) * (percent / 100);
  const below = Math.floor(where);
  const [a, b] = [sorted[below]!, sorted[Math.min(below + 1, sorted.length - 1)]!];
  const t = where - below;
  const apart = Math.fround(b - a);
  return t >= 0.5
    ? Math.fround(b - Math.fround(apart * Math.fround(1 - t)))
    : Math.fround(a + Math.fround(apart * Math.fround(t)));
}
