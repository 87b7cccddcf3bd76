/** Two visits of one person: what the same model answers for both, and what has changed. */

import { general } from "../imaging";
import type { Answer } from "../messages";
import { element, percent, signed } from "./dom";

/** Probabilities have six decimals. */
const ROUNDED = 1e-6;
const HEADS = ["First", "Second", "Change"];
type Row = readonly [name: string, first: string, second: string, change: string];

/** Show what two visits were answered, and each region's uptake, the largest change first. */
export function showVisits(place: HTMLElement, first: Answer, second: Answer): void {
  const named = `First: ${first.scan}. Second: ${second.scan}. A change is the second less the first.`;
  const uptake = new Map(first.regions.map((region) => [region.name, region.uptake]));
  const regions = second.regions
    .map((region) => ({ ...region, change: region.uptake - uptake.get(region.name)! }))
    .sort((a, b) => Math.abs(b.change) - Math.abs(a.change))
    .map(({ name, uptake: now, change }): Row => {
      return [name, (now - change).toFixed(2), now.toFixed(2), plus(change)];
    });
  const scroll = { class: "scroll", tabindex: "0", role: "region", "aria-label": "Uptake of both visits" };
  place.replaceChildren(
    element("p", "small", named),
    ...warningsOf(first, second).map((text) => element("p", "warning", text)),
    table("Answer", answers(first, second)),
    element("h3", {}, "Uptake (SUVR), largest change first"),
    element("div", scroll, table("Region", regions)),
  );
}

function answers(first: Answer, second: Answer): Row[] {
  const row = (name: string, of: (answer: Answer) => string, change = ""): Row => {
    return [name, of(first), of(second), change];
  };
  const p = (answer: Answer) => answer.probability_of_ad;
  const folds = (answer: Answer) => answer.probability_by_fold;
  const moved = folds(second).map((each, n) => logOdds(each) - logOdds(folds(first)[n]!));
  const [isCalibrated, hasFolds] = [second.answer !== null, moved.length > 0];
  const change = plus(logOdds(p(second)) - logOdds(p(first)));
  const range = hasFolds ? ` (${ends(moved, plus)})` : "";
  const odds = `${isCalibrated ? "Calibrated log-odds" : "Log-odds"} of AD`;
  const rows = [
    row("Probability of AD", (it) => percent(p(it)), `${plus(100 * (p(second) - p(first)), 1)} points`),
    hasFolds && row(`By ${moved.length} networks`, (it) => ends(folds(it), percent)),
    row(odds, (it) => signed(logOdds(p(it)), 2), change + range),
    isCalibrated && row("Likelihood ratio, AD to CN", (it) => general(it.likelihood_ratio!, 3)),
    isCalibrated && row(`Answer at ${general(100 * second.coverage!)}% coverage`, (it) => it.answer!),
    row("Age that z is for", ageOf),
  ];
  return rows.filter((each) => each !== false);
}

function warningsOf(first: Answer, second: Answer): string[] {
  const [one, other] = [first, second].map(({ scan }) => /^sub-[^_]+/.exec(scan)?.[0]);
  return [
    one && other && one !== other ? `The names are of two people: ${one} and ${other}.` : "",
    (first.age === null) !== (second.age === null)
      ? "The age was given at one visit only: z differs by that too. Give it at both, or at none."
      : "",
    "How far two scans of an unchanged brain differ was not measured: a small change may be none.",
  ].filter(Boolean);
}

function table(corner: string, rows: readonly Row[]): HTMLTableElement {
  const heads = [corner, ...HEADS].map((text) => element("th", { scope: "col" }, text));
  const body = rows.map(([name, ...cells]) => {
    const figures = cells.map((text) => element("td", {}, text));
    return element("tr", {}, element("th", { scope: "row" }, name), ...figures);
  });
  const parts = [element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...body)];
  return element("table", { "aria-label": `${corner}, at both visits` }, ...parts);
}

function ageOf({ age, compared_at_age: at }: Answer): string {
  return at === null ? "any" : `${at.toFixed(0)}${age === null ? " (mean)" : ""}`;
}

function ends(values: readonly number[], written: (value: number) => string): string {
  return `${written(Math.min(...values))} to ${written(Math.max(...values))}`;
}

function logOdds(probability: number): number {
  const inside = Math.min(Math.max(probability, ROUNDED), 1 - ROUNDED);
  return Math.log(inside) - Math.log1p(-inside);
}

function plus(value: number, digits = 2): string {
  return (value > 0 && Number(value.toFixed(digits)) ? "+" : "") + signed(value, digits);
}
