/** Linear interpolation as scipy's: 0 outside the outermost voxel centres. */

import { inverse, product, roundedIndex } from "./matrix";
import { eachVoxel, type Grid, type Matrix4, type Shape, type Volume, voxelCount } from "./volume";

type Row = [number, number, number, number];

/** Sample a volume linearly on a grid; `matrix` leads from the grid's world mm to the volume's. */
export function resample(volume: Volume, grid: Grid, matrix?: Matrix4): Float32Array {
  const toIndex = inverse(volume.affine);
  const inGrid = product(matrix ? product(toIndex, matrix) : toIndex, grid.affine);
  // Rounded so that a grid that coincides with the volume's own is not thrown off its edge by the last bits.
  const indices = inGrid.map((row) => row.map(roundedIndex));
  return transformed(volume.data, volume.shape, indices, grid.shape);
}

/** Sample at `matrix` times each index of `outputShape`, each voxel index being rounded by `round`. */
export function transformed(
  data: Float32Array,
  shape: Shape,
  matrix: Matrix4,
  outputShape: Shape,
  round = (value: number): number => value,
): Float32Array {
  const [x, y, z] = matrix as [Row, Row, Row];
  const sampled = new Float32Array(voxelCount(outputShape));
  eachVoxel(outputShape, (i, j, k, at) => {
    const u = round(x[0] * i + x[1] * j + x[2] * k + x[3]);
    const v = round(y[0] * i + y[1] * j + y[2] * k + y[3]);
    const w = round(z[0] * i + z[1] * j + z[2] * k + z[3]);
    sampled[at] = sample(data, shape, u, v, w);
  });
  return sampled;
}

export function sample(
  data: Float32Array | Float64Array,
  shape: Shape,
  u: number,
  v: number,
  w: number,
): number {
  const [ni, nj, nk] = shape;
  if (!(u >= 0 && v >= 0 && w >= 0 && u <= ni - 1 && v <= nj - 1 && w <= nk - 1)) return 0;
  const [i, j, k] = [Math.floor(u), Math.floor(v), Math.floor(w)];
  const [fu, fv, fw] = [u - i, v - j, w - k];
  const [gu, gv, gw] = [1 - fu, 1 - fv, 1 - fw];
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
