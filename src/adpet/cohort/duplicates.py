"""Find copies of one image under two subjects' names.

What all scans share (their mean, and its changes by gain, blur and small motion) is removed: the residuals of
copies correlate, those of two subjects hardly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from nibabel.affines import voxel_sizes
from scipy import ndimage

from adpet.imaging.nifti import Array, Volume
from adpet.imaging.registration import FWHM_PER_SIGMA, Mask, resample
from adpet.imaging.template import brain_mask, fdg_template, template_grid

Matrix: TypeAlias = npt.NDArray[np.float32]

GRID_MM = 6.0
# Blur that evens out scanners and processing levels, and the further blurs of the mean that are taken out.
FWHM_MM = 8.0
FURTHER_FWHM_MM = (6.0, 12.0)
# Of 200 simulated scans (160 subjects, four scanners) and 154 altered copies, registered as in the pipeline:
# different subjects reach 0.64, 0.75 where they are only ten, and 99.9 % of their pairs are below 0.31; two
# visits of one subject have 0.78 to 0.95, scans smoothed to 8 mm 0.86 or more with their originals, all other
# copies 0.95 or more. A copy whose registration fails is missed: 1 of the 14 that were smoothed to 8 mm.
MIN_CORRELATION = 0.8
# Fewer scans have no reliable mean; the template replaces it. Then different subjects reach 0.81, and copies
# have 0.95 or more.
FEW_SCANS = 10
MIN_CORRELATION_OF_FEW = 0.9
BLOCK_SCANS = 512
# Pairs are looked for in random projections (Johnson and Lindenstrauss 1984), then correlated as a whole. A
# projected correlation has a standard deviation of 0.03 at the limit, 0.09 at most: no pair is missed.
PROJECTED, PROJECTED_MARGIN = 128, 0.25


@dataclass(frozen=True)
class Duplicate:
    """Two scans, by position, and their residuals' correlation."""

    first: int
    second: int
    correlation: float


def coarse_brain(volume: Volume) -> Array:
    """Return a brain blurred on a coarse grid, (n,) float32.

    What the scan does not show, exactly 0, is taken from the template: brains cut off alike are no copies.
    """
    sigma = FWHM_MM / FWHM_PER_SIGMA / voxel_sizes(volume.affine)
    blurred = Volume(ndimage.gaussian_filter(_completed(volume), sigma), volume.affine)
    shape, affine = template_grid(GRID_MM)
    values = resample(blurred, shape=shape, affine=affine)[_coarse_mask()]
    mean = values.mean(dtype=np.float64)
    return np.asarray(values / mean if mean > 0 else values, dtype=np.float32)


def _completed(volume: Volume) -> Array:
    # NIfTI's float32 of 2.4 mm is 2.4000001.
    grid_mm = round(float(voxel_sizes(volume.affine)[0]), 4)
    template, brain = fdg_template(grid_mm).data, brain_mask(grid_mm)
    shown = brain & (volume.data != 0)
    if not shown.any():
        return volume.data
    scale = volume.data[shown].mean(dtype=np.float64) / template[shown].mean(dtype=np.float64)
    return np.where(brain & ~shown, np.float32(scale) * template, volume.data)


def find_duplicates(brains: Matrix, subjects: Sequence[str]) -> list[Duplicate]:
    """Find copies among scans of different subjects, ordered.

    `brains`, (scans, n) float32, are of `coarse_brain`.
    """
    limit = MIN_CORRELATION_OF_FEW if len(brains) < FEW_SCANS else MIN_CORRELATION
    residuals = residual_patterns(brains)
    mirrored = residual_patterns(brains[:, _mirror()])
    projection = np.random.default_rng(0).normal(size=(brains.shape[1], PROJECTED)).astype(np.float32)
    short, short_mirrored = (_of_length_1(each @ projection) for each in (residuals, mirrored))
    owners = np.unique(np.asarray(subjects, dtype=object), return_inverse=True)[1]
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(brains), BLOCK_SCANS):
        rows = slice(start, start + BLOCK_SCANS)
        for short_others, others in ((short, residuals), (short_mirrored, mirrored)):
            likely = short[rows] @ short_others.T >= limit - PROJECTED_MARGIN
            for row, j in np.argwhere(likely & (owners[rows, None] != owners[None])).tolist():
                correlation = round(float(np.sum(residuals[start + row] * others[j])), 3)
                if correlation >= limit:
                    pair = min(start + row, j), max(start + row, j)
                    found[pair] = max(found.get(pair, 0.0), correlation)
    return [Duplicate(*pair, found[pair]) for pair in sorted(found)]


def residual_patterns(brains: Matrix) -> Matrix:
    """Return brains without what heads share; rows have length 1."""
    few = len(brains) < FEW_SCANS
    common = coarse_brain(fdg_template(GRID_MM)) if few else brains.mean(axis=0, dtype=np.float64)
    basis = _common_patterns(np.asarray(common, dtype=np.float32))
    rest = np.array(brains, dtype=np.float32)
    for start in range(0, len(rest), BLOCK_SCANS):
        block = rest[start : start + BLOCK_SCANS]
        block -= (block @ basis) @ basis.T
        block[:] = _of_length_1(block)
    return rest


def _of_length_1(rows: Matrix) -> Matrix:
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)


def _common_patterns(common: Array) -> Matrix:
    """Return an orthonormal basis, (n, patterns), of common patterns."""
    mask = _coarse_mask()
    image = np.zeros(mask.shape, dtype=np.float64)
    image[mask] = common
    # Continued beyond the brain, whose edge would stand out in blurs and slopes.
    image = np.where(mask, image, _blurred_inside(image, mask, FURTHER_FWHM_MM[0]))
    blurred = [_blurred_inside(image, image > 0, fwhm)[mask] for fwhm in FURTHER_FWHM_MM]
    x, y, z = ((np.argwhere(mask) - np.array(mask.shape) / 2) / max(mask.shape)).T
    slopes = [slope[mask] * by for slope in np.gradient(image) for by in (np.ones_like(x), x, y, z)]
    patterns = np.stack([np.ones_like(x), image[mask], *blurred, *slopes], axis=1)
    return np.asarray(np.linalg.qr(patterns / np.linalg.norm(patterns, axis=0))[0], dtype=np.float32)


def _blurred_inside(image: npt.NDArray[np.float64], mask: Mask, fwhm_mm: float) -> npt.NDArray[np.float64]:
    sigma = fwhm_mm / FWHM_PER_SIGMA / GRID_MM
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    blurred = ndimage.gaussian_filter(np.where(mask, image, 0), sigma)
    return np.asarray(np.divide(blurred, weight, out=np.zeros_like(blurred), where=weight > 1e-6))


@cache
def _coarse_mask() -> Mask:
    """Return the brain, as far as it is left-right symmetric."""
    mask = brain_mask(GRID_MM)
    return np.asarray(mask & mask[::-1])


@cache
def _mirror() -> npt.NDArray[np.int64]:
    """Return the index of each voxel in the mirrored brain."""
    mask = _coarse_mask()
    number = np.zeros(mask.shape, dtype=np.int64)
    number[mask] = np.arange(mask.sum())
    return np.asarray(number[::-1][mask])
