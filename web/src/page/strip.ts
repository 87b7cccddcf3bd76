/** The coronal slices as the network is given them, each with its map and score once it is scored. */

import { largest, resizeMaps } from "../imaging";
import type { Of } from "../messages";
import type { Overlay } from "./colours";
import { element, signed } from "./dom";
import { paintPixel } from "./sections";

interface Slice {
  button: HTMLButtonElement;
  canvas: HTMLCanvasElement;
  map?: Float32Array;
}

const MOST_COLUMNS = 16;

export class Strip {
  private given: Of<"slices"> | undefined;
  private slices: Slice[] = [];
  /** Largest value of the maps so far, to which colours are scaled. */
  private max = 0;

  constructor(
    private readonly place: HTMLElement,
    private readonly choose: (yMm: number) => void,
  ) {}

  begin(given: Of<"slices">, overlay: Overlay): void {
    const { yMm, size } = given;
    [this.given, this.max] = [given, Number.MIN_VALUE];
    const rows = Math.ceil(yMm.length / MOST_COLUMNS);
    this.place.style.setProperty("--columns", String(Math.ceil(yMm.length / rows)));
    this.slices = yMm.map((y) => {
      const canvas = element("canvas", { width: String(size), height: String(size) });
      const button = element(
        "button",
        { type: "button", class: "slice", "aria-label": `Slice at y = ${y} mm, not scored yet` },
        canvas,
        element("span", "place", signed(y, 0)),
        element("span", "value", "…"),
      );
      button.addEventListener("click", () => this.choose(y));
      return { button, canvas };
    });
    this.place.replaceChildren(...this.slices.map(({ button }) => element("li", {}, button)));
    this.restyle(overlay);
  }

  add({ index, probability, map, mapShape }: Of<"slice">, overlay: Overlay, threshold: number): void {
    const { yMm, size } = this.given!;
    const slice = this.slices[index]!;
    const { button } = slice;
    slice.map = resizeMaps(map, [1, ...mapShape], size);
    this.max = Math.max(this.max, largest(map));
    button.classList.add("scored", probability >= threshold ? "ad" : "cn");
    button.ariaLabel = `Slice at y = ${yMm[index]} mm: score ${probability.toFixed(2)}`;
    button.querySelector(".value")!.textContent = probability.toFixed(2);
    this.paint(slice, index, overlay);
  }

  mark(yMm: number): void {
    const distances = (this.given?.yMm ?? []).map((place) => Math.abs(place - yMm));
    const nearest = distances.indexOf(Math.min(...distances));
    this.slices.forEach(({ button }, index) => (button.ariaCurrent = index === nearest ? "true" : null));
  }

  restyle(overlay: Overlay): void {
    this.slices.forEach((slice, index) => this.paint(slice, index, overlay));
  }

  private paint({ canvas, map }: Slice, index: number, overlay: Overlay): void {
    const { pixels, size } = this.given!;
    const context = canvas.getContext("2d")!;
    const image = context.createImageData(size, size);
    for (let pixel = 0; pixel < size * size; pixel++) {
      const value = map ? map[pixel]! / this.max : 0;
      paintPixel(image.data, 4 * pixel, pixels[index * size * size + pixel]!, value, overlay);
    }
    context.putImageData(image, 0, 0);
  }
}
