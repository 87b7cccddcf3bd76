/** Types of `model.json`, written by scripts/page_types.py from adpet.contracts: do not edit. */

/** From slices to a scan. */
export interface Aggregation {
  method: "mean_probability" | "mean_logit" | "position_weights";
  /** Of each plane, for position_weights. */
  weights: number[] | null;
}
/** Share of AD among test subjects, by probability. */
export type Calibration = { bins: CalibrationBin[]; prevalence: number };
/** Test subjects whose probability lies between two edges. */
export interface CalibrationBin {
  low: number;
  high: number;
  subjects: number;
  ad_share: number;
  /** Lower end of the exact 95 % interval. */
  ad_share_low: number;
  /** Upper end of the exact 95 % interval. */
  ad_share_high: number;
}
/** A value with its 95 % confidence interval. */
export type Estimate = { value: number; low: number; high: number };
/** Pyramid level: subsampling and blur, in voxels. */
export type Level = { step: number; blur: number; every: number };
/** Lineage of an exported model; inference needs the id alone. */
export type ModelLineage = { id: string };
/** The ONNX file, and the sizes of its input and of its maps in pixels. */
export type Network = { file: string; input_size: number; map_size: [number, number] };
/** What the model reached on the test subjects. */
export type Performance = { auc: Estimate; test_subjects: number };
/** Regional SUVR of the training scans, in the order of the regions. */
export interface Profile {
  mean: number[];
  /** Inverse covariance, (regions, regions). */
  precision: number[][];
}
/** Range of a quality measure in the training scans, and the limits that follow. */
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
/** A region of the atlas, and its SUVR in CN training subjects. */
export interface Region {
  label: number;
  name: string;
  /** True if AD lowers uptake here first. */
  ad_pattern: boolean;
  cn_mean: number;
  cn_sd: number;
}
/** Constants of `adpet.imaging`'s registration, which explains each. */
export interface Registration {
  max_voxels: number;
  blur_fwhm_mm: number;
  local_sigma_mm: number;
  air: number;
  margin_mm: number;
  guess_degrees: number[];
  guess_shifts_mm: number[];
  guess_spacing_mm: number;
  rigid_levels: Level[];
  affine_levels: Level[];
  wholly_seen: number;
  min_seen: number;
  similarity_sigma: number;
  convincing: number;
  stretch: [number, number];
  shortest_step_mm: number;
  most_steps: number;
  damping: number;
  eased: number;
  tightened: number;
  damping_range: [number, number];
  fewest_seen: number;
}
/** Coronal planes that the network is given. */
export interface Slices {
  /** MNI y of each plane, ascending, equally spaced. */
  y_mm: number[];
  /** Pixels along each side. */
  size: number;
  /** Edge of a plane. */
  field_mm: number;
  centre_z_mm: number;
  /** SUVR that become byte 0 and byte 255. */
  window: [number, number];
}
/** Template space that scans are normalized to. */
export interface StandardSpace {
  grid_mm: number;
  shape: [number, number, number];
  /** Voxel indices to MNI mm, (4, 4). */
  affine: number[][];
  align: "affine" | "none";
  /** FWHM of the Gaussian; 0 is none. */
  smoothing_mm: number;
  /** Name of the reference region. */
  reference: string;
  min_similarity: number;
}
/** `model.json` of an exported model: all constants that predictions need. */
export interface ModelDocument {
  format: 1;
  name: string;
  lineage: ModelLineage;
  adpet_version: string;
  intended_use: string;
  labels: string[];
  network: Network;
  /** SHA-256 of each file of the folder, by name. */
  files: Record<string, string>;
  standard: StandardSpace;
  registration: Registration;
  slices: Slices;
  aggregation: Aggregation;
  /** Probability from which a scan is called AD. */
  threshold: number;
  calibration: Calibration;
  performance: Performance;
  /** True if a subject is in training and test. */
  leaky: boolean;
  regions: Region[];
  profile: Profile;
  quality: QualityLimit[];
}
