/** Three planes and 3D by NiiVue. */

import { MULTIPLANAR_TYPE, Niivue, NVImage, SHOW_RENDER, type NiiVueLocation } from "@niivue/niivue";
import { type Vector, type Volume, writeNifti } from "../imaging";
import { lookupTable, type Direction } from "./colours";
import { element } from "./dom";
import type { Scene } from "./sections";
import type { OnMove, Viewer } from "./viewer";

/** NiiVue's code for colours that run from 0 to the end of the scale and end at once below the least one. */
const NOTHING_BELOW_LEAST = 2;
const BLACK = [0.043, 0.051, 0.063, 1];
const STEP_KEYS: Record<string, Vector> = {
  ArrowLeft: [-1, 0, 0],
  ArrowRight: [1, 0, 0],
  ArrowUp: [0, 0, 1],
  ArrowDown: [0, 0, -1],
  PageUp: [0, 1, 0],
  PageDown: [0, -1, 0],
};

export class NiivueViewer implements Viewer {
  private base: Volume | undefined;
  private cam: Volume | undefined;
  private direction: Direction | undefined;
  private frame = 0;
  private queue: Promise<unknown> = Promise.resolve();

  private constructor(private readonly niivue: Niivue) {}

  static async open(place: HTMLElement, onMove: OnMove): Promise<NiivueViewer> {
    const canvas = element("canvas", {
      tabindex: "0",
      // Keys are for the canvas, whatever reads the page; the sliders below do the same.
      role: "application",
      "aria-label": "Scan in three planes and 3D. Arrow keys and Page Up and Down move the crosshair.",
    });
    place.replaceChildren(canvas);
    const niivue = new Niivue({
      backColor: BLACK,
      crosshairColor: [0.55, 0.8, 1, 0.7],
      crosshairWidth: 0.6,
      crosshairWidthUnit: "mm",
      dragAndDropEnabled: false,
      fontColor: [1, 1, 1, 1],
      fontMinPx: 13,
      loadingText: "",
      logLevel: "error",
      multiplanarForceRender: true,
      multiplanarLayout: MULTIPLANAR_TYPE.GRID,
      multiplanarShowRender: SHOW_RENDER.ALWAYS,
      scrollRequiresFocus: true,
      show3Dcrosshair: true,
      showAllOrientationMarkers: true,
      tileMargin: 4,
      viewModeHotKey: "",
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
    });
    await niivue.attachToCanvas(canvas);
    for (const direction of ["AD", "CN"] as const) {
      niivue.addColormap(nameOf(direction), lookupTable(direction));
    }
    const viewer = new NiivueViewer(niivue);
    canvas.addEventListener("keydown", (event) => viewer.step(event));
    niivue.onLocationChange = (location) => {
      const [x, y, z] = (location as NiiVueLocation).mm;
      onMove([x!, y!, z!]);
    };
    return viewer;
  }

  /** Scenes are read one after another: two at once would both lay their map over the scan. */
  show(scene: Scene): Promise<void> {
    const shown = this.queue.then(() => this.read(scene));
    this.queue = shown.catch(() => undefined);
    return shown;
  }

  moveTo(point: Vector): void {
    if (this.base) {
      this.niivue.scene.crosshairPos = this.niivue.mm2frac(point);
      this.niivue.drawScene();
    }
  }

  private async read(scene: Scene): Promise<void> {
    const { niivue } = this;
    if (scene.base !== this.base) {
      const image = await imageOf(scene.base, "scan.nii", "gray", 1, scene.window);
      while (niivue.volumes.length) niivue.removeVolume(niivue.volumes.at(-1)!);
      niivue.addVolume(image);
      this.base = scene.base;
      this.cam = undefined;
    }
    const { cam, overlay } = scene;
    if (cam?.picture === this.cam && overlay.direction === this.direction) {
      this.restyleSoon(scene);
      return;
    }
    cancelAnimationFrame(this.frame);
    if (niivue.volumes.length > 1) niivue.removeVolume(niivue.volumes[1]!);
    if (cam) {
      const sign = overlay.direction === "AD" ? 1 : -1;
      const towards = { ...cam.picture, data: cam.picture.data.map((value) => sign * value) };
      const range = [leastOf(scene), cam.max] as const;
      const image = await imageOf(towards, "map.nii", nameOf(overlay.direction), overlay.opacity, range);
      image.colormapType = NOTHING_BELOW_LEAST;
      niivue.addVolume(image);
    }
    this.cam = cam?.picture;
    this.direction = overlay.direction;
  }

  private restyleSoon(scene: Scene): void {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      const image = this.niivue.volumes[1];
      if (image) {
        image.cal_min = leastOf(scene);
        image.opacity = scene.overlay.opacity;
        this.niivue.updateGLVolume();
      }
    });
  }

  private step(event: KeyboardEvent): void {
    const step = STEP_KEYS[event.key];
    if (step && this.base) {
      event.preventDefault();
      this.niivue.moveCrosshairInVox(...step);
    }
  }
}

function nameOf(direction: Direction): string {
  return `towards ${direction}`;
}

/** A threshold of 0 still hides what speaks for the other diagnosis. */
function leastOf({ cam, overlay }: Scene): number {
  return Math.max(overlay.threshold, 1e-3) * cam!.max;
}

function imageOf(
  volume: Volume,
  name: string,
  colormap: string,
  opacity: number,
  [cal_min, cal_max]: readonly [number, number],
): Promise<NVImage> {
  const file = new File([writeNifti(volume)], name);
  return NVImage.loadFromFile({ file, name, colormap, opacity, cal_min, cal_max });
}
