/** Types of `model.json`, which adpet.contracts explains; written by scripts/page_types.py. */

export interface Aggregation {
  method: "mean_probability" | "mean_logit" | "position_weights";
  weights: number[] | null;
  slope: number;
  intercept: number;
}
export type Calibration = { bins: CalibrationBin[]; prevalence: number };
export interface CalibrationBin {
  low: number;
  high: number;
  subjects: number;
  ad_share: number;
  ad_share_low: number;
  ad_share_high: number;
}
export type Estimate = { value: number; low: number; high: number };
export type MapScale = { title: string; unit: string; limit: number; shown_from: number };
export type ModelLineage = { id: string };
export type Network = { file: string; input_size: number; map_size: [number, number] };
export type Norms = { scans: number; ages: [number, number, number] | null; smoothing_mm: number };
export interface OutOfFold {
  prevalence: number;
  coverage: number;
  coverages: number[];
  quantiles: Record<string, number[]>;
}
export type Performance = { auc: Estimate; test_subjects: number };
export type Profile = { mean: number[]; precision: number[][] };
export interface QualityLimit {
  name: string;
  text: string;
  low_means: string;
  high_means: string;
  flag_below: number | null;
  flag_above: number | null;
  refuse_below: number | null;
  refuse_above: number | null;
  median: number;
  low: number;
  high: number;
}
export interface Region {
  label: number;
  name: string;
  ad_pattern: boolean;
  cn_mean: number;
  cn_slope: number;
  cn_sd: number;
}
export interface Slices {
  y_mm: number[];
  size: number;
  field_mm: number;
  centre_z_mm: number;
  neighbours_mm: number;
  window: [number, number];
}
export interface StandardSpace {
  grid_mm: number;
  shape: [number, number, number];
  affine: number[][];
  align: "affine" | "none";
  smoothing_mm: number;
  target_fwhm_mm: number | null;
  native_fwhm_mm: Record<string, number>;
  reference: string;
  min_similarity: number;
  frames_minutes: [number, number];
}
export interface Registration {
  max_voxels: number;
  shortest_step_mm: number;
  most_steps: number;
  damping: number;
  eased: number;
  tightened: number;
  damping_range: [number, number];
  fewest_seen: number;
  blur_fwhm_mm: number;
  local_sigma_mm: number;
  air: number;
  margin_mm: number;
  guess_degrees: [number, number, number];
  guess_shifts_mm: [number, number, number, number, number];
  guess_spacing_mm: number;
  rigid_levels: { step: number; blur: number; every: number }[];
  affine_levels: { step: number; blur: number; every: number }[];
  wholly_seen: number;
  min_seen: number;
  similarity_sigma: number;
  convincing: number;
  stretch: [number, number];
}
export interface ModelDocument {
  format: 3;
  name: string;
  lineage: ModelLineage;
  adpet_version: string;
  intended_use: string;
  labels: string[];
  network: Network;
  files: Record<string, string>;
  standard: StandardSpace;
  registration: Registration;
  slices: Slices;
  aggregation: Aggregation;
  out_of_fold: OutOfFold | null;
  threshold: number;
  calibration: Calibration;
  performance: Performance;
  leaky: boolean;
  regions: Region[];
  norms: Norms;
  maps: Record<string, MapScale>;
  profile: Profile;
  quality: QualityLimit[];
}
