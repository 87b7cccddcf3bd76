/** What the page asks of the worker, and what the worker reports; reports of one scan carry its number. */

import type { Answer } from "./answer";
import type { CheckRow } from "./imaging";

/** A volume to be seen: voxels in C order, axes i, j, k; voxel indices -> RAS+ mm. */
export interface Picture {
  data: Float32Array<ArrayBuffer>;
  shape: readonly [number, number, number];
  affine: number[][];
}

export interface Request {
  scan: number;
  name: string;
  bytes: ArrayBuffer;
}

export type Step = "model" | "reading" | "aligning" | "scoring";

export type Report =
  | { kind: "progress"; scan: number; step: Step; done: number }
  | { kind: "original"; scan: number; picture: Picture }
  | { kind: "standard"; scan: number; picture: Picture; matrix: number[][]; checks: CheckRow[] }
  | { kind: "slices"; scan: number; pixels: Uint8Array<ArrayBuffer>; size: number; yMm: number[] }
  | {
      kind: "slice";
      scan: number;
      index: number;
      probability: number;
      map: Float32Array<ArrayBuffer>;
      mapShape: readonly [number, number];
    }
  | {
      kind: "answer";
      scan: number;
      answer: Answer;
      cam: Picture;
      camMax: number;
      camFile: Uint8Array<ArrayBuffer>;
    }
  | { kind: "refused"; scan: number; sentence: string };
