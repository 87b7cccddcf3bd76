/** What is answered for a scan, with the keys that `adpet predict --json` and the HTTP service give. */

export type Verdict = "ok" | "flagged" | "refused";

export interface SliceAnswer {
  /** MNI y in mm. */
  y_mm: number;
  probability_of_ad: number;
}

export interface RegionAnswer {
  name: string;
  /** Ratio to the reference region. */
  uptake: number;
  /** In standard deviations of the CN training scans. */
  z: number;
  /** Share of the positive map in the brain. */
  cam_share: number;
  ad_pattern: boolean;
}

export interface CheckAnswer {
  name: string;
  value: number;
  verdict: Verdict;
  reason: string;
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
  regions: RegionAnswer[];
  checks: CheckAnswer[];
}

/** One phantom scan that the build has chosen. */
export interface Example {
  kind: string;
  title: string;
  diagnosis: string;
  severity: number;
  subject: string;
  file: string;
}
