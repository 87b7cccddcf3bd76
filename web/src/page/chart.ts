/** The probability of each slice from back to front, as a small chart that is also told in words. */

import type { SliceAnswer } from "../answer";
import { percent, signed, svgElement } from "./dom";

const WIDTH = 340;
const HEIGHT = 150;
const LEFT = 42;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 30;

/** Draw slices, of which some may be still to come, and the threshold of the scan's probability. */
export function probabilityChart(
  slices: readonly SliceAnswer[],
  yMm: readonly number[],
  threshold: number,
): SVGElement {
  const step = (WIDTH - LEFT - RIGHT) / yMm.length;
  const y = (share: number) => TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
  const middle = (index: number) => LEFT + (index + 0.5) * step;
  const chart = svgElement("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    class: "chart",
    role: "img",
    "aria-label": inWords(slices, yMm.length, threshold),
  });
  for (const share of [0, 0.5, 1]) {
    chart.append(
      svgElement("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(share), y2: y(share), class: "grid" }),
    );
    chart.append(
      svgElement("text", { x: LEFT - 6, y: y(share) + 3.5, class: "tick end" }, `${100 * share}%`),
    );
  }
  slices.forEach(({ probability_of_ad: p }, index) => {
    const above = p >= threshold;
    chart.append(
      svgElement("line", {
        x1: middle(index),
        x2: middle(index),
        y1: y(0),
        y2: y(p),
        class: above ? "stem ad" : "stem cn",
      }),
      svgElement("circle", { cx: middle(index), cy: y(p), r: 4, class: above ? "dot ad" : "dot cn" }),
    );
  });
  chart.append(
    svgElement("line", {
      x1: LEFT,
      x2: WIDTH - RIGHT,
      y1: y(threshold),
      y2: y(threshold),
      class: "threshold",
    }),
  );
  const labelled = [0, Math.floor((yMm.length - 1) / 2), yMm.length - 1];
  for (const index of new Set(labelled)) {
    chart.append(
      svgElement("text", { x: middle(index), y: HEIGHT - 15, class: "tick" }, signed(yMm[index]!, 0)),
    );
  }
  chart.append(
    svgElement(
      "text",
      { x: (LEFT + WIDTH) / 2, y: HEIGHT - 2, class: "tick" },
      "back  ·  MNI y in mm  ·  front",
    ),
  );
  return chart;
}

function inWords(slices: readonly SliceAnswer[], count: number, threshold: number): string {
  if (!slices.length) {
    return `Probability of AD of each of ${count} coronal slices; none is scored yet.`;
  }
  const above = slices.filter((one) => one.probability_of_ad >= threshold).length;
  const highest = slices.reduce((a, b) => (b.probability_of_ad > a.probability_of_ad ? b : a));
  return (
    `Probability of AD of each coronal slice: ${above} of ${slices.length} at or above ${percent(threshold)}; ` +
    `the highest, ${percent(highest.probability_of_ad)}, at y = ${highest.y_mm} mm.`
  );
}
