/** The exported model's constants, as `model.json` has them, and the images that stand beside it. */

import { InputError } from "./errors";
import type { Mask } from "./morphology";
import { readNifti } from "./reading";
import type { Matrix4, Shape, Volume } from "./volume";

/** A resolution that images are compared at. */
export interface Level {
  readonly step: number;
  readonly blur: number;
  readonly every: number;
}

/** The constants of `adpet.imaging.align` and `climbing`, which say what they are. */
export interface RegistrationConstants {
  readonly blur_fwhm_mm: number;
  readonly local_sigma_mm: number;
  readonly air: number;
  readonly margin_mm: number;
  readonly guess_degrees: readonly number[];
  readonly guess_shifts_mm: readonly number[];
  readonly guess_spacing_mm: number;
  readonly rigid_levels: readonly Level[];
  readonly affine_levels: readonly Level[];
  readonly wholly_seen: number;
  readonly min_seen: number;
  readonly similarity_sigma: number;
  readonly convincing: number;
  readonly stretch: readonly [number, number];
  readonly shortest_step_mm: number;
  readonly most_steps: number;
  readonly damping: number;
  readonly eased: number;
  readonly tightened: number;
  readonly damping_range: readonly [number, number];
  readonly fewest_seen: number;
}

export interface StandardConstants {
  readonly grid_mm: number;
  readonly shape: Shape;
  readonly affine: Matrix4;
  readonly align: "affine" | "none";
  /** FWHM of the blur; 0 is none. */
  readonly smoothing_mm: number;
  readonly reference: string;
  readonly min_similarity: number;
}

export interface SliceConstants {
  /** World y of each plane, ascending, equally spaced. */
  readonly y_mm: readonly number[];
  /** Pixels along each side of a plane. */
  readonly size: number;
  /** Edge of a plane in mm. */
  readonly field_mm: number;
  readonly centre_z_mm: number;
  /** Ratios that become byte 0 and byte 255. */
  readonly window: readonly [number, number];
}

export interface RegionConstants {
  readonly label: number;
  readonly name: string;
  readonly ad_pattern: boolean;
  readonly cn_mean: number;
  readonly cn_sd: number;
}

/** The range of a quality measure in the training scans, and the limits that follow from it. */
export interface QualityConstants {
  readonly name: string;
  readonly text: string;
  readonly low_means: string;
  readonly high_means: string;
  readonly flag_below: number | null;
  readonly flag_above: number | null;
  readonly refuse_below: number | null;
  readonly refuse_above: number | null;
  readonly median: number;
  readonly low: number;
  readonly high: number;
}

/** Regional uptake of the training scans, in the order of `regions`. */
export interface ProfileConstants {
  readonly mean: readonly number[];
  readonly precision: readonly (readonly number[])[];
}

/** `model.json`. */
export interface ModelConstants {
  readonly format: number;
  readonly name: string;
  readonly lineage: Readonly<Record<string, unknown>>;
  readonly adpet_version: string;
  readonly intended_use: string;
  readonly labels: readonly string[];
  readonly network: {
    readonly file: string;
    readonly input_size: number;
    readonly map_size: readonly [number, number];
  };
  readonly files: Readonly<Record<string, string>>;
  readonly standard: StandardConstants;
  readonly registration: RegistrationConstants;
  readonly slices: SliceConstants;
  readonly aggregation: {
    readonly method: "mean_probability" | "mean_logit" | "position_weights";
    readonly weights: readonly number[] | null;
  };
  readonly threshold: number;
  readonly calibration: {
    readonly bins: readonly {
      readonly low: number;
      readonly high: number;
      readonly subjects: number;
      readonly ad_share: number;
      readonly ad_share_low: number;
      readonly ad_share_high: number;
    }[];
    readonly prevalence: number;
  };
  readonly performance: {
    readonly auc: { readonly value: number; readonly low: number; readonly high: number };
    readonly test_subjects: number;
  };
  readonly leaky: boolean;
  readonly regions: readonly RegionConstants[];
  readonly profile: ProfileConstants;
  readonly quality: readonly QualityConstants[];
}

/** The constants and the images on the standard grid. */
export interface Model {
  readonly constants: ModelConstants;
  readonly template: Volume;
  readonly brain: Mask;
  readonly reference: Mask;
  /** A region's label in each voxel; 0 where there is no region. */
  readonly labels: Int16Array;
  /** 1 where a voxel is mostly grey matter, 2 where it is mostly white matter. */
  readonly tissue: Uint8Array;
}

/** The images that `openModel` asks for. */
export const MODEL_IMAGES = [
  "template.nii.gz",
  "brain.nii.gz",
  "reference.nii.gz",
  "regions.nii.gz",
  "tissue.nii.gz",
] as const;
const FORMAT = 1;

/**
 * Bring a model's files together.
 *
 * @param constants - What stands in `model.json`.
 * @param images - The whole content of each of `MODEL_IMAGES`, by name.
 * @throws InputError where a file is missing or does not fit the others.
 */
export function openModel(constants: ModelConstants, images: Readonly<Record<string, Uint8Array>>): Model {
  if (constants.format !== FORMAT) {
    throw new InputError(
      `model.json: required format ${FORMAT}; received ${constants.format}; export the model again`,
    );
  }
  const { shape } = constants.standard;
  const [template, brain, reference, regions, tissue] = MODEL_IMAGES.map((name) => {
    const content = images[name];
    if (!content) throw new InputError(`${name}: not found beside model.json: export the model again`);
    const volume = readNifti(content, name);
    if (volume.shape.some((n, axis) => n !== shape[axis])) {
      throw new InputError(
        `${name}: required shape (${shape}); received (${volume.shape}); export the model again`,
      );
    }
    return volume;
  }) as [Volume, Volume, Volume, Volume, Volume];
  return {
    constants,
    // The grid to the last digit, which a header's single precision does not hold.
    template: { ...template, affine: constants.standard.affine },
    brain: Uint8Array.from(brain.data),
    reference: Uint8Array.from(reference.data),
    labels: Int16Array.from(regions.data),
    tissue: Uint8Array.from(tissue.data),
  };
}
