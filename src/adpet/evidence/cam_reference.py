"""What is unusual in a subject's map: its distance from healthy training subjects' maps.

A network looks at some places in everybody. Only where a map departs from that of healthy subjects, and more
than the subject's map does as a whole, does it say where something is unusual. Much of a departure is noise
of single places: what is kept is what lies along the ways in which whole maps differ. They are learned from
healthy subjects alone: patterns learned from patients would put the disease into the maps of networks that
know nothing of it.
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

# What is taken for noise in each principal pattern, as a share of the variance of all.
NOISE = 0.2


@dataclass(frozen=True, eq=False)
class Reference:
    """The maps of healthy subjects, over the voxels of a mask.

    Attributes
    ----------
    mean : (v,) float32 ndarray
        At each place, in logits.
    spread : float
        Standard deviation from it, root mean square over all places, in logits: what healthy maps vary by.
        One number, since a place's own would lift places at which no healthy map ever differs.
    scans : int
        How many maps stand behind them.
    """

    mean: Map
    spread: float
    scans: int

    def distance(self, maps: Map) -> Map:
        """Return how many standard deviations maps, (..., v), lie above the healthy mean and above their own.

        How much a scan as a whole is like AD is what its probability says, and lifts its map everywhere; what
        is left is where.
        """
        distance = (maps - self.mean) / np.float32(self.spread)
        above = distance - distance.mean(axis=-1, keepdims=True, dtype=np.float64)
        return np.asarray(above, dtype=np.float32)


def healthy_reference(maps: Map) -> Reference:
    """Return what subjects are compared with.

    Parameters
    ----------
    maps : (n, v) float32 ndarray
        Of healthy subjects.

    Raises
    ------
    InputError
        Where there are too few maps, or they do not differ anywhere.
    """
    require_healthy(len(maps))
    variance = float(maps.var(axis=0, ddof=1, dtype=np.float64).mean())
    if not variance > 0:
        raise InputError(
            "referenced maps: required maps that differ between CN training scans; received maps that "
            "are all alike: the network looks at nothing; train it longer"
        )
    mean = maps.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Reference(mean, float(np.sqrt(variance)), len(maps))


def require_healthy(scans: int) -> None:
    """Refuse too few healthy scans for a reference.

    Raises
    ------
    InputError
        Where there are fewer than `FEWEST`.
    """
    if scans < FEWEST:
        raise InputError(
            f"referenced maps: required {FEWEST} CN training scans or more; received {scans}; "
            "lower split.test_fraction, or add CN scans"
        )


@dataclass(frozen=True, eq=False)
class Patterns:
    """The ways in which healthy maps differ as a whole: a Wiener filter on their principal patterns.

    Attributes
    ----------
    patterns : (k, v) float32 ndarray
        Orthonormal.
    gains : (k,) float32 ndarray
        How much of each is kept, from 0 to 1.
    """

    patterns: Map
    gains: Map

    def kept(self, distances: Map) -> Map:
        """Return what of distances, (..., v), lies along the patterns, each by its gain."""
        return np.asarray((distances @ self.patterns.T * self.gains) @ self.patterns, dtype=np.float32)


def healthy_patterns(distances: Map) -> Patterns:
    """Return the principal patterns of healthy subjects' distances.

    Parameters
    ----------
    distances : (n, v) float32 ndarray

    Returns
    -------
    Patterns
        A pattern's gain is its variance, over that and `NOISE` of the variance of all of them.
    """
    # The patterns of few maps of many voxels come from the products between the maps.
    variance, mixtures = np.linalg.eigh((distances @ distances.T).astype(np.float64))
    there = variance > 1e-6 * variance.max()
    patterns = mixtures.T[there].astype(np.float32) @ distances
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    gains = variance[there] / (variance[there] + NOISE * variance.sum())
    return Patterns(patterns, gains.astype(np.float32))


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
