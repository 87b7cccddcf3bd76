"""What is unusual in a subject's map: its distance from healthy training subjects' maps, place by place.

A network looks at some places in everybody. Only where a map departs from that of healthy subjects, and more
than the subject's map does as a whole, does it say where something is unusual. Much of that departure is the
subject's own and no disease: what is kept is what lies along the patterns in which patients of the training
depart further than healthy subjects do.
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
    """The maps of healthy subjects, over the voxels of a mask.

    Attributes
    ----------
    mean, spread : (v,) float32 ndarray
        Mean and standard deviation at each place, in logits; `spread` is nowhere 0.
    scans : int
        How many maps stand behind them.
    """

    mean: Map
    spread: Map
    scans: int

    def distance(self, maps: Map) -> Map:
        """Return how many standard deviations maps, (..., v), lie above the healthy mean and above their own.

        How much a scan as a whole is like AD is what its probability says, and lifts its map everywhere; what
        is left is where.
        """
        distance = (maps - self.mean) / self.spread
        above = distance - distance.mean(axis=-1, keepdims=True, dtype=np.float64)
        return np.asarray(above, dtype=np.float32)


def healthy_reference(maps: Map, *, shrinkage: float) -> Reference:
    """Return what subjects are compared with.

    Parameters
    ----------
    maps : (n, v) float32 ndarray
        Of healthy subjects.
    shrinkage : float
        From 0, each place has its own spread, to 1, all have the root mean square of all places. Some
        keeps places where every healthy map is the same from growing beyond all others.

    Raises
    ------
    InputError
        Where there are too few maps, or they do not differ anywhere.
    """
    if len(maps) < FEWEST:
        raise InputError(
            f"referenced maps: required {FEWEST} CN training scans or more; received {len(maps)}; "
            "lower split.test_fraction, or add CN scans"
        )
    variance = maps.var(axis=0, ddof=1, dtype=np.float64)
    common = float(variance.mean())
    if not common > 0:
        raise InputError(
            "referenced maps: required maps that differ between CN training scans; received maps that "
            "are all alike: the network looks at nothing; train it longer"
        )
    spread = np.sqrt((1 - shrinkage) * variance + max(shrinkage, 1e-6) * common)
    return Reference(
        maps.mean(axis=0, dtype=np.float64).astype(np.float32), spread.astype(np.float32), len(maps)
    )


@dataclass(frozen=True, eq=False)
class Patterns:
    """What tells patients' distances from healthy ones: a Wiener filter on principal patterns.

    Attributes
    ----------
    patterns : (k, v) float32 ndarray
        Orthonormal.
    gains : (k,) float32 ndarray
        The disease's share of what patients have of each, from 0 to 1.
    """

    patterns: Map
    gains: Map

    def kept(self, distances: Map) -> Map:
        """Return what of distances, (..., v), lies along the patterns, each by its gain."""
        return np.asarray((distances @ self.patterns.T * self.gains) @ self.patterns, dtype=np.float32)


def disease_patterns(patients: Map, healthy: Map) -> Patterns:
    """Return the patterns of training subjects' distances, and what the disease's share of each is.

    The mean square of healthy subjects is taken for what everybody has; what patients have beyond it is the
    disease's. Patterns with no more in patients than in healthy subjects are left out.

    Parameters
    ----------
    patients, healthy : (n, v), (m, v) float32 ndarray
    """
    both = np.concatenate([patients, healthy])
    # The patterns of few maps of many voxels come from the products between the maps.
    _, mixtures = np.linalg.eigh((both @ both.T).astype(np.float64))
    patterns = mixtures.T.astype(np.float32) @ both
    length = np.linalg.norm(patterns, axis=1)
    patterns = patterns[length > 1e-3 * length.max()] / length[length > 1e-3 * length.max(), None]
    total, common = (np.square(maps @ patterns.T).mean(axis=0) for maps in (patients, healthy))
    more = total > common
    return Patterns(patterns[more], np.asarray(1 - common[more] / total[more], dtype=np.float32))


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
