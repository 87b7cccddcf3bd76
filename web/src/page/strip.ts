/** The coronal slices as the network is given them, each with its map and probability once it is scored. */

import type { Report } from "../messages";
import type { Overlay } from "./colours";
import { element, percent, signed } from "./dom";
import { paintPixel } from "./sections";

type Slices = Extract<Report, { kind: "slices" }>;
type Scored = Extract<Report, { kind: "slice" }>;

/** Slices beside each other on a wide screen. */
const MOST_COLUMNS = 16;

export class Strip {
  private slices: Slices | undefined;
  private readonly scored: Scored[] = [];

  constructor(
    private readonly place: HTMLElement,
    private readonly choose: (yMm: number) => void,
  ) {}

  clear(): void {
    this.slices = undefined;
    this.scored.length = 0;
    this.place.replaceChildren();
  }

  begin(slices: Slices, overlay: Overlay): void {
    this.clear();
    this.slices = slices;
    const rows = Math.ceil(slices.yMm.length / MOST_COLUMNS);
    this.place.style.setProperty("--columns", String(Math.ceil(slices.yMm.length / rows)));
    slices.yMm.forEach((yMm, index) => {
      const button = element(
        "button",
        { type: "button", class: "slice", "aria-label": `Slice at y = ${yMm} mm, not scored yet` },
        element("canvas", { width: String(slices.size), height: String(slices.size) }),
        element("span", { class: "place" }, signed(yMm, 0)),
        element("span", { class: "value" }, "…"),
      );
      button.addEventListener("click", () => this.choose(yMm));
      this.place.append(element("li", {}, button));
      this.paint(index, overlay);
    });
  }

  add(report: Scored, overlay: Overlay, threshold: number): void {
    this.scored[report.index] = report;
    const button = this.place.querySelectorAll("button")[report.index]!;
    const yMm = this.slices!.yMm[report.index]!;
    button.classList.add("scored", report.probability >= threshold ? "ad" : "cn");
    button.setAttribute(
      "aria-label",
      `Slice at y = ${yMm} mm: probability of AD ${percent(report.probability)}`,
    );
    button.querySelector(".value")!.textContent = percent(report.probability);
    this.paint(report.index, overlay);
  }

  /** Mark the slice that the crosshair is nearest to. */
  mark(yMm: number): void {
    const places = this.slices?.yMm ?? [];
    const distances = places.map((place) => Math.abs(place - yMm));
    const nearest = distances.indexOf(Math.min(...distances));
    this.place.querySelectorAll("button").forEach((button, index) => {
      if (index === nearest) {
        button.setAttribute("aria-current", "true");
      } else {
        button.removeAttribute("aria-current");
      }
    });
  }

  restyle(overlay: Overlay): void {
    this.slices?.yMm.forEach((_, index) => this.paint(index, overlay));
  }

  private paint(index: number, overlay: Overlay): void {
    const { pixels, size } = this.slices!;
    const canvas = this.place.querySelectorAll("canvas")[index]!;
    const context = canvas.getContext("2d")!;
    const image = context.createImageData(size, size);
    const scored = this.scored[index];
    // As long as the scan's largest value is not known, the largest seen so far stands for it.
    const max = Math.max(...this.scored.filter(Boolean).map((one) => largest(one.map)), Number.MIN_VALUE);
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const pixel = row * size + column;
        const value = scored ? resized(scored, row, column, size) / max : 0;
        paintPixel(image.data, 4 * pixel, pixels[index * size * size + pixel]!, value, overlay);
      }
    }
    context.putImageData(image, 0, 0);
  }
}

function largest(map: Float32Array): number {
  return map.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
}

/** Sample a map at a pixel of the slice: bilinear between the centres of its places. */
function resized(
  { map, mapShape: [height, width] }: Scored,
  row: number,
  column: number,
  size: number,
): number {
  const y = Math.min(Math.max(((row + 0.5) * height) / size - 0.5, 0), height - 1);
  const x = Math.min(Math.max(((column + 0.5) * width) / size - 0.5, 0), width - 1);
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const [below, right] = [Math.min(top + 1, height - 1), Math.min(left + 1, width - 1)];
  const upper = map[top * width + left]! * (1 - x + left) + map[top * width + right]! * (x - left);
  const lower = map[below * width + left]! * (1 - x + left) + map[below * width + right]! * (x - left);
  return upper * (1 - y + top) + lower * (y - top);
}
