/** Maps next to each other: sections on plain canvases, which are also printed. */

import type { Vector } from "../imaging";
import type { Answer, MapName } from "../messages";
import type { ModelDocument } from "../model.generated";
import { gradient, type Overlay } from "./colours";
import { SIDES } from "./controls";
import { element, percent, signed } from "./dom";
import { paintSection, type Axis, type Scene } from "./sections";

const PIXEL_MM = 1;
/** As the viewer has them. */
const AXES: readonly Axis[] = [1, 0, 2];
const NAMED = 5;

export interface Plate {
  title: string;
  answer: Answer;
  scene: Scene;
}

/** Show each scan's sections at a place of MNI space. */
export function showPlates(
  place: HTMLElement,
  plates: readonly Plate[],
  at: Vector,
  model: ModelDocument,
): void {
  const where = `at x, y, z = ${at.map((mm) => signed(mm, 0)).join(", ")} mm`;
  const figures = plates.map(({ title, answer, scene }) => {
    const { overlay } = scene;
    const most = strongest(answer, overlay.map);
    const label = `${title}: coronal, sagittal and axial section ${where}. ${most}`;
    const canvases = AXES.map((axis) => {
      const canvas = element("canvas");
      paintSection(canvas, scene, axis, at, PIXEL_MM);
      // The sections of one brain get one height.
      canvas.style.flexGrow = String(canvas.width / canvas.height);
      return canvas;
    });
    const bar = element("span", "scale-bar");
    bar.style.backgroundImage = gradient(overlay.direction);
    return element(
      "figure",
      {},
      element("div", { class: "plate", role: "img", "aria-label": label }, ...canvases),
      element("figcaption", {}, element("strong", {}, title), bar, legendOf(overlay, model)),
    );
  });
  place.replaceChildren(...figures);
}

/** Write what a map's colours mean. */
export function legendOf({ map, direction, threshold }: Overlay, { maps }: ModelDocument): string {
  const { limit, unit } = maps[map]!;
  const least = Number((threshold * limit).toPrecision(2));
  return `${SIDES[map][direction]}, shown from ${least} to ${limit} ${unit}, the same scale for every scan`;
}

function strongest({ regions, unusual }: Answer, map: MapName): string {
  if (map === "z") {
    return `Unusual regions, with z: ${unusual.map(({ name, z }) => `${name} ${signed(z, 1)}`).join(", ") || "none"}.`;
  }
  const most = [...regions].sort((a, b) => b.cam_share - a.cam_share).slice(0, NAMED);
  return `Most of what speaks for AD lies in: ${most.map(({ name, cam_share }) => `${name} ${percent(cam_share)}`).join(", ")}.`;
}
