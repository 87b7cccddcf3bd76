"""Spatial and intensity normalization: MNI grid, common resolution, SUVR.

SUVR is uptake divided by its mean in a reference region (cerebellum, pons or whole brain), unitless.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.nifti import Array, Volume
from adpet.imaging.registration import FWHM_PER_SIGMA, Alignment, register, resample, similarity
from adpet.imaging.template import Reference, brain_mask, fdg_template, load_template, reference_mask

BUILT_IN = "built-in"


@dataclass(frozen=True)
class Standard:
    """Template space: the target of spatial and intensity normalization.

    Attributes
    ----------
    template : Volume
        FDG-like image on the MNI grid; the grid of every normalized volume.
    brain, reference : (i, j, k) bool ndarray
        Where similarity is judged; the reference region of the SUVR.
    align : {"affine", "none"}
        Whether scans are registered, or in MNI space already.
    smoothing_mm : float
        FWHM of the blur that evens out scanners and reconstructions; 0 for none.
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
    """Load the template space, once a process.

    `template` is ``built-in``, made from nilearn's tissue maps, or the path of a file in MNI space.
    """
    image = fdg_template(grid_mm) if template == BUILT_IN else load_template(template, grid_mm)
    return Standard(image, brain_mask(grid_mm), reference_mask(reference, grid_mm), align, smoothing_mm)


def normalize(scan: Volume, standard: Standard) -> tuple[Volume, Alignment]:
    """Normalize a scan: register, resample, smooth, divide by reference.

    Returns
    -------
    volume : Volume
        (i, j, k) float32 SUVR (unitless), on the template's grid.
    alignment : Alignment
        Its similarity is that of the resampled scan, before smoothing.
    """
    template = standard.template
    matrix = register(scan, template, standard.brain).matrix if standard.align == "affine" else np.eye(4)
    data = resample(scan, shape=template.data.shape, affine=template.affine, matrix=matrix)
    alignment = Alignment(matrix, similarity(data, template.data, standard.brain))
    sigma = standard.smoothing_mm / FWHM_PER_SIGMA / voxel_sizes(template.affine)
    data = np.asarray(ndimage.gaussian_filter(data, sigma, mode="constant"))
    try:
        suvr = to_suvr(data, standard.reference)
    except ValueError as error:
        raise InputError(
            "required uptake in the reference region; received none there after registration; look at the "
            "scan, or choose another normalize.reference"
        ) from error
    return Volume(suvr, template.affine), alignment


def to_suvr(data: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Divide uptake by its mean in the reference region: SUVR.

    The unit and the injected dose cancel out.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
        In any unit of activity.
    mask : (i, j, k) bool ndarray
        The reference region. Only its positive finite voxels count: what lies outside the field of view is
        0 after resampling, and would lower the mean.

    Returns
    -------
    (i, j, k) float32 ndarray
        SUVR (unitless).
    """
    inside = data[mask]
    inside = inside[np.isfinite(inside) & (inside > 0)]
    if not inside.size:
        raise ValueError(
            f"the reference region ({int(mask.sum())} voxels) must hold positive uptake, received none:"
            " check the registration, or choose another reference"
        )
    return np.asarray(data / inside.mean(dtype=np.float64), dtype=np.float32)


def to_uint8(suvr: Array, *, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Map SUVR linearly from a window to 0 to 255.

    The window is the same for every slice of every scan, so that a byte means the same SUVR everywhere.
    """
    low, high = window
    if not low < high:
        raise ValueError(f"`window` must ascend. Received: window={window}")
    return np.asarray(np.round(np.clip((suvr - low) / (high - low), 0, 1) * 255), dtype=np.uint8)
