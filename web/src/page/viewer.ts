/** Three sections on plain canvases while the worker computes; then NiiVue, where there is WebGL2. */

import { boundsOf, eachAxis, type Vector } from "../imaging";
import { element } from "./dom";
import { paintSection, sidesOf, type Axis, type Scene } from "./sections";

export interface Viewer {
  show(scene: Scene): Promise<void>;
  moveTo(point: Vector): void;
}

export type OnMove = (point: Vector) => void;

const PIXEL_MM = 1.5;
const NAMES = ["Sagittal", "Coronal", "Axial"] as const;

export class StagedViewer {
  private readonly planesPlace = element("div", "stage");
  private readonly fullPlace = element("div", "stage away");
  private readonly planes = new PlaneViewer(this.planesPlace);
  private full: Promise<Viewer | undefined> | undefined;
  private active: Viewer = this.planes;
  private turn = 0;
  /** What was asked for last, which a viewer that opens or reads meanwhile does not know. */
  private scene: Scene | undefined;
  private point: Vector = [0, 0, 0];

  constructor(
    private readonly place: HTMLElement,
    private readonly onMove: OnMove,
  ) {
    place.replaceChildren(this.planesPlace, this.fullPlace);
  }

  /** Show a scene at a place; `settled` when the page has nothing else to do. */
  async show(scene: Scene, point: Vector, settled: boolean): Promise<void> {
    const turn = ++this.turn;
    [this.scene, this.point] = [scene, point];
    this.full ??= settled ? this.openFull() : undefined;
    const viewer = (settled && (await this.full)) || this.planes;
    if (turn !== this.turn) return;
    await viewer.show(this.scene);
    if (turn !== this.turn) return;
    void viewer.show(this.scene);
    viewer.moveTo(this.point);
    this.activate(viewer);
  }

  restyle(scene: Scene): void {
    this.scene = scene;
    void this.active.show(scene);
  }

  moveTo(point: Vector): void {
    this.point = point;
    this.active.moveTo(point);
  }

  private activate(viewer: Viewer): void {
    const isPlanes = viewer === this.planes;
    this.active = viewer;
    this.planesPlace.classList.toggle("away", !isPlanes);
    this.fullPlace.classList.toggle("away", isPlanes);
    this.place.dataset["viewer"] = isPlanes ? "planes" : "niivue";
  }

  private async openFull(): Promise<Viewer | undefined> {
    if (hasWebGL2()) {
      try {
        const { NiivueViewer } = await import("./niivue-viewer");
        return await NiivueViewer.open(this.fullPlace, (point) => {
          this.point = point;
          this.onMove(point);
        });
      } catch (error) {
        console.warn(error);
      }
    }
    this.planes.note.textContent = "3D needs WebGL2, which this browser does not offer.";
    return undefined;
  }
}

class PlaneViewer implements Viewer {
  readonly note = element("p", "note", "3D comes with the answer.");
  private readonly canvases = NAMES.map(() => element("canvas", { role: "img" }));
  private scene: Scene | undefined;
  private point: Vector = [0, 0, 0];
  private frame = 0;

  constructor(place: HTMLElement) {
    // As NiiVue lays them out, with the fourth place for 3D.
    const figures = ([1, 0, 2] as const).map((axis) => {
      const [first, last] = sidesOf(axis).map((side) => element("b", {}, side));
      return element(
        "figure",
        {},
        this.canvases[axis]!,
        first!,
        last!,
        element("figcaption", {}, NAMES[axis]),
      );
    });
    place.replaceChildren(element("div", "planes", ...figures, this.note));
  }

  async show(scene: Scene): Promise<void> {
    const [low, high] = boundsOf(scene.base);
    this.scene = scene;
    this.moveTo(eachAxis((n) => Math.min(Math.max(this.point[n]!, low[n]!), high[n]!)));
  }

  moveTo(point: Vector): void {
    this.point = point;
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() =>
      this.canvases.forEach((canvas, axis) => {
        paintSection(canvas, this.scene!, axis as Axis, this.point, PIXEL_MM);
        canvas.ariaLabel = `${NAMES[axis]} section at ${Math.round(this.point[axis]!)} mm`;
      }),
    );
  }
}

function hasWebGL2(): boolean {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}
