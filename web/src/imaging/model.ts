/** An exported model: its constants, `model.json`, and the images next to it. */

import type { ModelDocument } from "../model.generated";
import { InputError } from "./errors";
import type { Mask } from "./masks";
import { diagonal } from "./matrix";
import { readNifti } from "./reading";
import type { Volume } from "./volume";

export interface Model {
  readonly constants: ModelDocument;
  readonly template: Volume;
  /** FDG image that similarity is measured to. */
  readonly expected: Volume;
  readonly brain: Mask;
  readonly reference: Mask;
  /** A region's label in each voxel; 0 where there is no region. */
  readonly labels: Int16Array;
  /** 1 where a voxel is mostly grey matter, 2 where it is mostly white matter. */
  readonly tissue: Uint8Array;
  /** SUVR of healthy scans by voxel: at their mean age, its change by year, and standard deviation. */
  readonly norms: Record<"mean" | "slope" | "sd", Float32Array>;
}

const NORMS = ["normal_mean", "normal_slope", "normal_sd"];
const SLOPE = "normal_slope.nii.gz";
const EMPTY: Volume = { data: new Float32Array(), shape: [0, 0, 0], affine: diagonal([1, 1, 1]) };
export const MODEL_IMAGES = ["template", "expected", "brain", "reference", "regions", "tissue", ...NORMS].map(
  (name) => `${name}.nii.gz`,
);

/** Bring `model.json` and the content of each of `MODEL_IMAGES` together; throws InputError if they do not fit. */
export function openModel(constants: ModelDocument, images: Readonly<Record<string, Uint8Array>>): Model {
  if (constants.format !== 3) {
    throw new InputError(
      `model.json: required format 3; received ${String(constants.format)}; export the model again`,
    );
  }
  const { shape } = constants.standard;
  const [template, expected, brain, reference, regions, tissue, mean, slope, sd] = MODEL_IMAGES.map(
    (name) => {
      const content = images[name];
      // Where age is left out there is no slope: an image of zeros, which is no scan.
      if (content && name === SLOPE && !constants.norms.ages) return EMPTY;
      if (!content) throw new InputError(`${name}: not found next to model.json: export the model again`);
      const volume = readNifti(content, name);
      if (volume.shape.some((n, axis) => n !== shape[axis])) {
        throw new InputError(
          `${name}: required shape (${shape}); received (${volume.shape}); export the model again`,
        );
      }
      return volume;
    },
  ) as [Volume, Volume, Volume, Volume, Volume, Volume, Volume, Volume, Volume];
  return {
    constants,
    // The grid to the last digit, which a header's single precision does not hold.
    template: { ...template, affine: constants.standard.affine },
    expected,
    brain: Uint8Array.from(brain.data),
    reference: Uint8Array.from(reference.data),
    labels: Int16Array.from(regions.data),
    tissue: Uint8Array.from(tissue.data),
    norms: { mean: mean.data, slope: slope.data, sd: sd.data },
  };
}
