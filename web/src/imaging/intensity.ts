/** SUVR (ratio to a reference region), and its bytes through one fixed window. */

import { roundHalfEven } from "./matrix";
import type { Mask } from "./masks";

/** Divide by the mean of the reference region's positive voxels; null where it holds none. */
export function ratioToReference(data: Float32Array, mask: Mask): Float32Array | null {
  const uptake = data.filter((value, at) => mask[at] && value > 0 && Number.isFinite(value));
  if (!uptake.length) return null;
  const mean = uptake.reduce((sum, value) => sum + value, 0) / uptake.length;
  return data.map((value) => value / mean);
}

/** Map ratios linearly to bytes: the window's low end to 0, its high end to 255, rounded and clipped. */
export function toBytes(ratio: Float32Array, [low, high]: readonly [number, number]): Uint8Array {
  const span = Math.fround(high - low);
  const bottom = Math.fround(low);
  return Uint8Array.from(ratio, (value) => {
    const share = Math.fround(Math.fround(value - bottom) / span);
    return roundHalfEven(Math.fround(Math.min(Math.max(share, 0), 1) * 255));
  });
}
