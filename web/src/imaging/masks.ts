/** (i, j, k) masks of 0 and 1: their voxels, and how they grow and shrink by the six neighbours, as in scipy. */

import { roundHalfEven } from "./matrix";
import type { Shape, Vector, Volume } from "./volume";

export type Mask = Uint8Array;

/** Indices of a mask's voxels on every `step`-th of the grid's planes; of these, in the grid's order, every `every`-th. */
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
  const indices = new Uint32Array(mask.reduce((sum, value) => sum + (value ? 1 : 0), 0));
  let count = 0;
  mask.forEach((value, at) => {
    if (value) indices[count++] = at;
  });
  return indices;
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
  let at = 0;
  for (let i = 0; i < ni; i++) {
    for (let j = 0; j < nj; j++) {
      for (let k = 0; k < nk; k++, at++) {
        if (mask[at] !== value) continue;
        if (i > 0) result[at - nj * nk] = value;
        if (i < ni - 1) result[at + nj * nk] = value;
        if (j > 0) result[at - nk] = value;
        if (j < nj - 1) result[at + nk] = value;
        if (k > 0) result[at - 1] = value;
        if (k < nk - 1) result[at + 1] = value;
      }
    }
  }
  return spread(result, shape, times - 1, value);
}
