/** (i, j, k) masks of 0 and 1: their voxels, and how they grow and shrink by the six neighbours, as in scipy. */

import { roundHalfEven } from "./matrix";
import { eachVoxel, type Shape, type Vector, type Volume } from "./volume";

export type Mask = Uint8Array;

/** Indices of a mask's voxels on every `step`-th of the grid's planes; of these, every `every`-th. */
export function coarseIndices(mask: Mask, shape: Shape, step: number, every = 1): Vector[] {
  const indices: Vector[] = [];
  eachVoxel(shape, (i, j, k, at) => {
    if (mask[at] && i % step === 0 && j % step === 0 && k % step === 0) indices.push([i, j, k]);
  });
  return indices.filter((_, count) => count % every === 0);
}

export function offsetOf([i, j, k]: Vector, shape: Shape): number {
  return (i * shape[1] + j) * shape[2] + k;
}

export function indicesOf(mask: Mask): Uint32Array {
  return Uint32Array.from(mask.keys()).filter((at) => mask[at]);
}

/** How many of a grid's voxels a margin is, at least one. */
function steps(marginMm: number, template: Volume): number {
  return Math.max(1, roundHalfEven(marginMm / template.affine[0]![0]!));
}

/** Grow a mask by a margin; beyond the edges there is nothing. */
export function grown(mask: Mask, template: Volume, marginMm: number): Mask {
  return spread(mask, template.shape, steps(marginMm, template), 1);
}

/** Shrink a mask by a margin; beyond the edges all is taken to be inside. */
export function shrunk(mask: Mask, template: Volume, marginMm: number): Mask {
  return spread(mask, template.shape, steps(marginMm, template), 0);
}

/** Spread a value to all neighbours, `times` times. */
function spread(mask: Mask, shape: Shape, times: number, value: 0 | 1): Mask {
  if (!times) return mask;
  const [ni, nj, nk] = shape;
  const result = Uint8Array.from(mask);
  eachVoxel(shape, (i, j, k, at) => {
    if (mask[at] !== value) return;
    if (i > 0) result[at - nj * nk] = value;
    if (i < ni - 1) result[at + nj * nk] = value;
    if (j > 0) result[at - nk] = value;
    if (j < nj - 1) result[at + nk] = value;
    if (k > 0) result[at - 1] = value;
    if (k < nk - 1) result[at + 1] = value;
  });
  return spread(result, shape, times - 1, value);
}
