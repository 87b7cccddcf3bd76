/** Register a scan to the template as `adpet.imaging.registration`, which says why, function by function. */

import type { Registration } from "../model.generated";
import { climb } from "./climbing";
import { InputError } from "./errors";
import { gaussianFilter } from "./filters";
import { guesser } from "./guessing";
import { MAX_VOXELS } from "./header";
import type { Target } from "./looking";
import { coarseIndices, grown, indicesOf, type Mask, offsetOf, shrunk } from "./masks";
import { apply, boundsOf, diagonal, singularValues, voxelSizes } from "./matrix";
import type { Model } from "./model";
import { resample } from "./sampling";
import { eachAxis, largest, type Matrix4, type Vector, type Volume, voxelCount } from "./volume";
import { fixed, general, percent } from "./wording";

export const FWHM_PER_SIGMA = 2 * Math.sqrt(2 * Math.log(2));

/** Where registration ends its Gaussians, in sigmas. */
const TRUNCATE = 2.5;
/** Shares of the work that are done when the scan is prepared, and when a first guess is found. */
const PREPARED = 0.2;
const GUESSED = 0.4;

export interface Alignment {
  /** Standard world mm -> the scan's world mm. */
  readonly matrix: Matrix4;
  /** Correlation of scan and template inside the brain, from -1 to 1. */
  readonly similarity: number;
}

export type Progress = (done: number) => void;

/** A view of the scan, how much of its voxels was seen, and the same view of the template. */
interface Pair {
  readonly scan: Volume;
  readonly seen: Volume;
  readonly template: Volume;
  readonly constants: Registration;
  readonly advance: () => void;
}

/** Register a scan to the template, rigidly and then affinely; throws InputError if no alignment is plausible. */
export function register(moving: Volume, model: Model, progress: Progress): Alignment {
  const { template, brain } = model;
  const constants = model.constants.registration;
  const { scan, seen } = prepared(moving, Math.min(...voxelSizes(template.affine)), constants);
  progress(PREPARED);
  const { matrix: guess } = guesser(template, brain, constants)(scan);
  progress(GUESSED);
  const around = grown(brain, template, constants.margin_mm);
  // By edges first: a dim lobe does not pull. Where the scalp is bright, its edge can be taken for the
  // brain's; the intensities themselves then tell the two apart.
  const views: ((volume: Volume) => Volume)[] = [(volume) => evened(volume, constants), (volume) => volume];
  const levels = views.length * (constants.rigid_levels.length + constants.affine_levels.length);
  let level = 0;
  const advance = (): void => progress(GUESSED + ((1 - GUESSED) * ++level) / levels);
  let best: Alignment | undefined;
  let failure: InputError | undefined;
  for (const view of views) {
    try {
      const pair = { scan: view(scan), template: view(template), seen, constants, advance };
      const matrix = registered(pair, around, guess);
      const alike = similarity(resample(moving, template, matrix), template, brain, model);
      if (!best || alike > best.similarity) best = { matrix, similarity: alike };
      if (alike >= constants.convincing) break;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      failure = error;
    }
  }
  if (!best) throw new InputError(`registration failed: ${failure!.message}`);
  return best;
}

/** Pearson correlation of two images in a mask, after a blur; 0 where one is constant. */
export function similarity(data: Float32Array, other: Volume, mask: Mask, { constants }: Model): number {
  const { similarity_sigma: sigma } = constants.registration;
  const a = blurred({ ...other, data }, sigma).data;
  const b = blurred(other, sigma).data;
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

function registered(pair: Pair, around: Mask, guess: Matrix4): Matrix4 {
  const { rigid_levels: rigidLevels, affine_levels: affineLevels, stretch } = pair.constants;
  const rigid = optimised(pair, around, guess, rigidLevels, false);
  const matrix = optimised(pair, wellSeen(pair, around, rigid), rigid, affineLevels, true);
  const [low, high] = stretch;
  const [largest, , smallest] = singularValues(matrix) as Vector;
  if (!(low <= smallest && largest <= high)) {
    throw new InputError(
      `the head would have to be ${fixed(smallest, 2)} to ${fixed(largest, 2)} times the standard's ` +
        `size, ${general(low)} to ${general(high)} are allowed: look at the scan`,
    );
  }
  return matrix;
}

/** The scan, blurred, on an axis-aligned grid of `spacing` mm, and how much of a voxel was seen. */
export function prepared(moving: Volume, spacing: number, constants: Registration) {
  const sigma = voxelSizes(moving.affine).map((zoom) => constants.blur_fwhm_mm / FWHM_PER_SIGMA / zoom);
  const positive = moving.data.map((value) => Math.max(value, 0));
  const smooth = blurred({ ...moving, data: positive }, sigma);
  if (!smooth.data.some((value) => value > 0)) {
    throw new InputError("registration failed: the scan has no positive uptake: look at the scan");
  }
  const [low, high] = boundsOf(moving, 0.5);
  const shape = eachAxis((axis) => Math.ceil((high[axis]! - low[axis]!) / spacing));
  if (voxelCount(shape) > MAX_VOXELS) {
    const sides = shape.map((n) => general(n * spacing)).join(" x ");
    throw new InputError(
      `registration failed: the field of view is ${sides} mm, far more than a head's: export the scan again`,
    );
  }
  const first = eachAxis((axis) => low[axis]! + spacing / 2);
  const grid = { shape, affine: diagonal([spacing, spacing, spacing], first) };
  const ones = new Float32Array(positive.length).fill(1);
  return {
    scan: { ...grid, data: resample(smooth, grid) },
    seen: { ...grid, data: resample({ ...moving, data: ones }, grid) },
  };
}

/** Blur by sigmas in voxels, one an axis or the same for all. */
function blurred(volume: Volume, sigma: number | number[]): Volume {
  const sigmas = typeof sigma === "number" ? [sigma, sigma, sigma] : sigma;
  const options = { edge: "nearest", truncate: TRUNCATE } as const;
  return { ...volume, data: gaussianFilter(volume.data, volume.shape, sigmas, options) };
}

/** Divide an axis-aligned volume by its local mean, air apart. */
function evened(volume: Volume, constants: Registration): Volume {
  const sigma = voxelSizes(volume.affine).map((zoom) => constants.local_sigma_mm / zoom);
  const local = blurred(volume, sigma).data;
  const air = Math.fround(Math.fround(constants.air) * largest(local));
  return { ...volume, data: volume.data.map((value, at) => value / Math.fround(local[at]! + air)) };
}

/** The part of `around` that lies inside the scanner's view, a margin apart. */
function wellSeen({ seen, template, constants }: Pair, around: Mask, matrix: Matrix4): Mask {
  const inside = whollySeen(resample(seen, template, matrix), constants);
  const kept = shrunk(inside, template, constants.margin_mm);
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

function whollySeen(shares: Float32Array, constants: Registration): Mask {
  const least = Math.fround(constants.wholly_seen);
  return Uint8Array.from(shares, (share) => (share > least ? 1 : 0));
}

function optimised(
  { scan, seen, template, constants, advance }: Pair,
  around: Mask,
  start: Matrix4,
  levels: Registration["rigid_levels"],
  stretches: boolean,
): Matrix4 {
  const counts = whollySeen(seen.data, constants);
  let matrix = start;
  for (const level of levels) {
    const target = targetOf(template, around, level);
    matrix = climb(blurred(scan, level.blur), counts, target, matrix, stretches, constants);
    advance();
  }
  return matrix;
}

/** The points of a level, and the blurred template there. */
function targetOf(template: Volume, around: Mask, level: Registration["rigid_levels"][number]): Target {
  const indices = coarseIndices(around, template.shape, level.step, level.every);
  const smooth = blurred(template, level.blur).data;
  return {
    pointsMm: Float64Array.from(indices.flatMap((index) => apply(template.affine, index))),
    values: Float64Array.from(indices, (index) => smooth[offsetOf(index, template.shape)]!),
  };
}
