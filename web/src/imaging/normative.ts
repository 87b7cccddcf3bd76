/** Where a brain is unusual: SUVR against that of healthy scans of like age, as `adpet.imaging.normative`. */

import { gaussianFilter } from "./filters";
import type { Mask } from "./masks";
import type { Model } from "./model";
import { FWHM_PER_SIGMA } from "./registration";
import { voxelSizes } from "./matrix";
import type { Volume } from "./volume";

const TRUNCATE = 3;

/** Return the age that a scan is compared at; null if the model leaves age out. */
export function comparedAt({ constants }: Model, age: number | null): number | null {
  const { ages } = constants.norms;
  if (!ages || age === null) return ages && ages[1];
  return Math.min(Math.max(age, ages[0]), ages[2]);
}

/** Return how many years older than the healthy people's mean a scan is compared at. */
export function yearsFromMean(model: Model, age: number | null): number {
  const { ages } = model.constants.norms;
  return ages ? comparedAt(model, age)! - ages[1] : 0;
}

/** Return SUVR in standard deviations of healthy scans; 0 outside the brain, and where the scan shows nothing. */
export function zMap(suvr: Volume, model: Model, age: number | null): Float32Array {
  const { mean, slope, sd } = model.norms;
  const years = yearsFromMean(model, age);
  const shown = model.brain.map((inside, at) => +(inside && suvr.data[at] !== 0));
  return smoothed(suvr, shown, model).map((value, at) =>
    shown[at] ? (value - mean[at]! - years * (slope[at] ?? 0)) / sd[at]! : 0,
  );
}

/** Blur within a mask alone. */
function smoothed({ data, shape, affine }: Volume, inside: Mask, { constants }: Model): Float32Array {
  const held = data.map((value, at) => (inside[at] ? value : 0));
  const { smoothing_mm: width } = constants.norms;
  if (!width) return held;
  const sigma = voxelSizes(affine).map((zoom) => width / zoom / FWHM_PER_SIGMA);
  const blur = (image: Float32Array) =>
    gaussianFilter(image, shape, sigma, { edge: "constant", truncate: TRUNCATE });
  const weight = blur(Float32Array.from(inside));
  return blur(held).map((value, at) => value / Math.max(weight[at]!, 1e-6));
}
