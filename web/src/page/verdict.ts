/** The answer in figures and words. */

import type { Answer } from "../answer";
import { element, percent } from "./dom";
import type { ModelInfo } from "./model-info";

export const LEAKY = "This model was trained and tested on the same subjects.";

export function showAnswer(place: HTMLElement, answer: Answer, model: ModelInfo): void {
  const { probability_of_ad: p, threshold } = answer;
  const above = p >= threshold;
  const { auc, test_subjects: subjects } = model.performance;
  const scale = element(
    "div",
    { class: "scale", "aria-hidden": "true" },
    element("span", { class: "fill" }),
    element("span", { class: "limit" }),
    element("span", { class: "label" }, `threshold ${percent(threshold)}`),
  );
  scale.style.setProperty("--p", String(p));
  scale.style.setProperty("--threshold", String(threshold));
  scale.classList.toggle("late", threshold > 0.6);
  place.replaceChildren(
    element(
      "p",
      { class: `figure ${above ? "ad" : "cn"}` },
      element("strong", { id: "probability" }, percent(p)),
      " probability of AD",
    ),
    scale,
    element(
      "p",
      {},
      above
        ? `At or above the threshold of ${percent(threshold)}: more like the AD than the CN scans it has learned from.`
        : `Below the threshold of ${percent(threshold)}: more like the CN than the AD scans it has learned from.`,
    ),
    element("p", { class: "meaning" }, answer.meaning),
    element(
      "p",
      { class: "small" },
      `AUC ${auc.value.toFixed(2)} (${auc.low.toFixed(2)} to ${auc.high.toFixed(2)}) on ${subjects} held-out subjects.`,
    ),
    ...(answer.leaky ? [element("p", { class: "warning" }, LEAKY)] : []),
    ...flagsOf(answer),
    element("p", { class: "limits" }, "Not for diagnosis. Research use only."),
  );
}

export function showWaiting(place: HTMLElement, sentence: string): void {
  place.replaceChildren(element("p", { class: "waiting" }, sentence));
}

function flagsOf({ checks }: Answer): HTMLElement[] {
  const flagged = checks.filter((check) => check.verdict === "flagged");
  return flagged.length
    ? [
        element(
          "p",
          { class: "warning" },
          `Take it with care: ${flagged.map((check) => check.reason).join("; ")}.`,
        ),
      ]
    : [];
}
