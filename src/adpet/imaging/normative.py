"""Normative images: healthy uptake by age, voxel by voxel.

A z-map shows where a scan differs from healthy people of its age, without any network: 3D-SSP's comparison
(Minoshima et al. 1995, J Nucl Med 36:1238-1248) in the volume.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.registration import FWHM_PER_SIGMA, Mask

Image: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.floating]

# Fewer healthy scans cannot be compared with; fewer that show a voxel, where there are more, give no useful
# spread; and fewer ages no useful slope.
FEWEST: Final = 2
FEWEST_SEEN: Final = 3
FEWEST_AGES: Final = 20
# A standard deviation is at least this share of the median: in few scans, some voxels look too alike.
SPREAD_FLOOR: Final = 0.5
UNKNOWN_SPREAD: Final = 1e3


@dataclass(frozen=True, eq=False)
class Norms:
    """Mean SUVR of healthy scans, yearly change, and spread.

    `mean` (at the mean age), `slope` and `sd` (about the line) have a value a voxel or region. `ages` are the
    lowest, mean and highest, in years; None if age is left out.
    """

    mean: Floats
    slope: Floats
    sd: Floats
    ages: tuple[float, float, float] | None

    def compared_at(self, age: float | None) -> float | None:
        """Return the age that a scan is compared at.

        The mean if `age` is unknown (None or NaN), else the nearest that healthy scans have; None if age is
        left out.
        """
        if self.ages is None or age is None or np.isnan(age):
            return self.ages and self.ages[1]
        return min(max(age, self.ages[0]), self.ages[2])

    def years(self, age: float | None) -> float:
        """Return by how much that age is above the mean."""
        return (self.compared_at(age) or 0.0) - self.ages[1] if self.ages else 0.0

    def z(self, uptake: Floats, age: float | None = None) -> Image:
        """Return z-scores of SUVR: negative is low."""
        return np.asarray((uptake - self.mean - self.years(age) * self.slope) / self.sd, dtype=np.float32)


def fit_norms(uptake: Iterable[Floats], ages: Floats) -> Norms:
    """Fit a line by age to each voxel or region.

    Parameters
    ----------
    uptake : iterable of (v,) float ndarray
        SUVR of healthy scans, one a subject, added up one by one; NaN where a scan does not show it.
    ages : (n,) float ndarray
        In years. NaN, an unknown age, counts as the mean; with fewer than 20 known ages, or equal ones, age
        is left out.

    Where fewer than three scans (of two, both) show anything, the spread is `UNKNOWN_SPREAD`, and z-scores
    are near 0.
    """
    require_healthy(len(ages))
    known, line, older = ages[np.isfinite(ages)], None, np.zeros(len(ages))
    if known.size >= FEWEST_AGES and np.ptp(known) > 0:
        line = (float(known.min()), float(known.mean()), float(known.max()))
        older = np.nan_to_num(ages - line[1])
    sums = np.zeros(())
    for suvr, years in zip(uptake, older, strict=True):
        shown = np.isfinite(suvr)
        value = np.where(shown, suvr.astype(np.float64), 0)
        sums = sums + np.stack([shown, shown * years, shown * years**2, value, value * years, value**2])
    seen, count = sums[0], np.maximum(sums[0], 1)
    year, year_square, mean, product, square = sums[1:] / count
    covariance, year_variance = product - year * mean, year_square - year**2
    slope = covariance / np.maximum(year_variance, 1 / count)
    variance = square - mean**2 - 2 * slope * covariance + slope**2 * year_variance
    degrees = np.maximum(count - 1 - (line is not None), 1)
    spread = np.sqrt(np.maximum(variance, 0) * count / degrees)
    enough = seen >= min(FEWEST_SEEN, len(ages))
    floor = max(SPREAD_FLOOR * float(np.median(spread[enough])), float(np.finfo(np.float32).tiny))
    sd = np.where(enough, np.maximum(spread, floor), UNKNOWN_SPREAD)
    return Norms(mean - slope * year, slope, sd, line)


def require_healthy(scans: int) -> None:
    """Refuse fewer than `FEWEST` healthy scans."""
    if scans < FEWEST:
        raise InputError(
            f"comparison with healthy scans: required {FEWEST} CN training scans or more; received {scans}; "
            "lower split.test_fraction, or add CN scans"
        )


def smoothed(data: Floats, *, fwhm_mm: float, grid_mm: float, inside: Mask) -> Image:
    """Blur an image by a Gaussian within a mask."""
    held = np.where(inside, data, np.float32(0)).astype(np.float32)
    if fwhm_mm == 0:
        return held
    sigma = fwhm_mm / grid_mm / FWHM_PER_SIGMA
    weight = _blurred(inside.astype(np.float32), sigma)
    blurred = _blurred(held, sigma) / np.maximum(weight, np.float32(1e-6))
    return np.asarray(np.where(inside, blurred, np.float32(0)))


def smoothed_in_brain(suvr: Image, brain: Mask, *, fwhm_mm: float, grid_mm: float) -> Image:
    """Blur the SUVR in the shown brain; else NaN."""
    shown = brain & (suvr != 0)
    blurred = smoothed(suvr, fwhm_mm=fwhm_mm, grid_mm=grid_mm, inside=shown)
    return np.where(shown, blurred, np.float32(np.nan))


def _blurred(data: Image, sigma: float) -> Image:
    return np.asarray(ndimage.gaussian_filter(data, sigma, mode="constant", truncate=3))
