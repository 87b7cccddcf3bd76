/** What is known of the scan that is shown. */

import { apply, type CheckRow, inverse, product, type Vector, type Volume } from "../imaging";
import type { Answer, MapName, MapResult, Of } from "../messages";
import type { ModelDocument } from "../model.generated";
import type { Overlay } from "./colours";
import type { Space } from "./controls";
import type { CamPicture, Scene } from "./sections";

/** Of uptake that is no ratio, the share of the brightest voxels that are drawn white. */
const WHITE_SHARE = 0.005;

export interface Shown {
  name: string;
  space: Space;
  original?: Volume;
  originalWindow?: readonly [number, number];
  standard?: Volume;
  /** Standard world mm -> scan world mm. */
  matrix?: number[][];
  checks: CheckRow[];
  slices?: Of<"slices">;
  maps: Partial<Record<MapName, ShownMap>>;
  answer?: Answer;
}

/** A map in both spaces: the same voxels under two affines. */
interface ShownMap {
  standard: CamPicture;
  original: CamPicture;
  file: Uint8Array<ArrayBuffer>;
}

/** Return a map as it is drawn; low uptake has the colours of AD. */
export function shownMap(
  name: MapName,
  { picture, file }: MapResult,
  matrix: number[][],
  { maps }: ModelDocument,
): ShownMap {
  const data = name === "z" ? picture.data.map((value) => -value) : picture.data;
  const standard = { picture: { ...picture, data }, max: maps[name]!.limit };
  return { standard, original: moved(standard, matrix), file };
}

/** Return what the viewer shows: the scan on the standard grid as soon as it is there, or as it came. */
export function sceneOf(
  { space, original, originalWindow, standard, maps }: Shown,
  overlay: Overlay,
  ratioWindow: readonly [number, number],
): Scene | undefined {
  const map = maps[overlay.map];
  if (space === "standard" && standard) {
    return { base: standard, window: ratioWindow, cam: map?.standard, overlay };
  }
  return original && { base: original, window: originalWindow!, cam: map?.original, overlay };
}

function moved(cam: CamPicture, matrix: number[][]): CamPicture {
  return { ...cam, picture: { ...cam.picture, affine: product(matrix, cam.picture.affine) } };
}

/** Return where a place of MNI space lies in the space that is shown, in world mm. */
export function fromStandard({ space, matrix }: Shown, point: Vector): Vector {
  return space === "original" && matrix ? apply(matrix, point) : point;
}

/** Return where a place of the space that is shown lies in MNI space. */
export function toStandard({ space, matrix }: Shown, point: Vector): Vector {
  return space === "original" && matrix ? apply(inverse(matrix), point) : point;
}

/** Return the window in which uptake of any unit is drawn. */
export function windowOf(data: Float32Array): readonly [number, number] {
  const step = Math.max(1, Math.floor(data.length / 100_000));
  const some = data.filter((_, index) => index % step === 0).sort();
  const white = some[Math.floor((1 - WHITE_SHARE) * (some.length - 1))]!;
  return white > 0 ? [0, white] : [some[0]!, Math.max(some.at(-1)!, some[0]! + 1)];
}
