/**
 * What shows a volume. While the worker computes, three sections on plain canvases, which cost the page little;
 * then NiiVue with planes and 3D, where there is WebGL2.
 */

import { element } from "./dom";
import { PlaneViewer } from "./plane-viewer";
import type { Point, Scene } from "./sections";

export interface Viewer {
  /** Show a volume and the map over it; returns when it is drawn. */
  show(scene: Scene): Promise<void>;
  /** Change what is shown of the map. */
  restyle(scene: Scene): void;
  moveTo(point: Point): void;
}

/** Is called with the place that the user has moved to, in world mm. */
export type OnMove = (point: Point) => void;

export class StagedViewer {
  private readonly planes: PlaneViewer;
  private readonly planesPlace = element("div", { class: "stage" });
  private readonly fullPlace = element("div", { class: "stage away" });
  private full: Promise<Viewer | undefined> | undefined;
  private active: Viewer;
  private turn = 0;
  /** What was asked for last, which a viewer that opens or reads meanwhile does not know. */
  private scene: Scene | undefined;
  private point: Point = [0, 0, 0];

  constructor(
    place: HTMLElement,
    private readonly onMove: OnMove,
  ) {
    place.replaceChildren(this.planesPlace, this.fullPlace);
    this.planes = new PlaneViewer(this.planesPlace);
    this.active = this.planes;
  }

  /** Show a scene at a place; `settled` when the page has nothing else to do. */
  async show(scene: Scene, point: Point, settled: boolean): Promise<void> {
    const turn = ++this.turn;
    [this.scene, this.point] = [scene, point];
    this.full ??= settled ? this.openFull() : undefined;
    const full = settled ? await this.full : undefined;
    if (turn !== this.turn) {
      return;
    }
    const viewer = full ?? this.planes;
    await viewer.show(this.scene);
    if (turn !== this.turn) {
      return;
    }
    viewer.restyle(this.scene);
    viewer.moveTo(this.point);
    this.activate(viewer);
  }

  restyle(scene: Scene): void {
    this.scene = scene;
    this.active.restyle(scene);
  }

  moveTo(point: Point): void {
    this.point = point;
    this.active.moveTo(point);
  }

  private activate(viewer: Viewer): void {
    this.active = viewer;
    this.planesPlace.classList.toggle("away", viewer !== this.planes);
    this.fullPlace.classList.toggle("away", viewer === this.planes);
    this.planesPlace.parentElement!.dataset["viewer"] = viewer === this.planes ? "planes" : "niivue";
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
    this.planes.say("3D needs WebGL2, which this browser does not offer.");
    return undefined;
  }
}

function hasWebGL2(): boolean {
  const context = document.createElement("canvas").getContext("webgl2");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
}
