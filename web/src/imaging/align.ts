/**
 * Register a scan to the standard: a 4 x 4 matrix from standard world mm to the scan's world mm, both RAS+.
 *
 * The same as `adpet.imaging.align`, which says why, function by function.
 */

import { climb, type Target } from "./climbing";
import { InputError } from "./errors";
import { gaussianFilter, uniformFilter } from "./filters";
import {
  apply,
  diagonal,
  inverse,
  joined,
  product,
  rotationByDegrees,
  roundHalfEven,
  singularValues,
  voxelSizes,
} from "./matrix";
import type { Level, RegistrationConstants } from "./model";
import { dilated, eroded, type Mask } from "./morphology";
import { percentile, resample, sample } from "./sampling";
import type { Matrix4, Shape, Vector, Volume } from "./volume";
import { general, percent } from "./wording";

export const FWHM_PER_SIGMA = 2 * Math.sqrt(2 * Math.log(2));

/** Where registration ends its Gaussians, in sigmas. */
const TRUNCATE = 2.5;
const BRIGHT_PERCENT = 99;
const BRIGHT_SHARE = 0.3;

export interface Alignment {
  /** Standard world mm -> the scan's world mm. */
  readonly matrix: Matrix4;
  /** Correlation of scan and template inside the brain, from -1 to 1. */
  readonly similarity: number;
}

/** Told the share of the work that is done, from 0 to 1. */
export type Progress = (done: number) => void;

/**
 * Register a scan to the template, rigidly and then affinely.
 *
 * @param mask - The brain on the template's grid.
 * @throws InputError if scan and template do not overlap or no plausible alignment is found.
 */
export function register(
  moving: Volume,
  template: Volume,
  mask: Mask,
  constants: RegistrationConstants,
  progress: Progress = () => undefined,
): Alignment {
  const { scan, seen } = prepared(moving, Math.min(...voxelSizes(template.affine)), constants);
  progress(0.2);
  const guess = bestGuess(scan, template, mask, constants);
  progress(0.4);
  const around = grown(mask, template, constants.margin_mm);
  // By edges first: a dim lobe does not pull. Where the scalp is bright, its edge can be taken for the
  // brain's; the intensities themselves then tell the two apart.
  const views: (() => [Volume, Volume])[] = [
    () => [evened(scan, constants), evened(template, constants)],
    () => [scan, template],
  ];
  const found: Alignment[] = [];
  let failure: InputError | undefined;
  for (const [index, view] of views.entries()) {
    try {
      const [scanView, templateView] = view();
      const matrix = registered(scanView, templateView, seen, around, guess, constants);
      const aligned = resample(moving, template, matrix);
      const alike = similarity(aligned, template.data, template.shape, mask, constants.similarity_sigma);
      found.push({ matrix, similarity: alike });
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      failure = error;
      continue;
    }
    progress(0.7 + 0.3 * index);
    if (found.at(-1)!.similarity >= constants.convincing) break;
  }
  const [first, ...others] = found;
  if (!first) throw new InputError(`registration failed: ${failure!.message}`);
  return others.reduce((best, other) => (other.similarity > best.similarity ? other : best), first);
}

/**
 * How alike two images of one grid are: Pearson correlation in a mask, after a blur of `sigma` voxels.
 *
 * 0 where an image is constant.
 */
export function similarity(
  data: Float32Array,
  other: Float32Array,
  shape: Shape,
  mask: Mask,
  sigma: number,
): number {
  const a = blurred(data, shape, [sigma, sigma, sigma]);
  const b = blurred(other, shape, [sigma, sigma, sigma]);
  const inside = indicesOf(mask);
  const mean = (image: Float32Array): number =>
    inside.reduce((sum, at) => sum + image[at]!, 0) / inside.length;
  const [meanA, meanB] = [mean(a), mean(b)];
  let [both, squaresA, squaresB] = [0, 0, 0];
  for (const at of inside) {
    const [u, v] = [a[at]! - meanA, b[at]! - meanB];
    both += u * v;
    squaresA += u * u;
    squaresB += v * v;
  }
  const scale = Math.sqrt(squaresA * squaresB);
  return scale > 0 ? both / scale : 0;
}

/** The matrix that rigid and affine steps lead to from `guess`. */
function registered(
  scan: Volume,
  template: Volume,
  seen: Volume,
  around: Mask,
  guess: Matrix4,
  constants: RegistrationConstants,
): Matrix4 {
  const rigid = optimised(scan, seen, template, around, guess, false, constants);
  const near = wellSeen(seen, template, around, rigid, constants);
  const matrix = optimised(scan, seen, template, near, rigid, true, constants);
  const sizes = singularValues(matrix);
  const [low, high] = constants.stretch;
  const [largest, smallest] = [sizes[0]!, sizes[2]!];
  if (!(low <= smallest && largest <= high)) {
    throw new InputError(
      `the head would have to be ${smallest.toFixed(2)} to ${largest.toFixed(2)} times the standard's ` +
        `size, ${general(low)} to ${general(high)} are allowed: look at the scan`,
    );
  }
  return matrix;
}

/** The scan, blurred, on an axis-aligned grid of `spacing` mm, and how much of a voxel was seen. */
function prepared(
  moving: Volume,
  spacing: number,
  constants: RegistrationConstants,
): { scan: Volume; seen: Volume } {
  const sigma = voxelSizes(moving.affine).map((zoom) => constants.blur_fwhm_mm / FWHM_PER_SIGMA / zoom);
  const smooth = blurred(
    moving.data.map((value) => Math.max(value, 0)),
    moving.shape,
    sigma,
  );
  if (!smooth.some((value) => value > 0)) {
    throw new InputError("registration failed: the scan has no positive uptake: look at the scan");
  }
  const [low, high] = cornersOf(moving);
  const shape = low.map((value, axis) => Math.ceil((high[axis]! - value) / spacing)) as Vector;
  const affine = diagonal(spacing, spacing, spacing);
  for (let axis = 0; axis < 3; axis++) affine[axis]![3] = low[axis]! + spacing / 2;
  const grid = { shape, affine };
  const ones = new Float32Array(smooth.length).fill(1);
  return {
    scan: { ...grid, data: resample({ ...moving, data: smooth }, grid) },
    seen: { ...grid, data: resample({ ...moving, data: ones }, grid) },
  };
}

/** The lowest and highest world coordinates of a volume's outermost voxel edges. */
function cornersOf({ shape, affine }: Volume): [Vector, Vector] {
  const low: Vector = [Infinity, Infinity, Infinity];
  const high: Vector = [-Infinity, -Infinity, -Infinity];
  for (let corner = 0; corner < 8; corner++) {
    const index = [0, 1, 2].map((axis) => ((corner >> axis) & 1 ? shape[axis]! - 0.5 : -0.5)) as Vector;
    apply(affine, index).forEach((value, axis) => {
      low[axis] = Math.min(low[axis]!, value);
      high[axis] = Math.max(high[axis]!, value);
    });
  }
  return [low, high];
}

function blurred(data: Float32Array, shape: Shape, sigma: readonly number[]): Float32Array {
  return gaussianFilter(data, shape, sigma, { edge: "nearest", truncate: TRUNCATE });
}

/** Divide an axis-aligned volume by its local mean, air apart. */
function evened(volume: Volume, constants: RegistrationConstants): Volume {
  const sigma = voxelSizes(volume.affine).map((zoom) => constants.local_sigma_mm / zoom);
  const local = blurred(volume.data, volume.shape, sigma);
  const air = Math.fround(Math.fround(constants.air) * local.reduce((most, value) => Math.max(most, value)));
  return { ...volume, data: volume.data.map((value, at) => value / Math.fround(local[at]! + air)) };
}

/** Try rotations and shifts about the centres of mass on coarse points; return the most similar. */
function bestGuess(scan: Volume, template: Volume, mask: Mask, constants: RegistrationConstants): Matrix4 {
  const step = Math.max(1, roundHalfEven(constants.guess_spacing_mm / template.affine[0]![0]!));
  const around = grown(mask, template, 2 * constants.margin_mm);
  const indices = coarseIndices(around, template.shape, step);
  const smooth = uniformFilter(template.data, template.shape, step);
  const points = indices.map((index) => apply(template.affine, index));
  const values = Float64Array.from(indices, (index) => smooth[offsetOf(index, template.shape)]!);
  const spread = deviations(values);
  const image = uniformFilter(scan.data, scan.shape, step);
  const toIndex = inverse(scan.affine);
  const found = new Float64Array(points.length);

  const likeness = (matrix: Matrix4): number => {
    const where = product(toIndex, matrix);
    points.forEach((point, at) => {
      const [u, v, w] = apply(where, point);
      found[at] = sample(image, scan.shape, u, v, w);
    });
    const own = deviations(found);
    const scale = own.size * spread.size;
    if (!(scale > 0)) return -1;
    let both = 0;
    for (let at = 0; at < found.length; at++) both += (found[at]! - own.mean) * (values[at]! - spread.mean);
    return both / found.length / scale;
  };

  let best: { matrix: Matrix4; likeness: number } | undefined;
  for (const matrix of guesses(centreOfMass(template), centreOfMass(scan), constants)) {
    const alike = likeness(matrix);
    if (!best || alike > best.likeness) best = { matrix, likeness: alike };
  }
  return best!.matrix;
}

/** Mean and standard deviation. */
function deviations(values: Float64Array): { mean: number; size: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, size: Math.sqrt(squares / values.length) };
}

/** Rigid matrices that bring `centre` near `target`. */
function* guesses(centre: Vector, target: Vector, constants: RegistrationConstants): Generator<Matrix4> {
  const degrees = constants.guess_degrees;
  for (const x of degrees) {
    for (const y of degrees) {
      for (const z of degrees) {
        const turn = rotationByDegrees([x, y, z]);
        const turned = apply(joined(turn, [0, 0, 0]), centre);
        for (const shift of constants.guess_shifts_mm) {
          const shifted = [target[0], target[1], target[2] + shift];
          yield joined(turn, shifted.map((value, axis) => value - turned[axis]!) as Vector);
        }
      }
    }
  }
}

/** The part of `around` that lies inside the scanner's view, a margin apart. */
function wellSeen(
  seen: Volume,
  template: Volume,
  around: Mask,
  matrix: Matrix4,
  constants: RegistrationConstants,
): Mask {
  const wholly = Math.fround(constants.wholly_seen);
  const inside = Uint8Array.from(resample(seen, template, matrix), (share) => (share > wholly ? 1 : 0));
  const kept = eroded(inside, template.shape, steps(constants.margin_mm, template));
  const well = around.map((value, at) => value & kept[at]!);
  const share = indicesOf(well).length / indicesOf(around).length;
  if (share < constants.min_seen) {
    throw new InputError(
      `${percent(share)} of the brain lies in the scanner's view, ${percent(constants.min_seen)} must:` +
        " look at the scan",
    );
  }
  return well;
}

/** Climb from `start` through the levels of resolution. */
function optimised(
  scan: Volume,
  seen: Volume,
  template: Volume,
  around: Mask,
  start: Matrix4,
  affine: boolean,
  constants: RegistrationConstants,
): Matrix4 {
  const wholly = Math.fround(constants.wholly_seen);
  const counts = Uint8Array.from(seen.data, (share) => (share > wholly ? 1 : 0));
  let matrix = start;
  for (const level of affine ? constants.affine_levels : constants.rigid_levels) {
    const target = targetOf(template, around, level);
    const smooth = blurred(scan.data, scan.shape, [level.blur, level.blur, level.blur]);
    matrix = climb({ ...scan, data: smooth }, counts, target, matrix, affine, constants);
  }
  return matrix;
}

/** The points of a level, and the blurred template there. */
function targetOf(template: Volume, around: Mask, level: Level): Target {
  const indices = coarseIndices(around, template.shape, level.step).filter((_, at) => at % level.every === 0);
  const smooth = blurred(template.data, template.shape, [level.blur, level.blur, level.blur]);
  const pointsMm = new Float64Array(3 * indices.length);
  const values = new Float64Array(indices.length);
  indices.forEach((index, at) => {
    pointsMm.set(apply(template.affine, index), 3 * at);
    values[at] = smooth[offsetOf(index, template.shape)]!;
  });
  return { pointsMm, values };
}

/** Indices of a mask's voxels on every so many of the grid's planes, in the order of the grid. */
function coarseIndices(mask: Mask, [ni, nj, nk]: Shape, step: number): Vector[] {
  const indices: Vector[] = [];
  for (let i = 0; i < ni; i += step) {
    for (let j = 0; j < nj; j += step) {
      for (let k = 0; k < nk; k += step) {
        if (mask[(i * nj + j) * nk + k]) indices.push([i, j, k]);
      }
    }
  }
  return indices;
}

function offsetOf([i, j, k]: Vector, shape: Shape): number {
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

function steps(marginMm: number, template: Volume): number {
  return Math.max(1, roundHalfEven(marginMm / template.affine[0]![0]!));
}

function grown(mask: Mask, template: Volume, marginMm: number): Mask {
  return dilated(mask, template.shape, steps(marginMm, template));
}

/** World coordinates of the centre of what is bright. */
function centreOfMass({ data, shape, affine }: Volume): Vector {
  const least = Math.fround(Math.fround(BRIGHT_SHARE) * percentile(data, BRIGHT_PERCENT));
  const sums: Vector = [0, 0, 0];
  let total = 0;
  let at = 0;
  for (let i = 0; i < shape[0]; i++) {
    for (let j = 0; j < shape[1]; j++) {
      for (let k = 0; k < shape[2]; k++, at++) {
        const value = data[at]!;
        if (!(value > least)) continue;
        total += value;
        sums[0] += value * i;
        sums[1] += value * j;
        sums[2] += value * k;
      }
    }
  }
  return apply(affine, sums.map((sum) => sum / total) as Vector);
}
