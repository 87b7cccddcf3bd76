/** Python's `adpet.imaging` and `adpet.inference` in plain typed arrays without DOM, for a worker or Node. */

export { contributions, interpret, type Interpretation, pooledProbability } from "./aggregation";
export { backProject, channelsOf, networkSlices, ownPlanes, resizeMaps } from "./slices";
export { InputError } from "./errors";
export { apply, boundsOf, diagonal, inverse, product } from "./matrix";
export { MODEL_IMAGES, type Model, openModel } from "./model";
export { type CheckRow, qualityChecks, refusal, turnThatFits } from "./quality";
export { readNifti } from "./reading";
export { comparedAt, zMap } from "./normative";
export { type RegionRow, regionTable, type Unusual, unusual } from "./regions";
export { resample, sample } from "./sampling";
export {
  deniesCorrection,
  FDG,
  readSidecar,
  requireFdg,
  type Sidecar,
  tracerName,
  usedSeconds,
} from "./sidecar";
export { normalize } from "./normalization";
export { eachAxis, type Vector, type Volume } from "./volume";
export { fixed, general, percent, rounded } from "./wording";
export { writeNifti } from "./writing";
