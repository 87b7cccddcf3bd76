"""Spatial and intensity normalization: MNI grid, common resolution, SUVR.

SUVR is uptake divided by the mean of a reference region (cerebellum, pons or whole brain), without a unit.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.nifti import Volume
from adpet.imaging.registration import FWHM_PER_SIGMA, Alignment, register, resample, similarity
from adpet.imaging.template import Reference, brain_mask, fdg_template, load_template, reference_mask

Array: TypeAlias = npt.NDArray[np.float32]


def ratio_to_reference(data: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Divide by the mean over the reference region, so that the unit and the injected dose fall out.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
        In any unit of activity.
    mask : (i, j, k) bool ndarray
        The reference region. Only its positive finite voxels count: what lies outside the scanner's view is
        0 after resampling, and would lower the mean.

    Returns
    -------
    (i, j, k) float32 ndarray
        Ratio to the reference (unitless).

    Raises
    ------
    ValueError
        If the region holds no positive voxel.
    """
    inside = data[mask]
    inside = inside[np.isfinite(inside) & (inside > 0)]
    if not inside.size:
        raise ValueError(
            f"the reference region ({int(mask.sum())} voxels) must hold positive uptake, received none:"
            " check the registration, or choose another reference"
        )
    return np.asarray(data / inside.mean(dtype=np.float64), dtype=np.float32)


def to_uint8(ratio: Array, *, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Map ratios linearly to bytes: `window`'s low end to 0, its high end to 255, rounded and clipped.

    The window is the same for every slice of every scan, so that a byte means the same ratio everywhere.
    """
    low, high = window
    if not low < high:
        raise ValueError(f"`window` must ascend. Received: window={window}")
    return np.asarray(np.round(np.clip((ratio - low) / (high - low), 0, 1) * 255), dtype=np.uint8)


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


def normalize(scan: Volume, standard: Standard) -> tuple[Volume, Alignment]:
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
            "scan, or choose another normalize.reference"
        ) from error
    return Volume(ratio, template.affine), found
