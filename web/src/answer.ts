/** What is answered for a scan, with the keys that `adpet predict --json` and the HTTP service give. */

import type { CheckRow, RegionRow } from "./imaging";

export interface SliceAnswer {
  /** MNI y in mm. */
  y_mm: number;
  probability_of_ad: number;
}

export interface Answer {
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

/** One simulated scans that the build has chosen. */
export interface Example {
  kind: string;
  title: string;
  diagnosis: string;
  severity: number;
  subject: string;
  file: string;
}
