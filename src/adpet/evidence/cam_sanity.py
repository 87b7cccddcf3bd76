"""Whether a map follows from what the network has learned, and whether what it points at decides.

A map that stays the same when the weights are drawn anew, or when the labels were shuffled, shows the image
and not the network (Adebayo et al. 2018). Where it points, the network's answer must hang on what is there:
healthy tissue put in its place must change the answer sooner than tissue put in anywhere (RISE, Petsiuk et
al. 2018, with healthy uptake in place of black, which no network has seen).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats: TypeAlias = npt.NDArray[np.floating]
Slices: TypeAlias = npt.NDArray[np.uint8]
Mask: TypeAlias = npt.NDArray[np.bool_]
LogOdds: TypeAlias = Callable[[Slices], float]


def map_similarity(a: Floats, b: Floats, inside: Mask) -> float:
    """Return Spearman's rank correlation of two maps in a mask, from -1 to 1; 0 where one is constant."""
    ranks = [rankdata(one[inside]) for one in (a, b)]
    first, second = (one - one.mean() for one in ranks)
    scale = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second)) / scale if scale > 0 else 0.0


def deletion_insertion(
    slices: Slices, healthy: Slices, order: npt.NDArray[np.intp], log_odds: LogOdds, *, steps: int
) -> dict[str, list[float]]:
    """Replace a scan's pixels by healthy ones in an order, and put them back into a healthy scan.

    Parameters
    ----------
    slices, healthy : (n, h, w) uint8 ndarray
        The scan, and the mean of healthy training subjects in the same planes.
    order : (pixels,) int ndarray
        Flat indices of pixels of `slices`, the first to be replaced first.
    log_odds : callable
        Log-odds of AD of a scan's slices.
    steps : int
        Equal parts that `order` is cut into.

    Returns
    -------
    dict
        ``share``: of `order` that was changed, from 0 to 1; ``deletion`` and ``insertion``: log-odds then.
    """
    curves: dict[str, list[float]] = {"share": [], "deletion": [], "insertion": []}
    for count in np.linspace(0, order.size, steps + 1).round().astype(int):
        curves["share"].append(float(count / order.size))
        for name, base, other in (("deletion", slices, healthy), ("insertion", healthy, slices)):
            changed = base.copy()
            changed.flat[order[:count]] = other.flat[order[:count]]
            curves[name].append(log_odds(changed))
    return curves


def highest_first(maps: Floats, inside: Mask) -> npt.NDArray[np.intp]:
    """Return the flat indices of the pixels in `inside`, the map's highest first."""
    places = np.flatnonzero(inside)
    return np.asarray(places[np.argsort(-maps.flat[places], kind="stable")])


def in_blocks_at_random(inside: Mask, rng: np.random.Generator, *, block: int) -> npt.NDArray[np.intp]:
    """Return the same pixels in random order, block by block.

    Scattered single pixels would be noise that no map could make: blocks are as coarse as maps are.
    """
    planes, rows, columns = np.indices(inside.shape)
    across = -(-inside.shape[2] // block)
    number = (planes * inside.shape[1] + rows // block) * across + columns // block
    drawn = rng.permutation(int(number.max()) + 1)[number]
    places = np.flatnonzero(inside)
    return np.asarray(places[np.argsort(drawn.flat[places], kind="stable")])


def area_under(curve: Sequence[float], share: Sequence[float]) -> float:
    """Return the mean height of a curve over the share that was changed (trapezoids)."""
    return float(np.trapezoid(curve, share))


def gains(ours: dict[str, list[float]], random: dict[str, list[float]]) -> dict[str, float]:
    """Return the areas between a map's curves and those in random order; positive is better than chance.

    Deletion by the map should lower the log-odds sooner, insertion should raise them sooner.
    """
    areas = {
        name: area_under(ours[name], ours["share"]) - area_under(random[name], random["share"])
        for name in ("deletion", "insertion")
    }
    return {"deletion": -areas["deletion"], "insertion": areas["insertion"]}


def cascade_rows(
    original: Sequence[Floats], randomised: Iterator[tuple[str, Sequence[Floats]]], inside: Mask
) -> list[dict[str, Any]]:
    """Return how alike the maps stay to the original ones, as more and more layers are drawn anew.

    Parameters
    ----------
    original : sequence of ndarray
        One map a scan.
    randomised : iterator of (layers, maps)
        What has been drawn anew last, and the maps since.
    inside : bool ndarray
        Where maps are compared.

    Returns
    -------
    list of dict
        `layer`, `similarity` (the scans' mean), `lowest`, `highest`; the first row is the network itself.
    """
    rows: list[dict[str, Any]] = [{"layer": "none", "similarity": 1.0, "lowest": 1.0, "highest": 1.0}]
    for layer, maps in randomised:
        alike = [map_similarity(a, b, inside) for a, b in zip(original, maps, strict=True)]
        rows.append(
            {
                "layer": layer,
                "similarity": float(np.mean(alike)),
                "lowest": min(alike),
                "highest": max(alike),
            }
        )
    return rows
