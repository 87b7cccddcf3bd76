/** The coronal slices as the network is given them, each with its map once it is scored, and its part of the answer. */

import { resizeMaps } from "../imaging";
import type { Of, SliceAnswer } from "../messages";
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

  constructor(
    private readonly place: HTMLElement,
    private readonly choose: (yMm: number) => void,
    /** End of the CAM's scale. */
    private readonly limit: number,
  ) {}

  begin(given: Of<"slices">, overlay: Overlay): void {
    const { yMm, size } = given;
    this.given = given;
    const rows = Math.ceil(yMm.length / MOST_COLUMNS);
    this.place.style.setProperty("--columns", String(Math.ceil(yMm.length / rows)));
    this.slices = yMm.map((y) => {
      const canvas = element("canvas", { width: String(size), height: String(size) });
      const button = element(
        "button",
        { type: "button", class: "slice", "aria-label": `Slice at y = ${y} mm, not answered yet` },
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

  add({ index, map, mapShape }: Of<"slice">, overlay: Overlay): void {
    const slice = this.slices[index]!;
    slice.map = resizeMaps(map, [1, ...mapShape], this.given!.size);
    slice.button.classList.add("scored");
    this.paint(slice, index, overlay);
  }

  /** Write under each slice what it adds to the answer. */
  answer(slices: readonly SliceAnswer[]): void {
    slices.forEach(({ y_mm, contribution }, index) => {
      const { button } = this.slices[index]!;
      button.classList.add(contribution > 0 ? "ad" : "cn");
      button.ariaLabel = `Slice at y = ${y_mm} mm: adds ${signed(contribution, 2)}`;
      button.querySelector(".value")!.textContent = signed(contribution, 2);
    });
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
      const value = map ? map[pixel]! / this.limit : 0;
      paintPixel(image.data, 4 * pixel, pixels[index * size * size + pixel]!, value, overlay);
    }
    context.putImageData(image, 0, 0);
  }
}
