/** Perceptually uniform colours of the map: inferno for AD, viridis for CN, without their darkest third. */

import type { MapName } from "../messages";

/** Of the z-map, AD stands for low uptake and CN for high. */
export type Direction = "AD" | "CN";

export interface Overlay {
  map: MapName;
  direction: Direction;
  opacity: number;
  /** Share of the scale's end below which nothing is painted. */
  threshold: number;
}

const STOPS = {
  AD: ["771c6d", "982766", "ba3655", "d74b3f", "ed6925", "f98c0a", "fbb61a", "f4df53", "fcffa4"].map(rgb),
  CN: ["355f8d", "2b758e", "238a8d", "1fa088", "2fb47c", "56c667", "8bd646", "c5e021", "fde725"].map(rgb),
};
const TABLES = { AD: tableOf(STOPS.AD), CN: tableOf(STOPS.CN) };

/** Return the colour of a share, 0 to 1, of the scale's end. */
export function colourOf(direction: Direction, share: number): number[] {
  return TABLES[direction][Math.round(255 * Math.min(Math.max(share, 0), 1))]!;
}

/** Return the same colours in the form that NiiVue takes. */
export function lookupTable(direction: Direction) {
  const stops = STOPS[direction];
  return {
    R: stops.map((stop) => stop[0]!),
    G: stops.map((stop) => stop[1]!),
    B: stops.map((stop) => stop[2]!),
    // Values of 0 and less get the first colour, whatever the least value is.
    A: stops.map((_, n) => (n ? 255 : 0)),
    I: stops.map((_, n) => Math.round((255 * n) / (stops.length - 1))),
  };
}

export function gradient(direction: Direction): string {
  return `linear-gradient(to right, ${STOPS[direction].map((stop) => `rgb(${stop.join(" ")})`).join(", ")})`;
}

function rgb(hex: string): number[] {
  return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function tableOf(stops: readonly number[][]): number[][] {
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (stops.length - 1);
    const [below, above] = [stops[Math.floor(place)]!, stops[Math.ceil(place)]!];
    return below.map((value, n) => value + (place % 1) * (above[n]! - value));
  });
}
