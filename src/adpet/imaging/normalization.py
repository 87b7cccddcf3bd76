"""Spatial and intensity normalization: MNI grid, common resolution, SUVR.

SUVR is uptake divided by its mean in a reference region (cerebellum, pons or whole brain), unitless.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.nifti import Affine, Array, Volume
from adpet.imaging.registration import FWHM_PER_SIGMA, Alignment, Mask, register, resample, similarity
from adpet.imaging.template import (
    Reference,
    brain_mask,
    fdg_mean,
    fdg_template,
    load_template,
    reference_mask,
)

BUILT_IN = "built-in"
# Share of the reference region that a scan must show.
MIN_REFERENCE_SEEN = 0.3
# Scans whose largest value is beyond these powers of two are scaled: their sums or parts are beyond float32.
POWERS = 60


@dataclass(frozen=True)
class Standard:
    """Template space: the target of spatial and intensity normalization.

    The FDG-like `template` is the target of registration, and its grid that of every normalized volume.
    Similarity to `expected`, an FDG image, is judged in what a scan shows of the `brain`; `reference` is the
    region of the SUVR. With `align` "none" scans are in MNI space already.
    `smoothing_mm` is the FWHM of the blur that evens out scanners; 0 for none. With `target_fwhm_mm`, the
    resolution that all scans are brought to, it is by scanner instead: see `of_scanner`.
    """

    template: Volume
    expected: Volume
    brain: npt.NDArray[np.bool_]
    reference: npt.NDArray[np.bool_]
    align: Literal["affine", "none"]
    smoothing_mm: float = 0.0
    target_fwhm_mm: float | None = None
    native_fwhm_mm: Mapping[str, float] = field(default_factory=dict)

    def of_scanner(self, scanner: str, fwhm_mm: float | None = None) -> "Standard":
        """Return the space with a scanner's own smoothing.

        Variances add (Joshi et al. 2009, NeuroImage 46:154-159). The scanner's resolution is `fwhm_mm`, or
        that of the longest name in `scanner`; above the target, nothing is added.
        """
        if fwhm_mm is not None and (self.target_fwhm_mm is None or not fwhm_mm > 0):
            raise InputError(
                "required a resolution above 0 mm, and a model that smooths by scanner; received "
                f"{fwhm_mm:g} mm; leave it out"
            )
        if self.target_fwhm_mm is None:
            return self
        words = f" {_plain(scanner)} "
        known = [name for name in self.native_fwhm_mm if f" {_plain(name)} " in words]
        if fwhm_mm is None and not known:
            raise InputError(
                f"scans are smoothed to {self.target_fwhm_mm:g} mm by scanner: required one of "
                f"{', '.join(self.native_fwhm_mm)}; received {scanner or 'none'}; name it in the sidecar "
                "(ManufacturersModelName), give its resolution to predict (--fwhm), or add it to "
                "normalize.native_fwhm_mm and train"
            )
        own = self.native_fwhm_mm[max(known, key=len)] if fwhm_mm is None else fwhm_mm
        return replace(self, smoothing_mm=math.sqrt(max(self.target_fwhm_mm**2 - own**2, 0.0)))


def load_standard(
    *,
    grid_mm: float,
    reference: Reference,
    template: str = BUILT_IN,
    align: Literal["affine", "none"],
    smoothing_mm: float = 0.0,
    target_fwhm_mm: float | None = None,
    native_fwhm_mm: Mapping[str, float] | None = None,
) -> Standard:
    """Load the template space."""
    if template == BUILT_IN:
        target, expected = fdg_template(grid_mm), fdg_mean(grid_mm)
    else:
        path = Path(template)
        changed_ns = path.stat().st_mtime_ns if path.exists() else 0
        target = expected = _own_template(path, changed_ns, grid_mm)
    brain, region = brain_mask(grid_mm), reference_mask(reference, grid_mm)
    by_scanner = target_fwhm_mm, native_fwhm_mm or {}
    return Standard(target, expected, brain, region, align, smoothing_mm, *by_scanner)


@lru_cache(maxsize=1)
def _own_template(path: Path, _changed_ns: int, grid_mm: float) -> Volume:
    """Load a template, again when it has changed."""
    return load_template(path, grid_mm)


def normalize(scan: Volume, standard: Standard) -> tuple[Volume, Alignment]:
    """Normalize a scan: register, resample, smooth, divide by reference.

    The volume is float32 SUVR on the template's grid; similarity is judged before smoothing. Exactly 0 is
    what the scan does not show, and where smoothing mixes that in. InputError if less than
    `MIN_REFERENCE_SEEN` of the reference region is left.
    """
    template, scan = standard.template, scaled(scan)
    matrix = register(scan, template, standard.brain).matrix if standard.align == "affine" else np.eye(4)
    data = resample(scan, shape=template.data.shape, affine=template.affine, matrix=matrix)
    seen = _seen(scan, standard, matrix)
    share = float(standard.reference[seen].sum() / standard.reference.sum())
    if share < MIN_REFERENCE_SEEN:
        raise InputError(
            f"{share:.0%} of the reference region lies well inside the scanner's view, "
            f"{MIN_REFERENCE_SEEN:.0%} must: choose another normalize.reference"
        )
    # Of what the scan shows: a cut-off vertex is the field of view's matter.
    alignment = Alignment(matrix, similarity(data, standard.expected.data, standard.brain & seen))
    sigma = standard.smoothing_mm / FWHM_PER_SIGMA / voxel_sizes(template.affine)
    data = np.asarray(ndimage.gaussian_filter(data, sigma, mode="constant"))
    data[~seen] = 0
    try:
        suvr = to_suvr(data, standard.reference & seen)
    except ValueError as error:
        raise InputError(
            "required uptake in the reference region; received none there after registration; look at the "
            "scan, or choose another normalize.reference"
        ) from error
    return Volume(suvr, template.affine), alignment


def scaled(scan: Volume) -> Volume:
    """Scale huge or tiny values, which changes no SUVR."""
    power = math.frexp(float(np.abs(scan.data).max()))[1]
    return scan if abs(power) <= POWERS else Volume(np.ldexp(scan.data, -power), scan.affine)


def to_suvr(data: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Divide uptake by its mean in the reference region: SUVR.

    The unit and the injected dose cancel out. Only positive finite voxels of the region count: what lies
    outside the field of view is 0 after resampling, and would lower the mean.
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
    """Map SUVR linearly from a window to 0 to 255."""
    low, high = window
    if not low < high:
        raise ValueError(f"`window` must ascend. Received: window={window}")
    return np.asarray(np.round(np.clip((suvr - low) / (high - low), 0, 1) * 255), dtype=np.uint8)


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def _seen(scan: Volume, standard: Standard, matrix: Affine) -> Mask:
    """Return the voxels that only the scan's own decide."""
    grid = standard.template
    to_index = np.linalg.inv(scan.affine) @ matrix @ grid.affine
    margin = standard.smoothing_mm / voxel_sizes(scan.affine)
    i, j, k = np.ix_(*map(np.arange, grid.data.shape))
    seen = np.ones(grid.data.shape, dtype=bool)
    for row, low, n in zip(to_index[:3], margin, scan.data.shape, strict=True):
        index = (row[0] * i + row[1] * j) + (row[2] * k + row[3])
        seen &= (index >= low) & (index <= n - 1 - low)
    return seen
