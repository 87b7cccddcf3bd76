/** Bring one scan to the standard: on the MNI grid, as a ratio to a reference. */

import { type Alignment, FWHM_PER_SIGMA, type Progress, register, similarity } from "./registration";
import { InputError } from "./errors";
import { gaussianFilter } from "./filters";
import { ratioToReference } from "./intensity";
import { diagonal, voxelSizes } from "./matrix";
import type { Model } from "./model";
import { resample } from "./sampling";
import type { Volume } from "./volume";

export interface Normalized extends Alignment {
  /** SUVR on the standard grid. */
  readonly volume: Volume;
}

/** Where scipy ends its Gaussians, in sigmas. */
const TRUNCATE = 4;

export function normalize(scan: Volume, model: Model, progress: Progress): Normalized {
  const { standard } = model.constants;
  const { data: _, ...grid } = model.template;
  const matrix =
    standard.align === "affine"
      ? register(scan, model, (done) => progress(0.9 * done)).matrix
      : diagonal([1, 1, 1]);
  const data = resample(scan, grid, matrix);
  const sigma = voxelSizes(grid.affine).map((zoom) => standard.smoothing_mm / FWHM_PER_SIGMA / zoom);
  const smooth = gaussianFilter(data, grid.shape, sigma, { edge: "constant", truncate: TRUNCATE });
  const ratio = ratioToReference(smooth, model.reference);
  if (!ratio) {
    throw new InputError(
      "required uptake in the reference region; received none there after registration; look at the " +
        "scan, or choose another normalize.reference",
    );
  }
  progress(1);
  return { volume: { ...grid, data: ratio }, matrix, similarity: similarity(data, model) };
}
