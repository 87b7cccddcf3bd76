/** scipy's filters of (i, j, k) images: sums in double precision, each axis' result stored in the input's own. */

import type { Shape } from "./volume";

type Image = Float32Array | Float64Array;

/** What stands beyond an image's edge: its outermost voxel, or 0. */
export type Edge = "nearest" | "constant";

/** Blur as `scipy.ndimage.gaussian_filter`, with a sigma in voxels for each axis; `truncate` is in sigmas. */
export function gaussianFilter<T extends Image>(
  data: T,
  shape: Shape,
  sigma: readonly number[],
  options: { edge: Edge; truncate: number },
): T {
  let result = data;
  for (let axis = 0; axis < 3; axis++) {
    if (!(sigma[axis]! > 1e-15)) continue;
    const weights = gaussianWeights(sigma[axis]!, options.truncate);
    result = alongAxis(result, shape, axis, (weights.length - 1) / 2, options.edge, (line, n, out) =>
      correlate(line, n, weights, out),
    );
  }
  return result;
}

/** Mean over cubes of `size` voxels, as `scipy.ndimage.uniform_filter`; the image is mirrored at its edges. */
export function uniformFilter<T extends Image>(data: T, shape: Shape, size: number): T {
  let result = data;
  if (size <= 1) return result;
  const before = Math.floor(size / 2);
  for (let axis = 0; axis < 3; axis++) {
    result = alongAxis(result, shape, axis, before, "reflect", (line, n, out) => {
      let mean = 0;
      for (let index = 0; index < size; index++) mean += line[index]!;
      mean /= size;
      out[0] = mean;
      for (let index = 1; index < n; index++) {
        mean += (line[index + size - 1]! - line[index - 1]!) / size;
        out[index] = mean;
      }
    });
  }
  return result;
}

function gaussianWeights(sigma: number, truncate: number): Float64Array {
  const radius = Math.trunc(truncate * sigma + 0.5);
  const weights = new Float64Array(2 * radius + 1);
  const factor = -0.5 / (sigma * sigma);
  for (let x = -radius; x <= radius; x++) weights[x + radius] = Math.exp(factor * x * x);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

function correlate(line: Float64Array, n: number, weights: Float64Array, out: Float64Array): void {
  const radius = (weights.length - 1) / 2;
  const middle = weights[radius]!;
  for (let index = 0; index < n; index++) {
    const at = index + radius;
    let sum = line[at]! * middle;
    for (let offset = radius; offset > 0; offset--) {
      sum += (line[at - offset]! + line[at + offset]!) * weights[radius - offset]!;
    }
    out[index] = sum;
  }
}

/** Filter every line along an axis; the filter gets it with `margin` further values at both ends. */
function alongAxis<T extends Image>(
  data: T,
  shape: Shape,
  axis: number,
  margin: number,
  edge: Edge | "reflect",
  filter: (line: Float64Array, n: number, out: Float64Array) => void,
): T {
  const n = shape[axis]!;
  const strides = [shape[1] * shape[2], shape[2], 1];
  const [outer, inner] = [0, 1, 2].filter((other) => other !== axis) as [number, number];
  const [stride, outerStride, innerStride] = [strides[axis]!, strides[outer]!, strides[inner]!];
  const result = new (data.constructor as new (length: number) => T)(data.length);
  const line = new Float64Array(n + 2 * margin);
  const out = new Float64Array(n);
  for (let a = 0; a < shape[outer]!; a++) {
    for (let b = 0; b < shape[inner]!; b++) {
      const first = a * outerStride + b * innerStride;
      for (let index = 0, at = first; index < n; index++, at += stride) line[margin + index] = data[at]!;
      extend(line, n, margin, edge);
      filter(line, n, out);
      for (let index = 0, at = first; index < n; index++, at += stride) result[at] = out[index]!;
    }
  }
  return result;
}

function extend(line: Float64Array, n: number, margin: number, edge: Edge | "reflect"): void {
  const last = margin + n - 1;
  for (let index = 0; index < margin; index++) {
    if (edge === "nearest") {
      line[index] = line[margin]!;
      line[last + 1 + index] = line[last]!;
    } else if (edge === "reflect") {
      line[margin - 1 - index] = line[margin + mirrored(index, n)]!;
      line[last + 1 + index] = line[last - mirrored(index, n)]!;
    }
  }
}

/** The place, counted from an edge, that the mirror image shows so far beyond it. */
function mirrored(beyond: number, n: number): number {
  const place = beyond % (2 * n);
  return place < n ? place : 2 * n - 1 - place;
}
