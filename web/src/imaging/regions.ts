/** SUVR by region, compared with CN subjects, and the map's share in each. */

import type { Model } from "./model";
import { yearsFromMean } from "./normative";
import type { Volume } from "./volume";
import { rounded } from "./wording";

export interface RegionRow {
  readonly name: string;
  readonly uptake: number;
  /** (uptake - mean) / SD of cognitively normal people. */
  readonly z: number;
  /** Share of the positive map in the brain that lies here. */
  readonly cam_share: number;
  readonly ad_pattern: boolean;
}

/** Return mean SUVR by region; what is exactly 0 is not shown and does not count, NaN if nothing is. */
export function regionalMeans(data: Float32Array, { labels, constants }: Model): number[] {
  const { sums, counts } = summed(labels, data);
  return constants.regions.map(({ label }) => (sums[label] ?? 0) / (counts[label] ?? 0));
}

/** Describe each of the model's regions by its SUVR and its share of the map `cam`, both on the standard grid. */
export function regionTable(
  volume: Volume,
  cam: Float32Array,
  model: Model,
  age: number | null = null,
): RegionRow[] {
  const years = yearsFromMean(model, age);
  const uptakes = regionalMeans(volume.data, model);
  const towards = cam.map((value, at) => (model.brain[at] ? Math.max(value, 0) : 0));
  const { sums } = summed(model.labels, towards);
  const total = towards.reduce((sum, value) => sum + value, 0);
  const rows = model.constants.regions.map(
    ({ name, label, ad_pattern, cn_mean, cn_slope, cn_sd }, index) => ({
      name,
      uptake: rounded(uptakes[index]!, 4),
      z: rounded((uptakes[index]! - cn_mean - years * cn_slope) / cn_sd, 3),
      cam_share: total > 0 ? rounded((sums[label] ?? 0) / total, 4) : 0,
      ad_pattern,
    }),
  );
  return rows.filter((_, index) => Number.isFinite(uptakes[index]!));
}

export interface Unusual {
  readonly name: string;
  readonly z: number;
}

/** Return the regions with at least so large a |z|, the largest first. */
export function unusual(regions: readonly RegionRow[], least: number): Unusual[] {
  const found = regions.filter(({ z }) => Math.abs(z) >= least).map(({ name, z }) => ({ name, z }));
  return found.sort((a, b) => Math.abs(b.z) - Math.abs(a.z));
}

function summed(labels: Int16Array, data: Float32Array): { sums: Float64Array; counts: Float64Array } {
  const size = labels.reduce((most, label) => Math.max(most, label), 0) + 1;
  const sums = new Float64Array(size);
  const counts = new Float64Array(size);
  labels.forEach((label, at) => {
    sums[label]! += data[at]!;
    counts[label]! += +(data[at] !== 0);
  });
  return { sums, counts };
}
