/** Three sections on plain canvases, which need no WebGL and little time. */

import { element } from "./dom";
import { boundsOf, paintSection, type Axis, type Point, type Scene } from "./sections";
import type { Viewer } from "./viewer";

const PIXEL_MM = 1.5;
/** As NiiVue lays them out, with the fourth place for 3D. */
const ORDER: readonly Axis[] = [1, 0, 2];
const NAMES = ["Sagittal", "Coronal", "Axial"] as const;

export class PlaneViewer implements Viewer {
  private readonly canvases: HTMLCanvasElement[];
  private readonly note = element("p", { class: "note" }, "3D comes with the answer.");
  private scene: Scene | undefined;
  private point: Point = [0, 0, 0];
  private frame = 0;

  constructor(place: HTMLElement) {
    this.canvases = NAMES.map(() => element("canvas", { role: "img" }));
    const figures = ORDER.map((axis) => {
      const canvas = this.canvases[axis]!;
      const [first, last] = sidesOf(axis);
      const name = element("figcaption", {}, NAMES[axis]!);
      return element("figure", {}, canvas, element("b", {}, first), element("b", {}, last), name);
    });
    place.replaceChildren(element("div", { class: "planes" }, ...figures, this.note));
  }

  show(scene: Scene): Promise<void> {
    const [low, high] = boundsOf(scene.base);
    this.point = [0, 1, 2].map((n) =>
      Math.min(Math.max(this.point[n]!, low[n]!), high[n]!),
    ) as unknown as Point;
    this.restyle(scene);
    return Promise.resolve();
  }

  restyle(scene: Scene): void {
    this.scene = scene;
    this.paintSoon();
  }

  moveTo(point: Point): void {
    this.point = point;
    this.paintSoon();
  }

  say(sentence: string): void {
    this.note.textContent = sentence;
  }

  private paintSoon(): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.paint());
  }

  private paint(): void {
    for (const axis of [0, 1, 2] as Axis[]) {
      const canvas = this.canvases[axis]!;
      paintSection(canvas, this.scene!, axis, this.point, PIXEL_MM);
      canvas.setAttribute("aria-label", `${NAMES[axis]} section at ${Math.round(this.point[axis])} mm`);
    }
  }
}

/** The letters left and right of a section. */
function sidesOf(axis: number): readonly [string, string] {
  return axis === 0 ? ["P", "A"] : ["L", "R"];
}
