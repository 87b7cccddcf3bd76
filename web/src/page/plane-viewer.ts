/** Three sections on plain canvases, for browsers without WebGL2. */

import { element } from "./dom";
import { boundsOf, paintSection, type Axis, type Point, type Scene } from "./sections";
import type { Viewer } from "./viewer";

const PIXEL_MM = 1.5;
const NAMES = ["Sagittal", "Coronal", "Axial"] as const;

export class PlaneViewer implements Viewer {
  private readonly canvases: HTMLCanvasElement[];
  private scene: Scene | undefined;
  private point: Point = [0, 0, 0];
  private frame = 0;

  constructor(place: HTMLElement) {
    this.canvases = NAMES.map(() => element("canvas", { role: "img" }));
    const note = element("p", { class: "note" }, "3D needs WebGL2, which this browser does not offer.");
    const figures = this.canvases.map((canvas, axis) =>
      element("figure", {}, canvas, element("figcaption", {}, captionOf(axis))),
    );
    place.replaceChildren(element("div", { class: "planes" }, ...figures), note);
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

  onMove(): void {
    // Nothing in it can be dragged.
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

function captionOf(axis: number): string {
  return axis === 0 ? `${NAMES[axis]} (front is right)` : `${NAMES[axis]} (L is the patient's left) L · R`;
}
