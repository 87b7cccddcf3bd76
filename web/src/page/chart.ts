/** Score of each slice from back to front: a small chart, also in words. */

import type { SliceAnswer } from "../messages";
import { signed } from "./dom";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 150, 42, 332, 10, 120];

/** Return the chart's markup, all of numbers; some slices may still be missing. */
export function probabilityChart(
  slices: readonly SliceAnswer[],
  yMm: readonly number[],
  threshold: number,
): string {
  const y = (share: number) => BOTTOM + share * (TOP - BOTTOM);
  const x = (index: number) => LEFT + ((index + 0.5) * (RIGHT - LEFT)) / yMm.length;
  const across = (share: number, kind: string) =>
    `<line x1="${LEFT}" x2="${RIGHT}" y1="${y(share)}" y2="${y(share)}" class="${kind}"/>`;
  const text = (left: number, top: number, kind: string, words: string) =>
    `<text x="${left}" y="${top}" class="${kind}">${words}</text>`;
  const stem = ({ probability_of_ad: p }: SliceAnswer, index: number) => {
    const side = p >= threshold ? "ad" : "cn";
    const line = `<line x1="${x(index)}" x2="${x(index)}" y1="${BOTTOM}" y2="${y(p)}" class="stem ${side}"/>`;
    return `${line}<circle cx="${x(index)}" cy="${y(p)}" r="4" class="dot ${side}"/>`;
  };
  const labelled = [...new Set([0, Math.floor((yMm.length - 1) / 2), yMm.length - 1])];
  const parts = [
    ...[0, 0.5, 1].map(
      (share) => across(share, "grid") + text(LEFT - 6, y(share) + 3.5, "tick end", String(share)),
    ),
    ...slices.map(stem),
    across(threshold, "threshold"),
    ...labelled.map((index) => text(x(index), HEIGHT - 15, "tick", signed(yMm[index]!, 0))),
    text((LEFT + WIDTH) / 2, HEIGHT - 2, "tick", "back  ·  MNI y in mm  ·  front"),
  ];
  const words = inWords(slices, yMm.length, threshold);
  const head = `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" class="chart" role="img" aria-label="${words}">`;
  return `${head}${parts.join("")}</svg>`;
}

function inWords(slices: readonly SliceAnswer[], count: number, threshold: number): string {
  if (!slices.length) return `Score of each of ${count} coronal slices; none is scored yet.`;
  const above = slices.filter((slice) => slice.probability_of_ad >= threshold).length;
  const highest = slices.reduce((a, b) => (b.probability_of_ad > a.probability_of_ad ? b : a));
  return (
    `Score of each coronal slice, 0 to 1: ${above} of ${slices.length} at or above ${threshold.toFixed(2)}; ` +
    `the highest, ${highest.probability_of_ad.toFixed(2)}, at y = ${highest.y_mm} mm.`
  );
}
