/**
 * From the bytes of a scan to what the network is given, and from its maps back: what Python's `adpet` does, once
 * more, for the browser. Plain typed arrays, no DOM: it runs in a worker and in Node.
 */

export { pooledProbability } from "./aggregation";
export { backProject, coronalSlices } from "./coronal";
export { InputError } from "./errors";
export { MODEL_IMAGES, type Model, type ModelConstants, openModel } from "./model";
export { type CheckRow, qualityChecks, refusal } from "./quality";
export { readNifti } from "./reading";
export { type RegionRow, regionTable } from "./regions";
export { normalize } from "./standard";
export type { Volume } from "./volume";
export { fixed, percent, rounded } from "./wording";
export { writeNifti } from "./writing";
