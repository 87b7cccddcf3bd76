/** What is known of the scan that is shown. */

import type { Answer, SliceAnswer } from "../answer";
import type { CheckRow } from "../imaging";
import { apply, inverse, product } from "../imaging/matrix";
import type { Picture, Report } from "../messages";
import type { Overlay } from "./colours";
import type { CamPicture, Point, Scene } from "./sections";

export type Space = "standard" | "original";

/** Of uptake that is no ratio, the share of the brightest voxels that are drawn white. */
const WHITE_SHARE = 0.005;

export interface Shown {
  name: string;
  space: Space;
  original?: Picture;
  originalWindow?: readonly [number, number];
  standard?: Picture;
  /** Standard world mm -> scan world mm. */
  matrix?: number[][];
  checks: CheckRow[];
  slices?: Extract<Report, { kind: "slices" }>;
  scored: SliceAnswer[];
  cam?: CamPicture;
  camFile?: Uint8Array<ArrayBuffer>;
  answer?: Answer;
}

export function begun(name: string): Shown {
  return { name, space: "standard", checks: [], scored: [] };
}

/** Return what the viewer shows: the scan on the standard grid as soon as it is there, or as it came. */
export function sceneOf(
  shown: Shown,
  overlay: Overlay,
  ratioWindow: readonly [number, number],
): Scene | undefined {
  const { original, originalWindow, standard, cam, matrix } = shown;
  if (shown.space === "standard" && standard) {
    return { base: standard, window: ratioWindow, cam, overlay };
  }
  return original && { base: original, window: originalWindow!, cam: cam && moved(cam, matrix!), overlay };
}

/** Return where a place of MNI space lies in the space that is shown, in world mm. */
export function fromStandard({ space, matrix }: Shown, point: Point): Point {
  return space === "original" && matrix ? apply(matrix, point) : point;
}

/** Return where a place of the space that is shown lies in MNI space. */
export function toStandard({ space, matrix }: Shown, point: Point): Point {
  return space === "original" && matrix ? apply(inverse(matrix), point) : point;
}

/** Return the window in which uptake of any unit is drawn. */
export function windowOf(data: Float32Array): readonly [number, number] {
  const step = Math.max(1, Math.floor(data.length / 100_000));
  const some = data.filter((_, index) => index % step === 0).sort();
  const white = some[Math.floor((1 - WHITE_SHARE) * (some.length - 1))]!;
  return white > 0 ? [0, white] : [some[0]!, Math.max(some.at(-1)!, some[0]! + 1)];
}

const movedPictures = new WeakMap<Picture, CamPicture>();

/** Return the map where the scan lies: the same voxels under another affine, the same object each time. */
function moved(cam: CamPicture, matrix: number[][]): CamPicture {
  const known = movedPictures.get(cam.picture);
  if (known) {
    return known;
  }
  const affine = product(matrix, cam.picture.affine);
  const made = { ...cam, picture: { ...cam.picture, affine } };
  movedPictures.set(cam.picture, made);
  return made;
}
