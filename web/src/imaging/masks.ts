/** Which voxels of a mask, in which order, and masks that grow by millimetres. */

import { roundHalfEven } from "./matrix";
import { dilated, type Mask } from "./morphology";
import type { Shape, Vector, Volume } from "./volume";

/** Indices of a mask's voxels on every `step`-th of the grid's planes; of these, in the grid's order, every so many. */
export function coarseIndices(mask: Mask, [ni, nj, nk]: Shape, step: number, every = 1): Vector[] {
  const indices: Vector[] = [];
  let count = 0;
  for (let i = 0; i < ni; i += step) {
    for (let j = 0; j < nj; j += step) {
      for (let k = 0; k < nk; k += step) {
        if (mask[(i * nj + j) * nk + k] && count++ % every === 0) indices.push([i, j, k]);
      }
    }
  }
  return indices;
}

export function offsetOf([i, j, k]: Vector, shape: Shape): number {
  return (i * shape[1] + j) * shape[2] + k;
}

/** Offsets of a mask's voxels. */
export function indicesOf(mask: Mask): Uint32Array {
  let count = 0;
  for (const value of mask) count += value ? 1 : 0;
  const indices = new Uint32Array(count);
  count = 0;
  mask.forEach((value, at) => {
    if (value) indices[count++] = at;
  });
  return indices;
}

/** How many of a grid's voxels a margin is, at least one. */
export function steps(marginMm: number, template: Volume): number {
  return Math.max(1, roundHalfEven(marginMm / template.affine[0]![0]!));
}

export function grown(mask: Mask, template: Volume, marginMm: number): Mask {
  return dilated(mask, template.shape, steps(marginMm, template));
}
