/** Two visits of one person: what the same model answers for both, and what has changed. */

import { general } from "../imaging";
import type { Answer } from "../messages";
import { element, percent, signed } from "./dom";

/** Change of uptake of a region: SUVR of both visits. */
type Change = readonly [name: string, first: number, second: number];

/** Show what two visits were answered, and each region's uptake, the largest change first. */
export function showVisits(place: HTMLElement, first: Answer, second: Answer): void {
  const named = `First: ${first.scan}. Second: ${second.scan}. A change is the second less the first.`;
  const warnings = warningsOf(first, second).map((text) => element("p", "warning", text));
  const changes = second.regions
    .map(({ name, uptake }): Change => [name, uptakeOf(first, name), uptake])
    .sort((a, b) => Math.abs(b[2] - b[1]) - Math.abs(a[2] - a[1]));
  const regions = table(
    ["Region", "First", "Second", "Change"],
    changes.map(([name, one, other]) => [name, one.toFixed(2), other.toFixed(2), plus(other - one)]),
  );
  const scroll = { class: "scroll", tabindex: "0", role: "region", "aria-label": "Uptake of both visits" };
  place.replaceChildren(
    element("p", "small", named),
    ...warnings,
    table(["", "First", "Second", "Change"], rowsOf(first, second)),
    element("h3", {}, "Uptake (SUVR), largest change first"),
    element("div", scroll, regions),
  );
}

function rowsOf(first: Answer, second: Answer): string[][] {
  const row = (name: string, of: (answer: Answer) => string, change = "") => [
    name,
    of(first),
    of(second),
    change,
  ];
  const [p, q] = [first, second].map((answer) => answer.probability_of_ad) as [number, number];
  const byFold = second.probability_by_fold.map(
    (each, n) => logOdds(each) - logOdds(first.probability_by_fold[n]!),
  );
  const range = byFold.length ? ` (${plus(Math.min(...byFold))} to ${plus(Math.max(...byFold))})` : "";
  const interval = ({ probability_by_fold: found }: Answer) =>
    `${percent(Math.min(...found))} to ${percent(Math.max(...found))}`;
  return [
    row(
      "Probability of AD",
      (answer) => percent(answer.probability_of_ad),
      `${plus(100 * (q - p), 0)} points`,
    ),
    ...(byFold.length ? [row(`By ${byFold.length} networks`, interval)] : []),
    row(
      `${second.answer ? "Calibrated log-odds" : "Log-odds"} of AD`,
      (answer) => signed(logOdds(answer.probability_of_ad), 2),
      plus(logOdds(q) - logOdds(p)) + range,
    ),
    ...(second.answer
      ? [
          row("Likelihood ratio, AD to CN", (answer) => general(answer.likelihood_ratio!, 3)),
          row(`Answer at ${general(100 * second.coverage!)}% coverage`, (answer) => answer.answer!),
        ]
      : []),
    row("Age that z is for", ageOf),
  ];
}

function warningsOf(first: Answer, second: Answer): string[] {
  const [one, other] = [first, second].map(({ scan }) => /^sub-[^_]+/.exec(scan)?.[0]);
  return [
    one && other && one !== other ? `The names are of two people: ${one} and ${other}.` : "",
    (first.age === null) !== (second.age === null)
      ? "Only one visit was compared at a given age: z differs by that too. Give the age at each visit, or at none."
      : "",
    "How far two scans of an unchanged brain differ was not measured: a small change may be none.",
  ].filter(Boolean);
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): HTMLTableElement {
  const head = heads.map((text) => (text ? element("th", { scope: "col" }, text) : element("td")));
  const body = rows.map(([name, ...cells]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name!),
      ...cells.map((text) => element("td", {}, text)),
    ),
  );
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...body),
  );
}

function ageOf({ age, compared_at_age: at }: Answer): string {
  return at === null ? "any" : `${at.toFixed(0)}${age === null ? " (mean)" : ""}`;
}

function uptakeOf({ regions }: Answer, name: string): number {
  return regions.find((region) => region.name === name)!.uptake;
}

function logOdds(probability: number): number {
  return Math.log(probability) - Math.log1p(-probability);
}

function plus(value: number, digits = 2): string {
  const text = signed(value, digits);
  return /^[^−]*[1-9]/.test(text) ? `+${text}` : text;
}
