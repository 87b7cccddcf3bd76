/** Sections through volumes in world millimetres, painted on plain canvases: no WebGL is needed. */

import { apply, inverse } from "../imaging/matrix";
import { sample } from "../imaging/sampling";
import type { Picture } from "../messages";
import { colourOf, type Overlay } from "./colours";

export type Axis = 0 | 1 | 2;
export type Point = readonly [number, number, number];
export type Bounds = readonly [Point, Point];

/** The map beside its largest absolute value, to which its colours are scaled. */
export interface CamPicture {
  picture: Picture;
  max: number;
}

/** What a section shows. */
export interface Scene {
  base: Picture;
  /** Values that are drawn black and white. */
  window: readonly [number, number];
  cam?: CamPicture | undefined;
  overlay: Overlay;
}

/** For each axis that a section is across: the world axes that run right and up in it. */
const ACROSS: Record<Axis, readonly [Axis, Axis]> = { 0: [1, 2], 1: [0, 2], 2: [0, 1] };

/** Return the smallest box in world mm that holds all voxel centres. */
export function boundsOf({ shape, affine }: Picture): Bounds {
  const low: [number, number, number] = [Infinity, Infinity, Infinity];
  const high: [number, number, number] = [-Infinity, -Infinity, -Infinity];
  for (let corner = 0; corner < 8; corner++) {
    const index = [0, 1, 2].map((n) => ((corner >> n) & 1) * (shape[n]! - 1));
    for (const axis of [0, 1, 2] as const) {
      const row = affine[axis]!;
      const place = row[0]! * index[0]! + row[1]! * index[1]! + row[2]! * index[2]! + row[3]!;
      low[axis] = Math.min(low[axis], place);
      high[axis] = Math.max(high[axis], place);
    }
  }
  return [low, high];
}

export function middleOf(picture: Picture): Point {
  const [low, high] = boundsOf(picture);
  return [0, 1, 2].map((n) => (low[n]! + high[n]!) / 2) as unknown as Point;
}

/** Paint the section across `axis` at `at` on a canvas, one pixel a `pixelMm`; the patient's left is left. */
export function paintSection(
  canvas: HTMLCanvasElement,
  scene: Scene,
  axis: Axis,
  at: Point,
  pixelMm: number,
): void {
  const [low, high] = boundsOf(scene.base);
  const [right, up] = ACROSS[axis];
  const width = Math.max(1, Math.round((high[right] - low[right]) / pixelMm));
  const height = Math.max(1, Math.round((high[up] - low[up]) / pixelMm));
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(width, height);
  const base = sampler(scene.base);
  const cam = scene.cam && sampler(scene.cam.picture);
  const [black, white] = scene.window;
  const point: [number, number, number] = [at[0], at[1], at[2]];
  for (let row = 0; row < height; row++) {
    point[up] = high[up] - (row + 0.5) * pixelMm;
    for (let column = 0; column < width; column++) {
      point[right] = low[right] + (column + 0.5) * pixelMm;
      const grey = Math.min(Math.max((255 * (base(point) - black)) / (white - black), 0), 255);
      const value = cam ? cam(point) / scene.cam!.max : 0;
      paintPixel(image.data, 4 * (row * width + column), grey, value, scene.overlay);
    }
  }
  context.putImageData(image, 0, 0);
}

/** Write one pixel: grey, with the map's colour over it where the map passes the threshold. */
export function paintPixel(
  pixels: Uint8ClampedArray,
  place: number,
  grey: number,
  camShare: number,
  overlay: Overlay,
): void {
  const share = overlay.direction === "AD" ? camShare : -camShare;
  const opacity = share > 0 && share >= overlay.threshold ? overlay.opacity : 0;
  const colour = opacity > 0 ? colourOf(overlay.direction, share) : [0, 0, 0];
  for (let channel = 0; channel < 3; channel++) {
    pixels[place + channel] = grey + opacity * (colour[channel]! - grey);
  }
  pixels[place + 3] = 255;
}

/** Return a function that samples a volume linearly at a point in world mm; 0 outside. */
function sampler({ data, shape, affine }: Picture): (point: Point) => number {
  const toIndex = inverse(affine);
  return (point) => sample(data, shape, ...apply(toIndex, point));
}
