/** Is this scan like the training scans? The checks of `adpet.inference.quality`, which says what each is for. */

import type { Profile, QualityLimit } from "../model.generated";
import { InputError } from "./errors";
import { guesser } from "./guessing";
import type { Mask } from "./masks";
import { apply, determinant, inverse, joined, product, voxelSizes } from "./matrix";
import type { Model } from "./model";
import { regionalMeans } from "./regions";
import { normalize, type Normalized } from "./normalization";
import { prepared, type Progress } from "./registration";
import { eachAxis, eachVoxel, type Matrix4, type Shape, type Vector, type Volume } from "./volume";
import { fixed, general, rounded } from "./wording";

const GREY = 1;
const WHITE = 2;

/** By how much a turned scan must be more similar to the template, for its header to be doubted. */
const CLEARLY_BETTER = 0.1;
const AXES = ["left to right", "back to front", "bottom to top"];
const UNITS = [1, -1].flatMap((sign) => [0, 1, 2].map((axis) => eachAxis((at) => (at === axis ? sign : 0))));
/** The 24 rotations by quarter turns; the first is by none. */
const TURNS = UNITS.flatMap((x) =>
  UNITS.flatMap((y) => UNITS.map((z) => joined([x, y, z], [0, 0, 0]))),
).filter((turn) => determinant(turn) === 1);

export type Verdict = "ok" | "flagged" | "refused";

export interface CheckRow {
  readonly name: string;
  /** Null where it is not finite: JSON has no word for that. */
  readonly value: number | null;
  readonly verdict: Verdict;
  readonly finding: string;
  readonly reason: string;
}

export function qualityChecks(scan: Volume, found: Normalized, model: Model): CheckRow[] {
  const values = measures(scan, found, model);
  return model.constants.quality.map((limit) => {
    const value = values[limit.name];
    if (value === undefined) throw new RangeError(`no such quality measure: ${limit.name}`);
    return { name: limit.name, value: shownAs(value, limit), ...verdictOn(value, limit) };
  });
}

/** The sentence that refuses a scan, of which `turn` says how it fits; null where no check does. */
export function refusal(checks: readonly CheckRow[], turn: string): string | null {
  const findings = checks.filter((check) => check.verdict === "refused").map((check) => check.finding);
  if (!findings.length) return null;
  if (turn) findings.push(turn);
  return `refused as unlike FDG-PET of a whole brain; look at the scan: ${findings.join("; ")}`;
}

/** Say which quarter turns make a scan fit that its similarity refuses, as `adpet.inference.predictor`, or "". */
export function turnThatFits(scan: Volume, similarity: number, model: Model, progress: Progress): string {
  const { quality, registration, standard } = model.constants;
  const limit = quality.find(({ name }) => name === "similarity")?.refuse_below ?? -Infinity;
  if (similarity >= limit) return "";
  progress(0);
  const constants = { ...model.constants, standard: { ...standard, align: "affine" as const } };
  const turned = (volume: Volume, turn: Matrix4) => ({ ...volume, affine: product(turn, volume.affine) });
  try {
    const coarse = prepared(scan, registration.guess_spacing_mm, registration).scan;
    const guess = guesser(model.template, model.brain, registration);
    const alike = TURNS.map((turn) => guess(turned(coarse, turn)).alike);
    const best = alike.indexOf(Math.max(...alike));
    const turn = TURNS[best]!;
    const found = normalize(turned(scan, turn), { ...model, constants }, progress);
    if (!best || found.similarity < Math.max(similarity + CLEARLY_BETTER, limit)) return "";
    const fit = `it fits when ${turnInWords(turn)}, similarity ${fixed(found.similarity, 2)}`;
    return `${fit}: the header's orientation seems wrong`;
  } catch (error) {
    if (error instanceof InputError) return "";
    throw error;
  }
}

function turnInWords(turn: Matrix4): string {
  const axis = turn.findIndex((row, at) => row[at] === 1);
  if (axis < 3) {
    const sine = turn[(axis + 2) % 3]![(axis + 1) % 3]!;
    return `turned by ${90 * sine || 180} degrees about the ${"xyz"[axis]} axis (${AXES[axis]})`;
  }
  const [right, front, top] = eachAxis((from) => {
    const to = turn.findIndex((row) => row[from] !== 0);
    return AXES[to]!.split(" to ")[+(turn[to]![from]! > 0)];
  });
  return `its right, front and top are taken as ${right}, ${front} and ${top}`;
}

function measures(scan: Volume, found: Normalized, model: Model): Record<string, number> {
  const { data, shape } = found.volume;
  const { brain, tissue } = model;
  const inBrain = data.filter((_, at) => brain[at]);
  const sum = (part: (value: number, at: number) => number) =>
    data.reduce((total, value, at) => total + part(value, at), 0);
  const size = sum(Math.abs);
  const positive = sum((value) => Math.max(value, 0));
  const outside = sum((value, at) => (brain[at] ? 0 : Math.max(value, 0)));
  const steps = neighbourSteps(data, shape, brain);
  const negative = (size - sum((value) => value)) / 2;
  return {
    similarity: found.similarity,
    profile_distance: profileDistance(regionalMeans(data, model), model.constants.profile),
    grey_white_contrast: over(meanWhere(data, tissue, GREY), meanWhere(data, tissue, WHITE)),
    outside_share: over(outside, positive),
    asymmetry: over(asymmetry(data, shape, brain), meanOf(inBrain)),
    roughness: over(rms(steps.map((ofVoxel) => total(ofVoxel) / 3)), meanWhere(data, brain, 1)),
    stripes: over(rms(steps.map(([, , axial]) => axial)), rms(steps.flatMap(([x, y]) => [x, y]))),
    negative_share: over(negative, size),
    ...viewMeasures(scan, found, model),
  };
}

function viewMeasures(scan: Volume, { matrix }: Normalized, model: Model): Record<string, number> {
  const toIndex = product(product(inverse(scan.affine), matrix), model.template.affine);
  let [inside, all] = [0, 0];
  eachVoxel(model.template.shape, (i, j, k, at) => {
    if (!model.brain[at]) return;
    all++;
    const index = apply(toIndex, [i, j, k]);
    if (index.every((value, axis) => value >= -0.5 && value <= scan.shape[axis]! - 0.5)) inside++;
  });
  const sides = voxelSizes(scan.affine).map((zoom, axis) => zoom * scan.shape[axis]!);
  return { brain_in_view: inside / all, field_of_view_mm: Math.min(...sides) };
}

/** Mahalanobis distance of a regional profile, over the root of its length: about 1 is usual. */
function profileDistance(uptake: readonly number[], { mean, precision }: Profile): number {
  // A region that the scan does not show is taken for an average one.
  const away = uptake.map((value, index) => (Number.isNaN(value) ? 0 : value - mean[index]!));
  const terms = away.flatMap((a, p) => away.map((b, q) => a * precision[p]![q]! * b));
  const squared = terms.reduce((sum, term) => sum + term, 0);
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

/** Differences of a brain's voxels from both neighbours along each axis, where all of them are shown. */
function neighbourSteps(data: Float32Array, shape: Shape, brain: Mask): Vector[] {
  const strides: Vector = [shape[1] * shape[2], shape[2], 1];
  const found: Vector[] = [];
  eachVoxel(shape, (i, j, k, at) => {
    const isInner = [i, j, k].every((index, axis) => index > 0 && index < shape[axis]! - 1);
    const seen = (stride: number) => data[at - stride] !== 0 && data[at + stride] !== 0;
    if (!brain[at] || !isInner || data[at] === 0 || !strides.every(seen)) return;
    const step = (stride: number) => data[at]! - (data[at - stride]! + data[at + stride]!) / 2;
    found.push([step(strides[0]), step(strides[1]), step(strides[2])]);
  });
  return found;
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function rms(values: readonly number[]): number {
  return Math.sqrt(total(values.map((value) => value ** 2)) / values.length);
}

/** Mean over a kind's voxels; what is exactly 0, the scan does not show. */
function meanWhere(data: Float32Array, kinds: Uint8Array, kind: number): number {
  return meanOf(data.filter((value, at) => kinds[at] === kind && value !== 0));
}

function meanOf(values: Float32Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Divide; what has nothing to be compared with is infinitely far away. */
function over(part: number, whole: number): number {
  return whole > 0 ? part / whole : Infinity;
}

/** Four decimals, or more if the rounded value would pass; null if it is not finite. */
function shownAs(value: number, limit: QualityLimit): number | null {
  if (!Number.isFinite(value)) return null;
  const { verdict } = verdictOn(value, limit);
  for (let digits = 4; digits < 18; digits++) {
    const close = rounded(value, digits);
    if (verdictOn(close, limit).verdict === verdict) return close;
  }
  return value;
}

type Judged = Pick<CheckRow, "verdict" | "finding" | "reason">;

function verdictOn(value: number, limit: QualityLimit): Judged {
  const levels = [
    { verdict: "refused", below: limit.refuse_below, above: limit.refuse_above },
    { verdict: "flagged", below: limit.flag_below, above: limit.flag_above },
  ] as const;
  for (const { verdict, below, above } of levels) {
    // So that NaN is beyond any limit.
    const low = below !== null && !(value >= below);
    const high = above !== null && !(value <= above);
    if (!low && !high) continue;
    const [written, required] = toldApart(value, low ? below : above!);
    const unit = limit.name.endsWith("_mm") ? " mm" : "";
    const words = limit.name.replace(/_mm$/, "").replaceAll("_", " ");
    const what = `required ${required}${unit} or ${low ? "more" : "less"}`;
    const seen = `training scans have ${short(limit.low)} to ${short(limit.high)}`;
    const cause = low ? limit.low_means : limit.high_means;
    return {
      verdict,
      finding: `${words} ${written}${unit}, ${what}`,
      reason: `${limit.text}: ${written}, ${what} (${seen}); ${cause}`,
    };
  }
  return { verdict: "ok", finding: "", reason: "" };
}

/** Both with three digits, or more until they differ. */
function toldApart(value: number, limit: number): [string, string] {
  let digits = 3;
  while (digits < 17 && general(value, digits) === general(limit, digits)) digits++;
  return [general(value, digits), general(limit, digits)];
}

function short(value: number): string {
  return general(value, 3);
}
