/** Answer for one scan, as `adpet predict` does. */

import * as imaging from "../imaging";
import { eachAxis, fixed, percent, rounded, type Model, type Volume } from "../imaging";
import type { Comparison, Finding, MapResult, ScanFile, Scored, Step } from "../messages";
import type { ModelDocument } from "../model.generated";
import type { Network } from "./network";

type Send = (finding: Finding, transfer?: Transferable[]) => void;

/** Voxels of the scan as it came that are sent to be seen; of a larger one, every second along each axis. */
const MOST_SEEN = 2 ** 24;
const PROBABILITY_DECIMALS = 6;

/** Compare the scan that was answered for at another age. */
export type Compare = (age: number | null) => { comparison: Comparison; z: MapResult };

/** Answer for one scan, and report on the way, until a later scan makes this one stale. */
export async function answerFor(
  { name, bytes, sidecar, age }: Omit<ScanFile, "files"> & { bytes: Uint8Array; age: number | null },
  { model, network }: { model: Model; network: Network },
  send: Send,
  isStale: () => boolean,
): Promise<Compare | undefined> {
  const step = (which: Step, done: number) => send({ kind: "progress", step: which, done });
  // Lets a message about a newer scan in.
  const newerScan = () => new Promise((resolve) => setTimeout(resolve, 0));
  const copied = (volume: Volume): Volume => ({ ...volume, data: volume.data.slice() });
  step("reading", 0);
  imaging.requireFdg(name, sidecar);
  const minutes = model.constants.standard.frames_minutes;
  const about = sidecar ?? { name: "", content: {} };
  const scan = imaging.readNifti(bytes, name, (frames) => imaging.usedSeconds(name, about, frames, minutes));
  const original = copied(thinned(scan));
  send({ kind: "original", picture: original }, [original.data.buffer as ArrayBuffer]);
  step("aligning", 0);
  const { volume, matrix, similarity } = imaging.normalize(scan, model, (done) => step("aligning", done));
  const checks = imaging.qualityChecks(scan, { volume, matrix, similarity }, model);
  const picture = copied(volume);
  send({ kind: "standard", picture, matrix, checks }, [picture.data.buffer as ArrayBuffer]);
  await newerScan();
  if (isStale()) return undefined;
  const turn = imaging.turnThatFits(scan, similarity, model, (done) => step("turning", done));
  const sentence = imaging.refusal(checks, turn);
  if (sentence) throw new imaging.InputError(`${name}: ${sentence}`);
  const { constants } = model;
  const { y_mm: yMm, size } = constants.slices;
  const slices = imaging.networkSlices(volume, model);
  send({ kind: "slices", pixels: imaging.ownPlanes(slices, constants.slices), size, yMm });
  const channels = imaging.channelsOf(constants.slices);
  const length = size * size * channels;
  const scored: Scored[] = [];
  for (let index = 0; index < yMm.length; index++) {
    step("scoring", index / yMm.length);
    const slice = await network.score(slices.slice(index * length, (index + 1) * length), size, channels);
    scored.push(slice);
    send({ kind: "slice", index, ...slice });
    await newerScan();
    if (isStale()) return undefined;
  }
  const cam = imaging.backProject(Float32Array.from(scored.flatMap(({ map }) => [...map])), model);
  const probabilities = scored.map(({ probability }) => probability);
  const probability = imaging.pooledProbability(probabilities, model);
  const added = imaging.contributions(probabilities, model);
  const mapOf = (data: Float32Array): MapResult => {
    const map = { ...model.template, data };
    return { picture: map, file: imaging.writeNifti(map) };
  };
  const compare: Compare = (age) => {
    const regions = imaging.regionTable(volume, cam, model, age);
    const compared_at_age = imaging.comparedAt(model, age);
    const unusual = imaging.unusual(regions, constants.maps["z"]!.shown_from);
    return {
      comparison: { age, compared_at_age, unusual, regions },
      z: mapOf(imaging.zMap(volume, model, age)),
    };
  };
  const { comparison, z } = compare(age);
  send({
    kind: "answer",
    answer: {
      scan: name,
      model: constants.name,
      lineage: constants.lineage.id,
      leaky: constants.leaky,
      probability_of_ad: rounded(probability, PROBABILITY_DECIMALS),
      probability_by_fold: scored[0]!.folds.map((_, fold) => {
        const ofFold = scored.map(({ folds }) => folds[fold]!);
        return rounded(imaging.pooledProbability(ofFold, model), PROBABILITY_DECIMALS);
      }),
      threshold: constants.threshold,
      meaning: meaningOf(probability, constants),
      ...imaging.interpret(probability, constants.out_of_fold),
      slices: yMm.map((y, index) => ({
        y_mm: y,
        probability_of_ad: rounded(probabilities[index]!, PROBABILITY_DECIMALS),
        contribution: rounded(added[index]!, PROBABILITY_DECIMALS),
      })),
      similarity_to_template: rounded(similarity, 4),
      matrix,
      ...comparison,
      checks,
    },
    cam: mapOf(cam),
    z,
  });
  return compare;
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
  if (volume.data.length <= MOST_SEEN) return volume;
  const shape = eachAxis((axis) => Math.ceil(volume.shape[axis]! / 2));
  const affine = imaging.product(volume.affine, imaging.diagonal([2, 2, 2]));
  return thinned({ data: imaging.resample(volume, { shape, affine }), shape, affine });
}
