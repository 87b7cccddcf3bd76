/** Grow and shrink (i, j, k) masks of 0 and 1 by the six neighbours, as scipy does by default. */

import type { Shape } from "./volume";

export type Mask = Uint8Array;

/** Beyond the edges there is nothing. */
export function dilated(mask: Mask, shape: Shape, iterations: number): Mask {
  return repeated(mask, shape, iterations, 1);
}

/** Beyond the edges all is taken to be inside. */
export function eroded(mask: Mask, shape: Shape, iterations: number): Mask {
  return repeated(mask, shape, iterations, 0);
}

/** Spread a value to all neighbours, again and again. */
function repeated(mask: Mask, shape: Shape, iterations: number, value: 0 | 1): Mask {
  let result = mask;
  for (let iteration = 0; iteration < iterations; iteration++) result = spread(result, shape, value);
  return result;
}

function spread(mask: Mask, [ni, nj, nk]: Shape, value: 0 | 1): Mask {
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
  return result;
}
