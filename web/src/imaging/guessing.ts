/** Where to begin a registration: turns and shifts that are tried on coarse points. */

import type { Registration } from "../model.generated";
import { uniformFilter } from "./filters";
import { coarseIndices, grown, type Mask, offsetOf } from "./masks";
import { apply, inverse, joined, product, rotationByDegrees, roundHalfEven, voxelSizes } from "./matrix";
import { percentile, sample } from "./sampling";
import { eachVoxel, type Matrix4, type Vector, type Volume } from "./volume";

const BRIGHT_PERCENT = 99;
const BRIGHT_SHARE = 0.3;

/** Try rotations and shifts of scans about the centres of mass; of each, return the most similar. */
export function guesser(template: Volume, mask: Mask, constants: Registration) {
  const stepOf = ({ affine }: Volume): number =>
    Math.max(1, roundHalfEven(constants.guess_spacing_mm / voxelSizes(affine)[0]));
  const step = stepOf(template);
  const around = grown(mask, template, 2 * constants.margin_mm);
  const indices = coarseIndices(around, template.shape, step);
  const smooth = uniformFilter(template.data, template.shape, step);
  const points = indices.map((index) => apply(template.affine, index));
  const values = Float64Array.from(indices, (index) => smooth[offsetOf(index, template.shape)]!);
  const spread = deviations(values);
  const centre = centreOfMass(template);
  const likeness = (matrix: Matrix4, { data, shape }: Volume, toIndex: Matrix4): number => {
    const place = product(toIndex, matrix);
    const found = Float64Array.from(points, (point) => sample(data, shape, ...apply(place, point)));
    const own = deviations(found);
    const scale = own.size * spread.size;
    if (!(scale > 0)) return -1;
    const both = found.reduce((sum, x, at) => sum + (x - own.mean) * (values[at]! - spread.mean), 0);
    return both / found.length / scale;
  };

  return (scan: Volume) => {
    const image = { ...scan, data: uniformFilter(scan.data, scan.shape, stepOf(scan)) };
    const toIndex = inverse(scan.affine);
    return guesses(centre, centreOfMass(scan), constants)
      .map((matrix) => ({ matrix, alike: likeness(matrix, image, toIndex) }))
      .reduce((best, guess) => (guess.alike > best.alike ? guess : best));
  };
}

function deviations(values: Float64Array): { mean: number; size: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, size: Math.sqrt(squares / values.length) };
}

/** Rigid matrices that bring `centre` near `target`. */
function guesses(centre: Vector, [tx, ty, tz]: Vector, constants: Registration): Matrix4[] {
  const degrees = constants.guess_degrees;
  const turns = degrees.flatMap((x) => degrees.flatMap((y) => degrees.map((z) => [x, y, z])));
  return turns.flatMap((turn) => {
    const rotation = rotationByDegrees(turn);
    const [x, y, z] = apply(joined(rotation, [0, 0, 0]), centre);
    return constants.guess_shifts_mm.map((shift) => joined(rotation, [tx - x, ty - y, tz + shift - z]));
  });
}

/** World coordinates of the centre of what is bright. */
function centreOfMass({ data, shape, affine }: Volume): Vector {
  const least = Math.fround(Math.fround(BRIGHT_SHARE) * percentile(data, BRIGHT_PERCENT));
  const sums: Vector = [0, 0, 0];
  let total = 0;
  eachVoxel(shape, (i, j, k, at) => {
    const value = data[at]!;
    if (!(value > least)) return;
    total += value;
    sums[0] += value * i;
    sums[1] += value * j;
    sums[2] += value * k;
  });
  return apply(affine, sums.map((sum) => sum / total) as Vector);
}
