/** Bring one scan to the standard: on the MNI grid, as a ratio to a reference. */

import { FWHM_PER_SIGMA, type Progress, register, similarity } from "./registration";
import { InputError } from "./errors";
import { gaussianFilter } from "./filters";
import { ratioToReference } from "./intensity";
import { diagonal, voxelSizes } from "./matrix";
import type { Model } from "./model";
import { resample } from "./sampling";
import type { Matrix4, Volume } from "./volume";

export interface Standardized {
  /** Ratio to the reference region on the standard grid. */
  readonly volume: Volume;
  /** Standard world mm -> the scan's world mm. */
  readonly matrix: Matrix4;
  /** Correlation of scan and template inside the brain, from -1 to 1. */
  readonly similarity: number;
}

/** Where scipy ends its Gaussians, in sigmas. */
const TRUNCATE = 4;

/**
 * Register, resample, smooth and normalise one scan.
 *
 * @throws InputError where registration finds no overlap, or the reference region holds no uptake. The text names
 * no file: the caller knows it.
 */
export function normalize(scan: Volume, model: Model, progress: Progress = () => undefined): Standardized {
  const { template, constants } = model;
  const { standard, registration } = constants;
  const matrix =
    standard.align === "affine"
      ? register(scan, template, model.brain, registration, (done) => progress(0.9 * done)).matrix
      : diagonal(1, 1, 1);
  const data = resample(scan, template, matrix);
  const alike = similarity(data, template.data, template.shape, model.brain, registration.similarity_sigma);
  const sigma = voxelSizes(template.affine).map((zoom) => standard.smoothing_mm / FWHM_PER_SIGMA / zoom);
  const smooth = gaussianFilter(data, template.shape, sigma, { edge: "constant", truncate: TRUNCATE });
  const ratio = ratioToReference(smooth, model.reference);
  if (!ratio) {
    throw new InputError(
      "required uptake in the reference region; received none there after registration; look at the " +
        "scan, or choose another normalize.reference",
    );
  }
  progress(1);
  return {
    volume: { data: ratio, shape: template.shape, affine: template.affine },
    matrix,
    similarity: alike,
  };
}
