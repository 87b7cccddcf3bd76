/** From slices to a scan: one calibrated probability, as `adpet.evaluation.aggregation` pools it. */

import { InputError } from "./errors";
import type { Model } from "./model";

/** Probabilities of 0 and 1 have no logit; float32 networks reach both. */
const SMALLEST_PROBABILITY = 1e-7;

/** Pool the probabilities of one scan's slices, which are those of all positions in order. */
export function pooledProbability(perSlice: ArrayLike<number>, { constants }: Model): number {
  const { method, weights, slope, intercept } = constants.aggregation;
  const probabilities = Array.from(perSlice);
  if (method === "position_weights" && (weights?.length ?? 0) < probabilities.length) {
    throw new InputError(
      `position weights: required one for each of ${probabilities.length} positions; received ` +
        `${weights?.length ?? 0}: export the model again`,
    );
  }
  let sum = 0;
  let total = 0;
  probabilities.forEach((probability, position) => {
    const weight =
      method === "position_weights"
        ? Math.max(weights![position]!, SMALLEST_PROBABILITY / weights!.length)
        : 1;
    sum += weight * (method === "mean_probability" ? probability : logit(probability));
    total += weight;
  });
  const mean = method === "mean_probability" ? logit(sum / total) : sum / total;
  return 1 / (1 + Math.exp(-(slope * mean + intercept)));
}

function logit(probability: number): number {
  const inside = Math.min(Math.max(probability, SMALLEST_PROBABILITY), 1 - SMALLEST_PROBABILITY);
  return Math.log(inside) - Math.log1p(-inside);
}
