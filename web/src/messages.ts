/** What the page asks of the worker, and what the worker reports; reports of one scan carry its number. */

import type { CheckRow, Interpretation, RegionRow, Sidecar, Unusual, Volume } from "./imaging";

export interface SliceAnswer {
  /** MNI y in mm. */
  y_mm: number;
  probability_of_ad: number;
  /** Part of the calibrated log-odds of AD. */
  contribution: number;
}

export type MapName = "cam" | "z";

/** What depends on the person's age; `age` is null if none was given. */
export interface Comparison {
  age: number | null;
  compared_at_age: number | null;
  unusual: Unusual[];
  regions: RegionRow[];
}

/** Answer for a scan, with the keys of `adpet predict --json` and of the HTTP service. */
export interface Answer extends Interpretation, Comparison {
  scan: string;
  model: string;
  lineage: string;
  leaky: boolean;
  probability_of_ad: number;
  /** By networks that were each trained without a part of the training subjects. */
  probability_by_fold: number[];
  threshold: number;
  meaning: string;
  slices: SliceAnswer[];
  similarity_to_template: number;
  /** Standard world mm -> scan world mm. */
  matrix: number[][];
  checks: CheckRow[];
}

/** A scan to answer for; or, without one, another age for the scan that was answered for. */
export interface Request {
  scan: number;
  age: number | null;
  file?: ScanFile;
}

export interface ScanFile {
  name: string;
  files: ArrayBuffer[];
  sidecar?: Sidecar;
}

/** A map and its NIfTI file. */
export interface MapResult {
  picture: Volume;
  file: Uint8Array<ArrayBuffer>;
}

export type Step = "model" | "reading" | "aligning" | "turning" | "scoring";

/** One slice's result: `map` is AD minus CN, in units of the logit. */
export interface Scored {
  probability: number;
  /** Of networks that were trained without a fold each. */
  folds: number[];
  map: Float32Array<ArrayBuffer>;
  mapShape: readonly [number, number];
}

export type Finding =
  | { kind: "progress"; step: Step; done: number }
  | { kind: "original"; picture: Volume }
  | { kind: "standard"; picture: Volume; matrix: number[][]; checks: CheckRow[] }
  | { kind: "slices"; pixels: Uint8Array; size: number; yMm: number[] }
  | ({ kind: "slice"; index: number } & Scored)
  | { kind: "answer"; answer: Answer; cam: MapResult; z: MapResult }
  | { kind: "compared"; comparison: Comparison; z: MapResult }
  | { kind: "refused"; sentence: string };
export type Report = Finding & { scan: number };
export type Of<Kind extends Finding["kind"]> = Extract<Finding, { kind: Kind }>;
