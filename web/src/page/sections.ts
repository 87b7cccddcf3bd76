/** Sections through volumes in world millimetres, painted on plain canvases: no WebGL is needed. */

import { apply, boundsOf, inverse, sample, type Vector, type Volume } from "../imaging";
import { colourOf, type Overlay } from "./colours";

export type Axis = 0 | 1 | 2;

/** Map and the end of its scale, the same for every scan. */
export interface CamPicture {
  picture: Volume;
  max: number;
}

export interface Scene {
  base: Volume;
  /** Values that are drawn black and white. */
  window: readonly [number, number];
  cam?: CamPicture | undefined;
  overlay: Overlay;
}

export function sidesOf(axis: Axis): readonly [string, string] {
  return axis === 0 ? ["P", "A"] : ["L", "R"];
}

/** Paint the section across `axis` at `at` on a canvas, one pixel a `pixelMm`; the patient's left is left. */
export function paintSection(
  canvas: HTMLCanvasElement,
  { base, window: [black, white], cam, overlay }: Scene,
  axis: Axis,
  at: Vector,
  pixelMm: number,
): void {
  const [low, high] = boundsOf(base);
  const [right, up] = ([0, 1, 2] as const).filter((other) => other !== axis) as [Axis, Axis];
  const pixels = (side: Axis) => Math.max(1, Math.round((high[side] - low[side]) / pixelMm));
  const [width, height] = [pixels(right), pixels(up)];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(width, height);
  const baseAt = sampler(base);
  const camAt = cam && sampler(cam.picture);
  const point: Vector = [...at];
  for (let row = 0; row < height; row++) {
    point[up] = high[up] - (row + 0.5) * pixelMm;
    for (let column = 0; column < width; column++) {
      point[right] = low[right] + (column + 0.5) * pixelMm;
      const grey = Math.min(Math.max((255 * (baseAt(point) - black)) / (white - black), 0), 255);
      const share = camAt ? camAt(point) / cam.max : 0;
      paintPixel(image.data, 4 * (row * width + column), grey, share, overlay);
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
  { direction, opacity, threshold }: Overlay,
): void {
  const share = direction === "AD" ? camShare : -camShare;
  const shown = share > 0 && share >= threshold ? opacity : 0;
  const colour = colourOf(direction, share);
  for (let channel = 0; channel < 3; channel++) {
    pixels[place + channel] = grey + shown * (colour[channel]! - grey);
  }
  pixels[place + 3] = 255;
}

/** Return a function that samples a volume linearly at a point in world mm; 0 outside. */
function sampler({ data, shape, affine }: Volume): (point: Vector) => number {
  const toIndex = inverse(affine);
  return (point) => sample(data, shape, ...apply(toIndex, point));
}
