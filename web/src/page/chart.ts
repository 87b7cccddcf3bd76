/** What each slice adds to the log-odds of AD, from back to front: a small chart, also in words. */

import type { SliceAnswer } from "../messages";
import { signed } from "./dom";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 150, 42, 332, 10, 120];

/** Return the end of an axis that holds all contributions. */
export function reachOf(slices: readonly SliceAnswer[]): number {
  return Math.max(0.1, ...slices.map(({ contribution }) => Math.abs(contribution)));
}

/** Return the chart's markup, all of numbers. */
export function contributionChart(slices: readonly SliceAnswer[]): string {
  const reach = reachOf(slices);
  const y = (value: number) => (TOP + BOTTOM) / 2 + (value / reach) * ((TOP - BOTTOM) / 2);
  const x = (index: number) => LEFT + ((index + 0.5) * (RIGHT - LEFT)) / slices.length;
  const text = (left: number, top: number, kind: string, words: string) =>
    `<text x="${left}" y="${top}" class="${kind}">${words}</text>`;
  const stem = ({ contribution }: SliceAnswer, index: number) => {
    const side = contribution > 0 ? "ad" : "cn";
    const [at, end] = [x(index), y(contribution)];
    const line = `<line x1="${at}" x2="${at}" y1="${y(0)}" y2="${end}" class="stem ${side}"/>`;
    return `${line}<circle cx="${at}" cy="${end}" r="4" class="dot ${side}"/>`;
  };
  const labelled = [...new Set([0, Math.floor((slices.length - 1) / 2), slices.length - 1])];
  const parts = [
    ...[-reach, 0, reach].map(
      (value) =>
        `<line x1="${LEFT}" x2="${RIGHT}" y1="${y(value)}" y2="${y(value)}" class="grid"/>` +
        text(LEFT - 6, y(value) + 3.5, "tick end", signed(value, value ? 1 : 0)),
    ),
    ...slices.map(stem),
    ...labelled.map((index) => text(x(index), HEIGHT - 15, "tick", signed(slices[index]!.y_mm, 0))),
    text((LEFT + WIDTH) / 2, HEIGHT - 2, "tick", "back  ·  MNI y in mm  ·  front"),
  ];
  const head = `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" class="chart" role="img" aria-label="${inWords(slices)}">`;
  return `${head}${parts.join("")}</svg>`;
}

function inWords(slices: readonly SliceAnswer[]): string {
  const speak = slices.filter(({ contribution }) => contribution > 0).length;
  const most = slices.reduce((a, b) => (Math.abs(b.contribution) > Math.abs(a.contribution) ? b : a));
  return (
    `What each coronal slice adds to the log-odds of AD: ${speak} of ${slices.length} speak for AD; ` +
    `the most, ${signed(most.contribution, 2)}, at y = ${most.y_mm} mm.`
  );
}
