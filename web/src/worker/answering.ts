/** Answer for one scan, as `adpet.answering.answer` does. */

import {
  InputError,
  backProject,
  coronalSlices,
  fixed,
  percent,
  pooledProbability,
  qualityChecks,
  readNifti,
  refusal,
  regionTable,
  rounded,
  normalize,
  writeNifti,
  type CheckRow,
  type Model,
  type Volume,
} from "../imaging";
import type { Answer } from "../answer";
import type { Picture, Report, Step } from "../messages";
import type { Network } from "./network";

type Unnumbered<Kind> = Kind extends { scan: number } ? Omit<Kind, "scan"> : never;
type Send = (report: Unnumbered<Report>, transfer?: Transferable[]) => void;

/** Voxels of the scan as it came that are sent to be seen; of a larger one, every second along each axis. */
const MOST_SEEN = 2 ** 24;
const PROBABILITY_DECIMALS = 6;

/** Whether a scan that came later has taken this one's place. */
export type IsStale = () => boolean;

/**
 * Answer for one scan, and report on the way.
 *
 * @throws InputError with the sentence that the user sees.
 */
export async function answerFor(
  name: string,
  bytes: Uint8Array,
  { model, network }: { model: Model; network: Network },
  send: Send,
  isStale: IsStale,
): Promise<void> {
  const step = (which: Step, done: number) => send({ kind: "progress", step: which, done });
  step("reading", 0);
  const scan = readNifti(bytes, name);
  sendPicture(send, "original", thinned(scan));
  step("aligning", 0);
  const found = normalize(scan, model, (done) => step("aligning", done));
  const checks = qualityChecks(scan, found, model);
  sendStandard(send, found.volume, found.matrix, checks);
  refuse(name, checks);
  if (isStale()) {
    return;
  }
  const { y_mm: yMm, size } = model.constants.slices;
  const pixels = coronalSlices(found.volume, model) as Uint8Array<ArrayBuffer>;
  send({ kind: "slices", pixels, size, yMm: [...yMm] });
  const scored = await scoreAll(pixels, size, yMm.length, network, send, isStale);
  if (!scored) {
    return;
  }
  const cam = backProject(scored.maps, model) as Float32Array<ArrayBuffer>;
  const probability = pooledProbability(scored.probabilities, model);
  const { constants } = model;
  const answer: Answer = {
    scan: name,
    model: constants.name,
    lineage: String(constants.lineage["id"]),
    leaky: constants.leaky,
    probability_of_ad: rounded(probability, PROBABILITY_DECIMALS),
    threshold: constants.threshold,
    meaning: meaningOf(probability, constants),
    slices: yMm.map((y, index) => ({
      y_mm: y,
      probability_of_ad: rounded(scored.probabilities[index]!, PROBABILITY_DECIMALS),
    })),
    similarity_to_template: rounded(found.similarity, 4),
    matrix: found.matrix,
    regions: regionTable(found.volume, cam, model),
    checks,
  };
  const { shape, affine } = model.template;
  send({
    kind: "answer",
    answer,
    cam: { data: cam, shape, affine },
    camMax: largest(cam),
    camFile: writeNifti(cam, shape, affine),
  });
}

async function scoreAll(
  pixels: Uint8Array,
  size: number,
  count: number,
  network: Network,
  send: Send,
  isStale: IsStale,
): Promise<{ maps: Float32Array; probabilities: number[] } | undefined> {
  const maps: Float32Array[] = [];
  const probabilities: number[] = [];
  for (let index = 0; index < count; index++) {
    send({ kind: "progress", step: "scoring", done: index / count });
    const slice = pixels.slice(index * size * size, (index + 1) * size * size);
    const { probability, map, mapShape } = await network.score(slice, size);
    maps.push(map);
    probabilities.push(probability);
    send({ kind: "slice", index, probability, map, mapShape });
    // Lets a message about a newer scan in.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (isStale()) {
      return undefined;
    }
  }
  const joined = new Float32Array(maps.reduce((sum, map) => sum + map.length, 0));
  maps.forEach((map, index) => joined.set(map, index * map.length));
  return { maps: joined, probabilities };
}

function refuse(name: string, checks: readonly CheckRow[]): void {
  const sentence = refusal(checks);
  if (sentence) {
    throw new InputError(`${name}: ${sentence}`);
  }
}

/** Return in one sentence what became of the test subjects who were given a probability like this one. */
export function meaningOf(probability: number, { calibration, performance }: Model["constants"]): string {
  const { bins, prevalence } = calibration;
  const here = bins.find((bin) => probability < bin.high) ?? bins.at(-1)!;
  const withAd = rounded(here.ad_share * here.subjects, 0);
  const interval = `95 % interval ${percent(here.ad_share_low)} to ${percent(here.ad_share_high)}`;
  return (
    `Of the ${here.subjects} test subjects who were given ${fixed(here.low, 2)} to ${fixed(here.high, 2)}, ` +
    `${withAd} had AD, ${percent(here.ad_share)} (${interval}); ` +
    `of all ${performance.test_subjects} test subjects ${percent(prevalence)} had.`
  );
}

function sendPicture(send: Send, kind: "original", volume: Volume): void {
  const picture = copied(volume);
  send({ kind, picture }, [picture.data.buffer]);
}

function sendStandard(send: Send, volume: Volume, matrix: number[][], checks: CheckRow[]): void {
  const picture = copied(volume);
  send({ kind: "standard", picture, matrix, checks }, [picture.data.buffer]);
}

function copied({ data, shape, affine }: Volume): Picture {
  return { data: new Float32Array(data), shape, affine };
}

function thinned(volume: Volume): Volume {
  const { data, shape, affine } = volume;
  if (data.length <= MOST_SEEN) {
    return volume;
  }
  const [ni, nj, nk] = shape.map((n) => Math.ceil(n / 2)) as [number, number, number];
  const kept = new Float32Array(ni * nj * nk);
  let at = 0;
  for (let i = 0; i < ni; i++) {
    for (let j = 0; j < nj; j++) {
      for (let k = 0; k < nk; k++) {
        kept[at++] = data[(2 * i * shape[1] + 2 * j) * shape[2] + 2 * k]!;
      }
    }
  }
  const doubled = affine.map((row) => row.map((value, column) => (column < 3 ? 2 * value : value)));
  return thinned({ data: kept, shape: [ni, nj, nk], affine: doubled });
}

function largest(data: Float32Array): number {
  return data.reduce((max, value) => Math.max(max, Math.abs(value)), Number.MIN_VALUE);
}
