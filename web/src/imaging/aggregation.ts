/** From slices to a scan: one calibrated probability, as `adpet.evaluation.aggregation` pools it. */

import { InputError } from "./errors";
import type { OutOfFold } from "../model.generated";
import type { Model } from "./model";
import { general, rounded } from "./wording";

/** Probabilities of 0 and 1 have no logit; float32 networks reach both. */
const SMALLEST_PROBABILITY = 1e-7;

/** Pool the probabilities of one scan's slices, which are those of all positions in order. */
export function pooledProbability(perSlice: ArrayLike<number>, model: Model): number {
  const logOdds = contributions(perSlice, model).reduce((sum, part) => sum + part, 0);
  return 1 / (1 + Math.exp(-logOdds));
}

/** Split one scan's log-odds of AD among its slices: `slice_contributions` of `adpet.evaluation.aggregation`. */
export function contributions(perSlice: ArrayLike<number>, { constants }: Model): number[] {
  const { method, weights, slope, intercept } = constants.aggregation;
  const probabilities = Array.from(perSlice);
  if (method === "position_weights" && (weights?.length ?? 0) < probabilities.length) {
    throw new InputError(
      `position weights: required one for each of ${probabilities.length} positions; received ` +
        `${weights?.length ?? 0}: export the model again`,
    );
  }
  const raw = probabilities.map((_, position) =>
    method === "position_weights" ? Math.max(weights![position]!, SMALLEST_PROBABILITY / weights!.length) : 1,
  );
  const total = raw.reduce((sum, weight) => sum + weight, 0);
  const away = probabilities.reduce((sum, p, position) => sum + (raw[position]! / total) * p, 0) - 0.5;
  // The slope of the logit at a half is 4.
  const scale = away ? logit(away + 0.5) / away : 4;
  return probabilities.map((p, position) => {
    const score = method === "mean_probability" ? (p - 0.5) * scale : logit(p);
    return (raw[position]! / total) * (slope * score + intercept);
  });
}

/** What a probability means: `interpret` of `adpet.evaluation.aggregation`, with its keys. */
export interface Interpretation {
  likelihood_ratio: number | null;
  training_prevalence: number | null;
  prevalence: number | null;
  probability_at_prevalence: number | null;
  answer: string | null;
  coverage: number | null;
}

const NOTHING: Interpretation = {
  likelihood_ratio: null,
  training_prevalence: null,
  prevalence: null,
  probability_at_prevalence: null,
  answer: null,
  coverage: null,
};

/** Interpret a probability at the training subjects' prevalence; all is null without their predictions. */
export function interpret(probability: number, reference: OutOfFold | null): Interpretation {
  if (!reference) return NOTHING;
  const { prevalence, coverage, coverages, quantiles } = reference;
  const row = coverages.findIndex((level) => level >= coverage);
  const score: Record<string, number> = { AD: 1 - probability, CN: probability };
  const possible = Object.keys(quantiles).filter((name) => score[name]! <= quantiles[name]![row]!);
  const [given, before] = [logit(probability), logit(prevalence)];
  const ratio = Math.exp(given - before);
  const likelier = given > before ? "AD" : given < before ? "CN" : null;
  return {
    likelihood_ratio: Number(general(ratio, 4)),
    training_prevalence: prevalence,
    prevalence,
    probability_at_prevalence: rounded(probability, 6),
    answer: possible.length === 1 && possible[0] === likelier ? possible[0] : "undecided",
    coverage,
  };
}

function logit(probability: number): number {
  const inside = Math.min(Math.max(probability, SMALLEST_PROBABILITY), 1 - SMALLEST_PROBABILITY);
  return Math.log(inside) - Math.log1p(-inside);
}
