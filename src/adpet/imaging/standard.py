"""Bring one scan to the standard: RAS+, frames averaged, on the MNI grid, as a ratio to a reference."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.align import FWHM_PER_SIGMA, Alignment, register, resample, similarity
from adpet.imaging.intensity import ratio_to_reference
from adpet.imaging.template import Reference, brain_mask, fdg_template, load_template, reference_mask
from adpet.imaging.volume import Volume

BUILT_IN = "built-in"


@dataclass(frozen=True)
class Standard:
    """What scans are brought to.

    Attributes
    ----------
    template : Volume
        FDG-like image on the MNI grid; the grid of every standard volume.
    brain, reference : (i, j, k) bool ndarray
        Where similarity is judged, and where the ratio is taken.
    align : {"affine", "none"}
        Whether scans are registered, or in MNI space already.
    smoothing_mm : float
        FWHM of the blur that evens out what scanners and reconstructions resolve; 0 is none.
    """

    template: Volume
    brain: npt.NDArray[np.bool_]
    reference: npt.NDArray[np.bool_]
    align: Literal["affine", "none"]
    smoothing_mm: float = 0.0


@lru_cache(maxsize=1)
def load_standard(
    *,
    grid_mm: float,
    reference: Reference,
    template: str = BUILT_IN,
    align: Literal["affine", "none"],
    smoothing_mm: float = 0.0,
) -> Standard:
    """Make the standard from nilearn's tissue maps or a template file of one's own, once a process.

    Raises
    ------
    InputError
        Where the template file cannot be used.
    """
    image = fdg_template(grid_mm) if template == BUILT_IN else load_template(template, grid_mm)
    return Standard(image, brain_mask(grid_mm), reference_mask(reference, grid_mm), align, smoothing_mm)


def standardize(scan: Volume, standard: Standard) -> tuple[Volume, Alignment]:
    """Register, resample, smooth and normalise one scan.

    Returns
    -------
    volume : Volume
        (i, j, k) float32 ratio to the reference region (unitless), on the template's grid.
    alignment : Alignment
        The transform that was found, and how alike scan and template are after it.

    Raises
    ------
    InputError
        Where registration finds no overlap, or the reference region holds no uptake. The text names no
        file: whoever read the scan does.
    """
    template = standard.template
    if standard.align == "affine":
        alignment = register(scan, template, standard.brain)
    else:
        alignment = Alignment(matrix=np.eye(4), similarity=np.nan)
    data = resample(scan, shape=template.data.shape, affine=template.affine, matrix=alignment.matrix)
    found = Alignment(alignment.matrix, similarity(data, template.data, standard.brain))
    sigma = standard.smoothing_mm / FWHM_PER_SIGMA / voxel_sizes(template.affine)
    data = np.asarray(ndimage.gaussian_filter(data, sigma, mode="constant"))
    try:
        ratio = ratio_to_reference(data, standard.reference)
    except ValueError as error:
        raise InputError(
            "required uptake in the reference region; received none there after registration; look at the "
            "scan, or choose another standardize.reference"
        ) from error
    return Volume(ratio, template.affine), found
