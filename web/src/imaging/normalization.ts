/** Bring one scan to the standard: on the MNI grid, as a ratio to a reference. */

import { type Alignment, FWHM_PER_SIGMA, type Progress, register, similarity } from "./registration";
import { InputError } from "./errors";
import { gaussianFilter } from "./filters";
import { ratioToReference } from "./intensity";
import type { Mask } from "./masks";
import { apply, diagonal, inverse, product, voxelSizes } from "./matrix";
import type { Model } from "./model";
import { resample } from "./sampling";
import { eachVoxel, type Matrix4, type Volume } from "./volume";

export interface Normalized extends Alignment {
  /** SUVR on the standard grid. */
  readonly volume: Volume;
}

/** Where scipy ends its Gaussians, in sigmas. */
const TRUNCATE = 4;

/** Share of the reference region that a scan must show. */
const MIN_REFERENCE_SEEN = 0.3;

export function normalize(scan: Volume, model: Model, progress: Progress): Normalized {
  const { standard } = model.constants;
  if (standard.target_fwhm_mm) {
    throw new InputError(
      "this model smooths each scan by its scanner's resolution, which this page does not know: use adpet predict",
    );
  }
  const { data: _, ...grid } = model.template;
  const matrix =
    standard.align === "affine"
      ? register(scan, model, (done) => progress(0.9 * done)).matrix
      : diagonal([1, 1, 1]);
  const data = resample(scan, grid, matrix);
  const sigma = voxelSizes(grid.affine).map((zoom) => standard.smoothing_mm / FWHM_PER_SIGMA / zoom);
  const smooth = gaussianFilter(data, grid.shape, sigma, { edge: "constant", truncate: TRUNCATE });
  const seen = seenMask(scan, model, matrix);
  smooth.forEach((_, at) => {
    if (!seen[at]) smooth[at] = 0;
  });
  const shown = model.brain.map((one, at) => one & seen[at]!);
  const reference = model.reference.map((one, at) => one & seen[at]!);
  const size = (mask: Mask): number => mask.reduce((sum, one) => sum + one, 0);
  const share = size(reference) / size(model.reference);
  if (share < MIN_REFERENCE_SEEN) {
    throw new InputError(
      `${Math.round(100 * share)}% of the reference region lies well inside the scanner's view, ` +
        `${100 * MIN_REFERENCE_SEEN}% must: choose another normalize.reference`,
    );
  }
  const ratio = ratioToReference(smooth, reference);
  if (!ratio) {
    throw new InputError(
      "required uptake in the reference region; received none there after registration; look at the " +
        "scan, or choose another normalize.reference",
    );
  }
  progress(1);
  return {
    volume: { ...grid, data: ratio },
    matrix,
    similarity: similarity(data, model.expected, shown, model),
  };
}

/** The voxels that smoothing leaves as the scan shows them. */
function seenMask(scan: Volume, model: Model, matrix: Matrix4): Mask {
  const toIndex = product(product(inverse(scan.affine), matrix), model.template.affine);
  const margin = voxelSizes(scan.affine).map((zoom) => model.constants.standard.smoothing_mm / zoom);
  const seen = model.reference.slice();
  eachVoxel(model.template.shape, (i, j, k, at) => {
    const within = (value: number, axis: number): boolean =>
      value >= margin[axis]! && value <= scan.shape[axis]! - 1 - margin[axis]!;
    seen[at] = +apply(toIndex, [i, j, k]).every(within);
  });
  return seen;
}
