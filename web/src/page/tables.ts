/** The answer in figures and words, the sortable table of regions, and the quality checks. */

import { general, interpret, type CheckRow, type RegionRow } from "../imaging";
import type { Answer, Comparison } from "../messages";
import type { ModelDocument } from "../model.generated";
import { element, figure, percent, signed } from "./dom";

const UNCALIBRATED =
  "Not calibrated: a model without out-of-fold predictions gives no likelihood ratio or answer.";
export const LEAKY = "This model was trained and tested on the same subjects.";

const COLUMNS = [
  ["name", "Region", "By name"],
  ["uptake", "Uptake", "Ratio to the reference region"],
  ["z", "z against CN", "Standard deviations of cognitively normal training scans"],
  ["cam_share", "Share of CAM", "Share of the positive CAM inside the brain that lies in the region"],
] as const;
const WIDEST_Z = 4;
/** Regions with the lowest z that are printed. */
const PRINTED = 8;
const VERDICTS = {
  refused: { order: 0, mark: "×", words: "refused" },
  flagged: { order: 1, mark: "!", words: "unusual" },
  ok: { order: 2, mark: "✓", words: "as in training" },
};

export function showAnswer(place: HTMLElement, answer: Answer, model: ModelDocument): void {
  const { probability_of_ad: p, threshold, checks } = answer;
  const [side, other, where] =
    p >= threshold ? ["AD", "CN", "At or above"] : (["CN", "AD", "Below"] as const);
  const { auc, test_subjects: subjects } = model.performance;
  const limit = percent(threshold);
  const likeness = `more like the ${side} than the ${other} scans it has learned from`;
  const kind = answer.answer === "undecided" ? "undecided" : side.toLowerCase();
  const groups = groupsOf(model);
  const zones = element("span", "zones");
  const bands = groups.map(
    ({ name, from, to }) => `var(--${name.toLowerCase()}) ${100 * from}% ${100 * to}%`,
  );
  zones.style.backgroundImage = `linear-gradient(to right, ${bands.join(", ")})`;
  const scale = element(
    "div",
    { class: `scale ${kind}`, "aria-hidden": "true" },
    element("span", "fill"),
    zones,
    element("span", "limit"),
    element("span", "label", `threshold ${limit}`),
  );
  scale.style.setProperty("--p", String(p));
  scale.style.setProperty("--threshold", String(threshold));
  scale.classList.toggle("late", threshold > 0.6);
  const flags = checks.filter((check) => check.verdict === "flagged").map((check) => check.reason);
  const [value, low, high] = [auc.value, auc.low, auc.high].map((share) => share.toFixed(2));
  const paragraphs = [
    [
      "small",
      groups.map(({ name, from, to }) => `${name} from ${percent(from)} to ${percent(to)}`).join("; "),
    ],
    ["", `${where} the threshold of ${limit}: ${likeness}.`],
    ["spread", spreadOf(answer)],
    ["interpretation", interpretationOf(answer)],
    ["meaning", answer.meaning],
    ["small", `AUC ${value} (${low} to ${high}) on ${subjects} held-out subjects.`],
    ["warning", answer.leaky ? LEAKY : ""],
    ["warning", flags.length ? `Take it with care: ${flags.join("; ")}.` : ""],
    ["limits", "Not for diagnosis. Research use only."],
  ] as const;
  const group = answer.answer ? element("span", "group", `answer: ${answer.answer}`) : "";
  const strong = element("strong", { id: "probability" }, percent(p));
  place.replaceChildren(
    element("p", `figure ${kind}`, strong, " probability of AD ", group),
    scale,
    ...paragraphs.flatMap(([kind, text]) => (text ? [element("p", kind, text)] : [])),
  );
  if (answer.answer) place.querySelector(".interpretation")!.after(prevalenceField(answer));
}

/** Return the groups of probabilities that get the same answer, from 0 to 1; none without calibration. */
function groupsOf({ out_of_fold }: ModelDocument): { name: string; from: number; to: number }[] {
  const groups: { name: string; from: number; to: number }[] = [];
  for (let n = 0; n <= 1000; n++) {
    const name = interpret(n / 1000, out_of_fold).answer;
    if (!name) return [];
    if (groups.at(-1)?.name !== name) groups.push({ name, from: n / 1000, to: 1 });
    if (groups.length > 1) groups.at(-2)!.to = groups.at(-1)!.from;
  }
  return groups;
}

/** Write how far the probability depends on who was trained on. */
function spreadOf({ probability_by_fold: found }: Answer): string {
  if (!found.length) return "";
  const [low, high] = [Math.min(...found), Math.max(...found)].map(percent);
  const part = percent(1 / found.length);
  return `${low} to ${high} by ${found.length} networks, each trained without a different ${part} of the training subjects.`;
}

/** Write the conformal answer and the likelihood ratio in words. */
export function interpretationOf({ answer, coverage, likelihood_ratio: ratio }: Answer): string {
  if (!answer) return UNCALIBRATED;
  const asked = `Answer at ${general(100 * coverage!)}% coverage`;
  return `${asked}: ${answer}. Likelihood ratio, AD to CN: ${general(ratio!, 3)}.`;
}

/** Write the unusual regions and the age that they are compared at in words. */
export function unusualIn(comparison: Comparison): string {
  const regions = comparison.unusual.map(({ name, z }) => `${name} (${z > 0 ? "+" : ""}${signed(z, 1)})`);
  return `Unusual regions, with z: ${regions.join(", ") || "none"}; compared ${comparedIn(comparison)}.`;
}

/** Write the age that a scan is compared at in words. */
export function comparedIn({ age, compared_at_age: at }: Comparison): string {
  if (at === null) return "without regard to age";
  if (age === null) return `at age ${at.toFixed(0)}, the healthy people's mean, as no age was given`;
  return `at age ${at.toFixed(0)}${at === age ? "" : `, the nearest to ${age} that healthy people have`}`;
}

/** Make a field for the share of AD among those scanned, and the probability at it. */
function prevalenceField({ likelihood_ratio: ratio, training_prevalence: usual }: Answer): HTMLElement {
  const value = general(100 * usual!, 3);
  const input = element("input", { type: "number", min: "0.1", max: "99.9", step: "any", value });
  const output = element("output");
  const update = () => {
    const odds = (ratio! * input.valueAsNumber) / (100 - input.valueAsNumber);
    output.value = input.validity.valid && input.value ? percent(odds / (1 + odds)) : "";
  };
  input.addEventListener("input", update);
  update();
  return element("p", "prevalence", element("label", {}, "Where ", input, "% have AD: "), output);
}

/** Draw the regions into a table, lowest z first; a click on a heading sorts. */
export function showRegions(table: HTMLTableElement, regions: readonly RegionRow[]): void {
  let sorted: { column: (typeof COLUMNS)[number][0]; ascending: boolean } = { column: "z", ascending: true };
  const lowest = new Set([...regions].sort((a, b) => a.z - b.z).slice(0, PRINTED));
  const draw = () => {
    const { column, ascending } = sorted;
    const rows = [...regions].sort((a, b) => (ascending ? 1 : -1) * compare(a[column], b[column]));
    table.tBodies[0]!.replaceChildren(...rows.map((row) => regionRow(row, lowest.has(row))));
    COLUMNS.forEach(([name], index) => {
      const order = name !== column ? "none" : ascending ? "ascending" : "descending";
      headings[index]!.setAttribute("aria-sort", order);
    });
  };
  const headings = COLUMNS.map(([column, text, title]) => {
    const button = element("button", { type: "button", title }, text);
    button.addEventListener("click", () => {
      sorted = { column, ascending: sorted.column === column ? !sorted.ascending : column !== "cam_share" };
      draw();
    });
    return element("th", { scope: "col", class: column }, button);
  });
  table.tHead!.replaceChildren(element("tr", {}, ...headings));
  draw();
}

function compare(a: string | number, b: string | number): number {
  return typeof a === "string" ? a.localeCompare(String(b)) : a - Number(b);
}

function regionRow(
  { name, uptake, z, cam_share, ad_pattern }: RegionRow,
  isLowest: boolean,
): HTMLTableRowElement {
  const bar = element("span", { class: z < 0 ? "bar ad" : "bar cn", "aria-hidden": "true" });
  bar.style.setProperty("--length", `${Math.min(Math.abs(z) / WIDEST_Z, 1) * 50}%`);
  const title = element("th", { scope: "row" }, name);
  if (ad_pattern) {
    title.append(
      " ",
      element("span", { class: "badge", title: "AD lowers uptake here first" }, "AD pattern"),
    );
  }
  return element(
    "tr",
    isLowest ? "lowest" : {},
    title,
    element("td", {}, uptake.toFixed(2)),
    element("td", "z", element("span", "track", bar), element("span", {}, signed(z, 1))),
    element("td", {}, percent(cam_share)),
  );
}

export function showChecks(
  list: HTMLElement,
  checks: readonly CheckRow[],
  limits: ModelDocument["quality"],
): void {
  const sorted = [...checks].sort((a, b) => VERDICTS[a.verdict].order - VERDICTS[b.verdict].order);
  const items = sorted.map(({ name, value, verdict, reason }) => {
    const { mark, words } = VERDICTS[verdict];
    const limit = limits.find((other) => other.name === name);
    const usual = limit ? `; training scans ${figure(limit.low)} to ${figure(limit.high)}` : "";
    const text = reason
      ? [element("p", "reason", reason)]
      : [element("p", {}, limit?.text ?? name), element("p", "small", `${figure(value)}${usual}`)];
    const sign = element("span", { class: "mark", role: "img", "aria-label": words }, mark);
    return element("li", verdict, sign, element("div", {}, ...text));
  });
  list.replaceChildren(...items);
}
