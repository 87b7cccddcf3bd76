/** Python's `adpet.imaging` and `adpet.inference` in plain typed arrays without DOM, for a worker or Node. */

export { interpret, type Interpretation, pooledProbability } from "./aggregation";
export { backProject, coronalSlices, resizeMaps } from "./slices";
export { InputError } from "./errors";
export { apply, boundsOf, diagonal, inverse, product } from "./matrix";
export { MODEL_IMAGES, type Model, openModel } from "./model";
export { type CheckRow, qualityChecks, refusal } from "./quality";
export { readNifti } from "./reading";
export { type RegionRow, regionTable } from "./regions";
export { resample, sample } from "./sampling";
export { requireFdg, type Sidecar, usedSeconds } from "./sidecar";
export { normalize } from "./normalization";
export { eachAxis, largest, type Vector, type Volume } from "./volume";
export { fixed, general, percent, rounded } from "./wording";
export { writeNifti } from "./writing";
