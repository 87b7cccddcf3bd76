/** What the page asks of the worker, and what the worker reports; reports of one scan carry its number. */

import type { CheckRow, Interpretation, RegionRow, Sidecar, Volume } from "./imaging";

export interface SliceAnswer {
  /** MNI y in mm. */
  y_mm: number;
  probability_of_ad: number;
}

/** Answer for a scan, with the keys of `adpet predict --json` and of the HTTP service. */
export interface Answer extends Interpretation {
  scan: string;
  model: string;
  lineage: string;
  leaky: boolean;
  probability_of_ad: number;
  threshold: number;
  meaning: string;
  slices: SliceAnswer[];
  similarity_to_template: number;
  /** Standard world mm -> scan world mm. */
  matrix: number[][];
  regions: RegionRow[];
  checks: CheckRow[];
}

export interface Request {
  scan: number;
  name: string;
  files: ArrayBuffer[];
  sidecar?: Sidecar;
}

export type Step = "model" | "reading" | "aligning" | "scoring";

/** One slice's result: `map` is AD minus CN, in units of the logit. */
export interface Scored {
  probability: number;
  map: Float32Array<ArrayBuffer>;
  mapShape: readonly [number, number];
}

export type Finding =
  | { kind: "progress"; step: Step; done: number }
  | { kind: "original"; picture: Volume }
  | { kind: "standard"; picture: Volume; matrix: number[][]; checks: CheckRow[] }
  | { kind: "slices"; pixels: Uint8Array; size: number; yMm: number[] }
  | ({ kind: "slice"; index: number } & Scored)
  | { kind: "answer"; answer: Answer; cam: Volume; camMax: number; camFile: Uint8Array<ArrayBuffer> }
  | { kind: "refused"; sentence: string };
export type Report = Finding & { scan: number };
export type Of<Kind extends Finding["kind"]> = Extract<Finding, { kind: Kind }>;
