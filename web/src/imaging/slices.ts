/** Coronal planes, posterior to anterior, and back: row 0 is superior, column 0 the patient's left. */

import { toBytes } from "./intensity";
import { inverse, product, roundedIndex } from "./matrix";
import type { Slices } from "../model.generated";
import type { Model } from "./model";
import { transformed } from "./sampling";
import type { Matrix4, Volume } from "./volume";

/** (row, column, plane) -> world x, y, z in mm. */
function planeAffine({ y_mm: y, size, field_mm: field, centre_z_mm: centreZ }: Slices): Matrix4 {
  const pixel = field / size;
  const step = y.length === 1 ? pixel : (y.at(-1)! - y[0]!) / (y.length - 1);
  const edge = field / 2 - pixel / 2;
  return [
    [0, pixel, 0, -edge],
    [0, 0, step, y[0]!],
    [-pixel, 0, 0, centreZ + edge],
    [0, 0, 0, 1],
  ];
}

/** Number of planes that the network sees at once: each alone, or between its neighbours. */
export function channelsOf({ neighbours_mm: neighbours }: Slices): number {
  return neighbours ? 3 : 1;
}

/** Cut the network's input out of a standard volume: bytes (n, size, size, channels). */
export function networkSlices(volume: Volume, { constants: { slices } }: Model): Uint8Array {
  const [n, size, channels] = [slices.y_mm.length, slices.size, channelsOf(slices)];
  const offsets = channels === 1 ? [0] : [-slices.neighbours_mm, 0, slices.neighbours_mm];
  const planes = new Float32Array(n * size * size * channels);
  offsets.forEach((offset, channel) => {
    const shifted = { ...slices, y_mm: slices.y_mm.map((y) => y + offset) };
    const matrix = product(inverse(volume.affine), planeAffine(shifted));
    const sampled = transformed(volume.data, volume.shape, matrix, [size, size, n], roundedIndex);
    for (let pixel = 0; pixel < size * size; pixel++) {
      for (let plane = 0; plane < n; plane++)
        planes[(plane * size * size + pixel) * channels + channel] = sampled[pixel * n + plane]!;
    }
  });
  return toBytes(planes, slices.window);
}

/** Return the planes themselves of a network's input, without their neighbours. */
export function ownPlanes(pixels: Uint8Array, slices: Slices): Uint8Array {
  const channels = channelsOf(slices);
  const own = Math.floor(channels / 2);
  return pixels.filter((_, index) => index % channels === own);
}

/** Put n maps of `map_size` back into the standard grid: linear within and between planes, 0 outside them. */
export function backProject(maps: Float32Array, { constants }: Model): Float32Array {
  const { slices, standard, network } = constants;
  const [n, size] = [slices.y_mm.length, slices.size];
  const [rows, columns] = network.map_size;
  const planes = resizeMaps(maps, [n, rows, columns], size);
  const matrix = product(inverse(planeAffine(slices)), standard.affine);
  return transformed(planes, [size, size, n], matrix, standard.shape, roundedIndex);
}

/** Resize maps bilinearly with pixel centres aligned, and bring the planes' index last. */
export function resizeMaps(
  maps: Float32Array,
  [n, rows, columns]: readonly [number, number, number],
  size: number,
): Float32Array {
  const [down, across] = [bilinear(size, rows), bilinear(size, columns)];
  const planes = new Float32Array(size * size * n);
  for (let plane = 0; plane < n; plane++) {
    const at = (row: number, column: number) => maps[(plane * rows + row) * columns + column]!;
    down.forEach((d, row) =>
      across.forEach((a, column) => {
        const left = (1 - d.share) * at(d.low, a.low) + d.share * at(d.high, a.low);
        const right = (1 - d.share) * at(d.low, a.high) + d.share * at(d.high, a.high);
        planes[(row * size + column) * n + plane] = (1 - a.share) * left + a.share * right;
      }),
    );
  }
  return planes;
}

/** For each of `target` pixels, the two of `source` that it lies between, and how near it is to the second. */
function bilinear(target: number, source: number): { low: number; high: number; share: number }[] {
  return Array.from({ length: target }, (_, index) => {
    const centre = Math.min(Math.max(((index + 0.5) * source) / target - 0.5, 0), source - 1);
    const low = Math.min(Math.floor(centre), source - 1);
    return { low, high: Math.min(low + 1, source - 1), share: centre - low };
  });
}
