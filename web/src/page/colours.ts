/** Perceptually uniform colours of the map: inferno for AD, viridis for CN, without their darkest third. */

export type Direction = "AD" | "CN";

type Colour = readonly [number, number, number];

export const STOPS: Record<Direction, readonly Colour[]> = {
  AD: [
    [119, 28, 109],
    [152, 39, 102],
    [186, 54, 85],
    [215, 75, 63],
    [237, 105, 37],
    [249, 140, 10],
    [251, 182, 26],
    [244, 223, 83],
    [252, 255, 164],
  ],
  CN: [
    [53, 95, 141],
    [43, 117, 142],
    [35, 138, 141],
    [31, 160, 136],
    [47, 180, 124],
    [86, 198, 103],
    [139, 214, 70],
    [197, 224, 33],
    [253, 231, 37],
  ],
};

/** What of the map is shown, and how. */
export interface Overlay {
  direction: Direction;
  /** 0 to 1. */
  opacity: number;
  /** Share of the map's largest value below which nothing is painted. */
  threshold: number;
}

const TABLES = { AD: tableOf(STOPS.AD), CN: tableOf(STOPS.CN) };

/** Return the colour of a share, 0 to 1, of the map's largest value. */
export function colourOf(direction: Direction, share: number): Colour {
  return TABLES[direction][Math.round(255 * Math.min(Math.max(share, 0), 1))]!;
}

function tableOf(stops: readonly Colour[]): Colour[] {
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (stops.length - 1);
    const below = stops[Math.floor(place)]!;
    const above = stops[Math.ceil(place)]!;
    return [0, 1, 2].map((n) => below[n]! + (place % 1) * (above[n]! - below[n]!)) as unknown as Colour;
  });
}

/** The same colours in the form that NiiVue takes. */
export function lookupTable(direction: Direction) {
  const stops = STOPS[direction];
  return {
    R: stops.map((stop) => stop[0]),
    G: stops.map((stop) => stop[1]),
    B: stops.map((stop) => stop[2]),
    // Values of 0 and less get the first colour, whatever the least value is.
    A: stops.map((_, n) => (n ? 255 : 0)),
    I: stops.map((_, n) => Math.round((255 * n) / (stops.length - 1))),
  };
}

/** Return a CSS gradient of the colours. */
export function gradient(direction: Direction): string {
  return `linear-gradient(to right, ${STOPS[direction].map((stop) => `rgb(${stop.join(" ")})`).join(", ")})`;
}
