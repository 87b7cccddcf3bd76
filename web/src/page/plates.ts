/** Maps next to each other: sections on plain canvases, which are also printed. */

import type { Vector } from "../imaging";
import type { Answer } from "../messages";
import type { ModelDocument } from "../model.generated";
import { gradient, type Overlay } from "./colours";
import { SIDES } from "./controls";
import { element, percent, signed } from "./dom";
import { paintSection, type Scene } from "./sections";
import { unusualIn } from "./tables";

const PIXEL_MM = 1;
const NAMED = 5;

export interface Plate {
  title: string;
  answer: Answer;
  scene: Scene;
}

/** Show sections of each scan in MNI space, in the viewer's order. */
export function showPlates(place: HTMLElement, plates: Plate[], at: Vector, model: ModelDocument): void {
  const where = at.map((mm) => signed(mm, 0)).join(", ");
  const figures = plates.map(({ title, answer, scene }) => {
    const label = `${title}: coronal, sagittal and axial section at ${where} mm. ${inWords(answer, scene.overlay)}`;
    const canvases = ([1, 0, 2] as const).map((axis) => {
      const canvas = element("canvas");
      paintSection(canvas, scene, axis, at, PIXEL_MM);
      canvas.style.flexGrow = String(canvas.width / canvas.height);
      return canvas;
    });
    const bar = element("span", "scale-bar");
    bar.style.backgroundImage = gradient(scene.overlay.direction);
    const sections = element("div", { class: "plate", role: "img", "aria-label": label }, ...canvases);
    const legend = [element("strong", {}, title), bar, legendOf(scene.overlay, model)];
    return element("figure", {}, sections, element("figcaption", {}, ...legend));
  });
  place.replaceChildren(...figures);
}

/** Write what a map's colours mean. */
export function legendOf({ map, direction, threshold }: Overlay, { maps }: ModelDocument): string {
  const { limit, unit } = maps[map]!;
  const least = Number((threshold * limit).toPrecision(2));
  return `${SIDES[map][direction]}, shown from ${least} to ${limit} ${unit}, the same scale for every scan`;
}

function inWords(answer: Answer, { map }: Overlay): string {
  if (map === "z") return unusualIn(answer);
  const most = [...answer.regions].sort((a, b) => b.cam_share - a.cam_share).slice(0, NAMED);
  const shares = most.map(({ name, cam_share }) => `${name} (${percent(cam_share)})`);
  return `Most of what speaks for AD lies in: ${shares.join(", ")}.`;
}
