"""What is unusual in a subject's map: its distance from healthy training subjects' maps, place by place.

A network looks at some places in everybody. Only where a map departs from that of healthy subjects, and more
than the subject's map does as a whole, does it say where something is unusual.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.errors import InputError

Map: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

# Fewer healthy subjects give no spread to speak of.
FEWEST = 3


@dataclass(frozen=True, eq=False)
class Reference:
    """The maps of healthy subjects.

    Attributes
    ----------
    mean, spread : (i, j, k) float32 ndarray
        Mean and standard deviation at each place, in logits; `spread` is nowhere 0.
    scans : int
        How many maps stand behind them.
    """

    mean: Map
    spread: Map
    scans: int

    def z_map(self, data: Map) -> Map:
        """Return how many standard deviations `data` lies above the healthy mean, float32 (i, j, k)."""
        return np.asarray((data - self.mean) / self.spread, dtype=np.float32)


class Moments:
    """Mean and spread of maps that are added one by one, so that only two volumes are held."""

    def __init__(self) -> None:
        self._mean: npt.NDArray[np.float64] | None = None
        self._squares: npt.NDArray[np.float64] | None = None
        self.scans = 0

    def add(self, data: Map) -> None:
        """Take one map in (Welford's method, which loses no digits where the spread is small)."""
        if self._mean is None or self._squares is None:
            self._mean, self._squares = np.zeros(data.shape), np.zeros(data.shape)
        self.scans += 1
        off = data - self._mean
        self._mean += off / self.scans
        self._squares += off * (data - self._mean)

    @property
    def mean(self) -> Map:
        """The mean map."""
        if self._mean is None:
            raise ValueError("the mean of no maps. Received: 0 maps")
        return self._mean.astype(np.float32)

    def reference(self, inside: Mask, *, shrinkage: float) -> Reference:
        """Return what subjects are compared with.

        Parameters
        ----------
        inside : (i, j, k) bool ndarray
            Where maps say something; the common spread is taken there.
        shrinkage : float
            From 0, each place has its own spread, to 1, all have the root mean square of all places. Some
            keeps places where every healthy map is the same from growing beyond all others.

        Raises
        ------
        InputError
            Where there are too few maps, or they do not differ anywhere.
        """
        if self._squares is None or self.scans < FEWEST:
            raise InputError(
                f"referenced maps: required {FEWEST} CN training scans or more; received {self.scans}; "
                "lower split.test_fraction, or add CN scans"
            )
        variance = self._squares / (self.scans - 1)
        common = float(variance[inside].mean())
        if not common > 0:
            raise InputError(
                "referenced maps: required maps that differ between CN training scans; received maps that "
                "are all alike: the network looks at nothing; train it longer"
            )
        # Never quite 0 outside, where all maps are 0: their distance is then 0 too.
        spread = np.sqrt((1 - shrinkage) * variance + max(shrinkage, 1e-6) * common)
        return Reference(self.mean, spread.astype(np.float32), self.scans)


def above_own_mean(data: Map, inside: Mask) -> Map:
    """Return how far a map lies above its own mean inside a mask; 0 outside.

    How much a scan as a whole is like AD is what its probability says, and lifts its map everywhere; what is
    left is where.
    """
    return np.asarray(np.where(inside, data - data[inside].mean(dtype=np.float64), 0), dtype=np.float32)


def smoothed(data: Map, *, fwhm_mm: float, grid_mm: float, inside: Mask) -> Map:
    """Blur a map inside a mask, without what lies outside; 0 there.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
    fwhm_mm : float
        Full width at half maximum of the Gaussian; 0 leaves the map as it is inside.
    grid_mm : float
        Edge of a voxel.
    inside : (i, j, k) bool ndarray
    """
    held = np.where(inside, data, np.float32(0))
    if fwhm_mm == 0:
        return held
    sigma = fwhm_mm / grid_mm / (2 * np.sqrt(2 * np.log(2)))
    weight = _blurred(inside.astype(np.float32), sigma)
    blurred = _blurred(held, sigma) / np.maximum(weight, np.float32(1e-6))
    return np.asarray(np.where(inside, blurred, np.float32(0)))


def _blurred(data: Map, sigma: float) -> Map:
    return np.asarray(ndimage.gaussian_filter(data, sigma, mode="constant", truncate=3))
