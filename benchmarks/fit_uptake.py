"""Fit the uptake that the published table leaves open to a real mean image, and print it.

    python benchmarks/fit_uptake.py REAL_MEAN.nii

The mean of a group that is half AD, half CN is linear in the regions' values. Least squares over the brain's
voxels finds those in `adpet.simulation.anatomy.BETWEEN` and white matter's, while heavy rows hold the table's
regions at their means. What is printed was copied into `adpet.simulation.anatomy`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import lsq_linear

from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import load_standard, normalize
from adpet.imaging.registration import FWHM_PER_SIGMA
from adpet.simulation.anatomy import (
    BETWEEN,
    FAR_VALUE,
    GRID_MM,
    NORMATIVE,
    REGIONS,
    SCALP_UPTAKE,
    TABLE_FWHM_MM,
    WHITE_UPTAKE,
    Anatomy,
    load_anatomy,
    region_masks,
)
from adpet.simulation.subject import average_person, person_uptake

# Severities whose mean is the group that the image shows: CN, some of them ill already, and AD.
SEVERITIES = (0.06, 1.0)
# Resolution at which a mean of many registered people is most alike (`adpet simulate --check` finds it).
REAL_FWHM_MM = 12.0
# Weight of the table against all voxels together.
TABLE_WEIGHT = 1.0

Matrix = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "real", type=Path, help="mean of FDG-PET images, half of them of patients, in MNI space"
    )
    anatomy = load_anatomy()
    standard = load_standard(grid_mm=GRID_MM, reference="global", align="affine")
    real = normalize(read_volume(parser.parse_args().real), standard)[0].data[standard.brain]
    names = list(REGIONS)
    group = sum(parts(anatomy, severity) for severity in SEVERITIES) / len(SEVERITIES)
    voxels = np.stack([blurred(image, REAL_FWHM_MM)[standard.brain] for image in group], axis=1)
    healthy = [blurred(image, TABLE_FWHM_MM) for image in parts(anatomy, 0.0)]
    means = np.array([[image[mask].mean() for image in healthy] for mask in region_masks(anatomy).values()])
    pons = means[names.index("pons")]
    held = [
        means[names.index(name)] - region.mean * pons for name, region in NORMATIVE.items() if name != "pons"
    ]
    weight = TABLE_WEIGHT * np.sqrt(real.size)
    fitted = lsq_linear(
        np.vstack([voxels, weight * np.array(held)]), np.r_[real, np.zeros(len(held))], bounds=(0.05, np.inf)
    ).x
    alike = np.corrcoef(voxels @ fitted, real)[0, 1]
    print(f"voxel correlation of the fit: {alike:.4f}")
    for name in BETWEEN:
        print(f"{name:<24}{means[names.index(name)] @ fitted / (pons @ fitted):.2f}")
    rest = fitted[len(names) :] / (pons @ fitted)
    for name, now, factor in zip(
        ("white matter", "scalp", "far"), (WHITE_UPTAKE, SCALP_UPTAKE, FAR_VALUE), rest, strict=True
    ):
        print(f"{name:<24}{now * factor:.2f}")


def parts(anatomy: Anatomy, severity: float) -> Matrix:
    """Return what each region, white matter, scalp and cortex far from all add: (regions + 3, i, j, k)."""
    person = average_person(anatomy)
    none = np.zeros(len(REGIONS))
    nothing = replace(person, left=none, right=none, white=0.0, scalp=0.0)
    cases = [replace(nothing, left=one, right=one) for one in np.eye(len(REGIONS)) / anatomy.values]
    cases += [replace(nothing, white=1.0), replace(nothing, scalp=1.0)]
    far = person_uptake(nothing, anatomy, age=75.0, severity=severity)[0]
    others = [person_uptake(one, anatomy, age=75.0, severity=severity)[0] - far for one in cases]
    return np.stack([*others, far])


def blurred(image: npt.NDArray[np.floating], fwhm_mm: float) -> Matrix:
    return ndimage.gaussian_filter(image, fwhm_mm / FWHM_PER_SIGMA / GRID_MM)


if __name__ == "__main__":
    main()
