/** Answer for one scan, as `adpet predict` does. */

import {
  InputError,
  backProject,
  coronalSlices,
  eachAxis,
  fixed,
  largest,
  percent,
  pooledProbability,
  qualityChecks,
  readNifti,
  refusal,
  regionTable,
  rounded,
  normalize,
  writeNifti,
  type Model,
  type Volume,
} from "../imaging";
import type { Finding, Scored, Step } from "../messages";
import type { ModelDocument } from "../model.generated";
import type { Network } from "./network";

type Send = (finding: Finding, transfer?: Transferable[]) => void;

/** Voxels of the scan as it came that are sent to be seen; of a larger one, every second along each axis. */
const MOST_SEEN = 2 ** 24;
const PROBABILITY_DECIMALS = 6;

/**
 * Answer for one scan, and report on the way.
 *
 * @param isStale - True if a later scan has taken this one's place.
 * @throws InputError with the sentence that the user sees.
 */
export async function answerFor(
  name: string,
  bytes: Uint8Array,
  { model, network }: { model: Model; network: Network },
  send: Send,
  isStale: () => boolean,
): Promise<void> {
  const step = (which: Step, done: number) => send({ kind: "progress", step: which, done });
  const copied = (volume: Volume): Volume => ({ ...volume, data: volume.data.slice() });
  step("reading", 0);
  const scan = readNifti(bytes, name);
  const original = copied(thinned(scan));
  send({ kind: "original", picture: original }, [original.data.buffer as ArrayBuffer]);
  step("aligning", 0);
  const { volume, matrix, similarity } = normalize(scan, model, (done) => step("aligning", done));
  const checks = qualityChecks(scan, { volume, matrix, similarity }, model);
  const picture = copied(volume);
  send({ kind: "standard", picture, matrix, checks }, [picture.data.buffer as ArrayBuffer]);
  const sentence = refusal(checks);
  if (sentence) throw new InputError(`${name}: ${sentence}`);
  if (isStale()) return;
  const { constants } = model;
  const { y_mm: yMm, size } = constants.slices;
  const pixels = coronalSlices(volume, model);
  send({ kind: "slices", pixels, size, yMm });
  const scored: Scored[] = [];
  for (let index = 0; index < yMm.length; index++) {
    step("scoring", index / yMm.length);
    const slice = await network.score(pixels.slice(index * size * size, (index + 1) * size * size), size);
    scored.push(slice);
    send({ kind: "slice", index, ...slice });
    // Lets a message about a newer scan in.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (isStale()) return;
  }
  const cam = backProject(Float32Array.from(scored.flatMap(({ map }) => [...map])), model);
  const probabilities = scored.map(({ probability }) => probability);
  const probability = pooledProbability(probabilities, model);
  const { shape, affine } = model.template;
  send({
    kind: "answer",
    answer: {
      scan: name,
      model: constants.name,
      lineage: constants.lineage.id,
      leaky: constants.leaky,
      probability_of_ad: rounded(probability, PROBABILITY_DECIMALS),
      threshold: constants.threshold,
      meaning: meaningOf(probability, constants),
      slices: yMm.map((y, index) => ({
        y_mm: y,
        probability_of_ad: rounded(probabilities[index]!, PROBABILITY_DECIMALS),
      })),
      similarity_to_template: rounded(similarity, 4),
      matrix,
      regions: regionTable(volume, cam, model),
      checks,
    },
    cam: { data: cam, shape, affine },
    camMax: largest(cam),
    camFile: writeNifti(cam, shape, affine),
  });
}

/** Say in one sentence how many test subjects with a probability like this one had AD. */
export function meaningOf(probability: number, { calibration, performance }: ModelDocument): string {
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

function thinned(volume: Volume): Volume {
  const { data, shape, affine } = volume;
  if (data.length <= MOST_SEEN) return volume;
  const [ni, nj, nk] = eachAxis((axis) => Math.ceil(shape[axis]! / 2));
  const kept = new Float32Array(ni * nj * nk);
  let at = 0;
  for (let i = 0; i < ni; i++) {
    for (let j = 0; j < nj; j++) {
      for (let k = 0; k < nk; k++) kept[at++] = data[(2 * i * shape[1] + 2 * j) * shape[2] + 2 * k]!;
    }
  }
  const doubled = affine.map((row) => row.map((value, column) => (column < 3 ? 2 * value : value)));
  return thinned({ data: kept, shape: [ni, nj, nk], affine: doubled });
}
