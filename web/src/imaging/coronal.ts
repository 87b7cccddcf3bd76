/**
 * Cut coronal planes out of a volume, and put maps of those planes back: one geometry, both ways.
 *
 * Planes run from posterior to anterior; in a plane, row 0 is superior and column 0 the patient's left.
 */

import { toBytes } from "./intensity";
import { inverse, product } from "./matrix";
import type { Model, SliceConstants } from "./model";
import { roundedTransform } from "./sampling";
import type { Matrix4, Volume } from "./volume";

/** (row, column, plane) -> world x, y, z in mm. */
function planeAffine({ y_mm: y, size, field_mm: field, centre_z_mm: centreZ }: SliceConstants): Matrix4 {
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

/**
 * Cut the model's planes out of a standardised volume, as bytes for the network.
 *
 * @returns n planes of `size` rows of `size` pixels, one after the other.
 */
export function coronalSlices(volume: Volume, { constants: { slices } }: Model): Uint8Array {
  return toBytes(coronalRatios(volume, slices), slices.window);
}

/** The same planes as ratios. */
export function coronalRatios(volume: Volume, slices: SliceConstants): Float32Array {
  const { size } = slices;
  const n = slices.y_mm.length;
  const matrix = product(inverse(volume.affine), planeAffine(slices));
  const sampled = roundedTransform(volume.data, volume.shape, matrix, [size, size, n]);
  const planes = new Float32Array(sampled.length);
  for (let pixel = 0; pixel < size * size; pixel++) {
    for (let plane = 0; plane < n; plane++) planes[plane * size * size + pixel] = sampled[pixel * n + plane]!;
  }
  return planes;
}

/**
 * Put maps of the model's planes back into the standard grid.
 *
 * @param maps - n maps of `map_size`, one after the other, each over its plane's whole field.
 * @returns In the order of the standard grid: linear within and between planes, 0 outside them.
 */
export function backProject(maps: Float32Array, { constants }: Model): Float32Array {
  const { slices, standard, network } = constants;
  const [n, size] = [slices.y_mm.length, slices.size];
  const [rows, columns] = network.map_size;
  if (maps.length !== n * rows * columns) {
    throw new RangeError(
      `expected one map of ${rows} x ${columns} for each of ${n} planes. Received: ${maps.length}`,
    );
  }
  const planes = resized(maps, [n, rows, columns], size);
  const matrix = product(inverse(planeAffine(slices)), standard.affine);
  return roundedTransform(planes, [size, size, n], matrix, standard.shape);
}

/** Resize maps bilinearly with pixel centres aligned, and bring the planes' index last. */
function resized(
  maps: Float32Array,
  [n, rows, columns]: [number, number, number],
  size: number,
): Float32Array {
  const down = bilinear(size, rows);
  const across = bilinear(size, columns);
  const planes = new Float32Array(size * size * n);
  const tall = new Float64Array(size * columns);
  for (let plane = 0; plane < n; plane++) {
    const first = plane * rows * columns;
    down.forEach(({ low, high, share }, row) => {
      for (let column = 0; column < columns; column++) {
        const [above, below] = [
          maps[first + low * columns + column]!,
          maps[first + high * columns + column]!,
        ];
        tall[row * columns + column] = (1 - share) * above + share * below;
      }
    });
    for (let row = 0; row < size; row++) {
      across.forEach(({ low, high, share }, column) => {
        const [left, right] = [tall[row * columns + low]!, tall[row * columns + high]!];
        planes[(row * size + column) * n + plane] = (1 - share) * left + share * right;
      });
    }
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
