/** The table of regions, which can be sorted, and the quality checks. */

import type { CheckRow, RegionRow } from "../imaging";
import type { CheckInfo } from "./model-info";
import { element, figure, percent, signed } from "./dom";

type Column = "name" | "uptake" | "z" | "cam_share";

const COLUMNS: readonly (readonly [Column, string, string])[] = [
  ["name", "Region", "By name"],
  ["uptake", "Uptake", "Ratio to the reference region"],
  ["z", "z against CN", "Standard deviations of cognitively normal training scans"],
  ["cam_share", "Share of map", "Share of the positive map inside the brain that lies in the region"],
];
/** The z at which a bar ends. */
const WIDEST_Z = 4;
const MARKS = { ok: "✓", flagged: "!", refused: "×" } as const;
const WORDS = { ok: "as in training", flagged: "unusual", refused: "refused" } as const;

/** Draw the regions into a table, lowest z first; a click on a heading sorts anew. */
export function showRegions(table: HTMLTableElement, regions: readonly RegionRow[]): void {
  let sorted: { column: Column; ascending: boolean } = { column: "z", ascending: true };
  const draw = () => {
    const direction = sorted.ascending ? 1 : -1;
    const rows = [...regions].sort((a, b) => direction * compare(a[sorted.column], b[sorted.column]));
    table.tBodies[0]!.replaceChildren(...rows.map(regionRow));
    table.querySelectorAll("th[scope=col]").forEach((heading, index) => {
      const here = COLUMNS[index]![0] === sorted.column;
      heading.setAttribute("aria-sort", here ? (sorted.ascending ? "ascending" : "descending") : "none");
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

function regionRow({ name, uptake, z, cam_share, ad_pattern }: RegionRow): HTMLTableRowElement {
  const bar = element("span", { class: z < 0 ? "bar low" : "bar high", "aria-hidden": "true" });
  bar.style.setProperty("--length", `${Math.min(Math.abs(z) / WIDEST_Z, 1) * 50}%`);
  const title = element("th", { scope: "row" }, name);
  if (ad_pattern) {
    title.append(
      " ",
      element("span", { class: "badge", title: "AD takes uptake from here first" }, "AD pattern"),
    );
  }
  return element(
    "tr",
    {},
    title,
    element("td", {}, uptake.toFixed(2)),
    element(
      "td",
      { class: "z" },
      element("span", { class: "track" }, bar),
      element("span", {}, signed(z, 1)),
    ),
    element("td", {}, percent(cam_share)),
  );
}

/** Draw the checks into a list, those that failed first. */
export function showChecks(
  list: HTMLElement,
  checks: readonly CheckRow[],
  infos: readonly CheckInfo[],
): void {
  const severity = { refused: 0, flagged: 1, ok: 2 } as const;
  const items = [...checks]
    .sort((a, b) => severity[a.verdict] - severity[b.verdict])
    .map(({ name, value, verdict, reason }) => {
      const info = infos.find((one) => one.name === name);
      const usual = info ? `; training scans ${figure(info.low)} to ${figure(info.high)}` : "";
      return element(
        "li",
        { class: verdict },
        element("span", { class: "mark", role: "img", "aria-label": WORDS[verdict] }, MARKS[verdict]),
        element(
          "div",
          {},
          ...(reason
            ? [element("p", { class: "reason" }, reason)]
            : [
                element("p", {}, info?.text ?? name),
                element("p", { class: "small" }, `${figure(value)}${usual}`),
              ]),
        ),
      );
    });
  list.replaceChildren(...items);
}
