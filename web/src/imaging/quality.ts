/**
 * Is this scan like those that the model was trained on? A few numbers, held against limits from the training scans.
 *
 * The same as `adpet.inference.quality`, which says what each is for.
 */

import type { Profile, QualityLimit } from "../model.generated";
import type { Mask } from "./masks";
import { apply, inverse, product, voxelSizes } from "./matrix";
import type { Model } from "./model";
import { regionalMeans } from "./regions";
import type { Standardized } from "./normalization";
import type { Shape, Vector, Volume } from "./volume";
import { general, rounded } from "./wording";

const GREY = 1;
const WHITE = 2;

export type Verdict = "ok" | "flagged" | "refused";

export interface CheckRow {
  readonly name: string;
  /** Null where it is not finite: JSON has no word for that. */
  readonly value: number | null;
  readonly verdict: Verdict;
  /** Empty where all is well. */
  readonly reason: string;
}

/** Judge a scan, in the order of the model's checks. */
export function qualityChecks(scan: Volume, found: Standardized, model: Model): CheckRow[] {
  return judged(measures(scan, found, model), model.constants.quality);
}

/** Hold measures against limits, in the order of these. */
export function judged(
  values: Readonly<Record<string, number>>,
  limits: readonly QualityLimit[],
): CheckRow[] {
  return limits.map((limit) => {
    const value = values[limit.name];
    if (value === undefined) throw new RangeError(`no such quality measure: ${limit.name}`);
    const shown = Number.isFinite(value) ? rounded(value, 4) : null;
    return { name: limit.name, value: shown, ...verdictOn(value, limit) };
  });
}

/** The sentence that refuses a scan; null where no check does. */
export function refusal(checks: readonly CheckRow[]): string | null {
  const reasons = checks.filter((check) => check.verdict === "refused").map((check) => check.reason);
  if (!reasons.length) return null;
  return (
    "required FDG-PET of a whole human brain, like the training scans; received a scan with " +
    `${reasons.join("; ")}; look at it`
  );
}

/** Measure what can be told from a standard volume, and how the scan's field of view holds the brain. */
export function measures(scan: Volume, found: Standardized, model: Model): Record<string, number> {
  const { data, shape } = found.volume;
  const { brain, tissue } = model;
  const mean = meanWhere(data, (at) => brain[at] === 1);
  const white = meanWhere(data, (at) => tissue[at] === WHITE);
  const grey = meanWhere(data, (at) => tissue[at] === GREY);
  let [positive, outside, size] = [0, 0, 0];
  data.forEach((value, at) => {
    size += Math.abs(value);
    if (!(value > 0)) return;
    positive += value;
    if (!brain[at]) outside += value;
  });
  const negative = (size - data.reduce((sum, value) => sum + value, 0)) / 2;
  return {
    similarity: found.similarity,
    profile_distance: profileDistance(regionalMeans(data, model), model.constants.profile),
    grey_white_contrast: over(grey, white),
    outside_share: over(outside, positive),
    asymmetry: over(asymmetry(data, shape, brain), mean),
    roughness: over(roughness(data, shape, brain), mean),
    negative_share: over(negative, size),
    ...viewMeasures(scan, found, model),
  };
}

function viewMeasures(scan: Volume, { matrix }: Standardized, model: Model): Record<string, number> {
  const toIndex = product(product(inverse(scan.affine), matrix), model.template.affine);
  const [ni, nj, nk] = model.template.shape;
  let [inside, all, at] = [0, 0, 0];
  for (let i = 0; i < ni; i++) {
    for (let j = 0; j < nj; j++) {
      for (let k = 0; k < nk; k++, at++) {
        if (!model.brain[at]) continue;
        all++;
        const index = apply(toIndex, [i, j, k]);
        if (index.every((value, axis) => value >= -0.5 && value <= scan.shape[axis]! - 0.5)) inside++;
      }
    }
  }
  const sides = voxelSizes(scan.affine).map((zoom, axis) => zoom * scan.shape[axis]!) as Vector;
  return { brain_in_view: inside / all, field_of_view_mm: Math.min(...sides) };
}

/** Mahalanobis distance of a regional profile, over the root of its length: about 1 is usual. */
function profileDistance(uptake: readonly number[], { mean, precision }: Profile): number {
  const away = uptake.map((value, index) => value - mean[index]!);
  let squared = 0;
  away.forEach((a, p) => {
    away.forEach((b, q) => {
      squared += a * precision[p]![q]! * b;
    });
  });
  return Math.sqrt(Math.max(squared, 0) / away.length);
}

/** Mean difference of mirrored voxels that both lie in the brain; the grid's middle plane is x = 0. */
function asymmetry(data: Float32Array, [ni, nj, nk]: Shape, brain: Mask): number {
  const plane = nj * nk;
  let [sum, count] = [0, 0];
  for (let i = 0; i < ni; i++) {
    for (let rest = 0; rest < plane; rest++) {
      const [here, there] = [i * plane + rest, (ni - 1 - i) * plane + rest];
      if (!(brain[here] && brain[there])) continue;
      sum += Math.abs(data[here]! - data[there]!);
      count++;
    }
  }
  return sum / count;
}

/** Root mean square difference of a brain's voxels from the mean of their six neighbours. */
function roughness(data: Float32Array, [ni, nj, nk]: Shape, brain: Mask): number {
  const plane = nj * nk;
  const neighbours = [-plane, plane, -nk, nk, -1, 1];
  let [sum, count] = [0, 0];
  for (let i = 1; i < ni - 1; i++) {
    for (let j = 1; j < nj - 1; j++) {
      for (let k = 1; k < nk - 1; k++) {
        const at = i * plane + j * nk + k;
        if (!brain[at]) continue;
        const around = neighbours.reduce((total, step) => total + data[at + step]!, 0);
        sum += (data[at]! - around / 6) ** 2;
        count++;
      }
    }
  }
  return Math.sqrt(sum / count);
}

function meanWhere(data: Float32Array, wanted: (at: number) => boolean): number {
  let [sum, count] = [0, 0];
  data.forEach((value, at) => {
    if (!wanted(at)) return;
    sum += value;
    count++;
  });
  return sum / count;
}

/** Divide; what has nothing to be compared with is infinitely far away. */
function over(part: number, whole: number): number {
  return whole > 0 ? part / whole : Infinity;
}

function verdictOn(value: number, limit: QualityLimit): { verdict: Verdict; reason: string } {
  const levels = [
    { verdict: "refused", below: limit.refuse_below, above: limit.refuse_above },
    { verdict: "flagged", below: limit.flag_below, above: limit.flag_above },
  ] as const;
  for (const { verdict, below, above } of levels) {
    // So that NaN is beyond any limit.
    const low = below !== null && !(value >= below);
    const high = above !== null && !(value <= above);
    if (!low && !high) continue;
    const what = `${short(value)}, required ${low ? `${short(below)} or more` : `${short(above!)} or less`}`;
    const seen = `training scans have ${short(limit.low)} to ${short(limit.high)}`;
    const cause = low ? limit.low_means : limit.high_means;
    return { verdict, reason: `${limit.text}: ${what} (${seen}); ${cause}` };
  }
  return { verdict: "ok", reason: "" };
}

function short(value: number): string {
  return general(value, 3);
}
