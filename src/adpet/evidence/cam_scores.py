"""How well a map finds a deficit that is known: the phantom writes the truth of each of its scans.

Every score is taken over the voxels that the map can speak about, and stands beside controls that know
nothing of the subject: the area that the truth covers, a map of the whole group, untrained networks' maps
and one that points at the centre of the brain.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from adpet.evidence.intervals import percentile_interval

Map: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

# The truth is where this share of uptake is lost, after the scanner's blur: less cannot be told from noise.
LEAST_DEFICIT: Final = 0.05
SCORES: Final = ("pointing", "mass", "mass_ratio", "auroc", "iou")


def truth_mask(deficit: Map, inside: Mask) -> Mask:
    """Return where a map should point: the voxels of `inside` whose relative deficit is above 5 %."""
    return np.asarray((deficit > LEAST_DEFICIT) & inside)


def cam_score(found: Map, truth: Mask, inside: Mask) -> dict[str, float]:
    """Score one map against one truth.

    Parameters
    ----------
    found : (i, j, k) float32 ndarray
        High where the map points; only positive values have mass.
    truth : (i, j, k) bool ndarray
        Part of `inside`, neither empty nor all of it.
    inside : (i, j, k) bool ndarray
        The voxels that are scored.

    Returns
    -------
    dict
        ``pointing``: 1 where the highest voxel lies in the truth (Zhang et al. 2018), else 0.
        ``mass``: share of the map's positive mass in the truth. ``mass_ratio``: that over the truth's share
        of the voxels. ``auroc``: chance that a voxel of the truth is higher than another, ties one half.
        ``iou``: overlap of the truth with as many of the highest voxels, intersection over union.

    Raises
    ------
    ValueError
        Where the truth is empty, or all of `inside`.
    """
    values, wanted = found[inside].astype(np.float64), truth[inside]
    n, positive = wanted.size, int(wanted.sum())
    if not 0 < positive < n:
        raise ValueError(f"`truth` must be a part of `inside`. Received: {positive} of {n} voxels")
    mass = np.clip(values, 0, None)
    total = float(mass.sum())
    share = float(mass[wanted].sum()) / total if total else 0.0
    won = float(rankdata(values)[wanted].sum()) - positive * (positive + 1) / 2
    # A stable order, so that ties are broken the same way everywhere.
    top = np.argsort(-values, kind="stable")[:positive]
    hits = int(wanted[top].sum())
    return {
        "pointing": float(wanted[int(np.argmax(values))]),
        "mass": share,
        "mass_ratio": share * n / positive,
        "auroc": won / (positive * (n - positive)),
        "iou": hits / (2 * positive - hits),
    }


def centre_map(inside: Mask) -> Map:
    """Return a map that is highest at the centre of `inside`, and falls with the distance from it."""
    where = np.indices(inside.shape).reshape(3, -1).T.reshape(*inside.shape, 3)
    distance = np.linalg.norm(where - np.argwhere(inside).mean(axis=0), axis=-1)
    return np.asarray(np.where(inside, 1 / (1 + distance), 0), dtype=np.float32)


def score_summary(
    table: pd.DataFrame, *, seed: int, resamples: int
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Return the mean score of each map, with its interval over subjects.

    Parameters
    ----------
    table : DataFrame
        `subject`, `map`, and the columns of `SCORES`; one row a scan and map.
    seed, resamples : int
        Of the bootstrap over subjects; all maps meet the same resamples.

    Returns
    -------
    dict
        By map and score: ``value``, ``low`` and ``high``.
    """
    subjects = table.groupby(["map", "subject"], sort=True)[list(SCORES)].mean()
    n = subjects.index.get_level_values("subject").nunique()
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n
    return {
        str(name): {score: _interval(rows[score].to_numpy(np.float64), drawn) for score in SCORES}
        for name, rows in subjects.groupby(level="map", sort=True)
    }


def network_ranges(table: pd.DataFrame) -> dict[str, Any]:
    """Return how far untrained networks lie apart: one may call dark bright, another the other way round.

    Parameters
    ----------
    table : DataFrame
        `map`, `network` (missing where the map is not an untrained network's), and the columns of `SCORES`.

    Returns
    -------
    dict
        ``networks``: how many there are. By map and score: ``lowest`` and ``highest`` mean of a network.
    """
    means = table.groupby(["map", "network"], sort=True)[list(SCORES)].mean()
    ranges: dict[str, Any] = {"networks": int(table["network"].nunique())}
    for name, rows in means.groupby(level="map", sort=True):
        ranges[str(name)] = {
            score: {
                "lowest": round(float(rows[score].min()), 6),
                "highest": round(float(rows[score].max()), 6),
            }
            for score in SCORES
        }
    return ranges


def area_share(truths: Sequence[Mask], inside: Mask) -> float:
    """Return the truth's mean share of the voxels that are scored: what a blind map's mass would be."""
    return float(np.mean([truth[inside].mean() for truth in truths]))


def score_rows(maps: Mapping[str, Map], truth: Mask, inside: Mask, **facts: Any) -> list[dict[str, Any]]:
    """Return one row a map: its name, `facts` about the scan, and its scores."""
    return [{**facts, "map": name, **cam_score(found, truth, inside)} for name, found in maps.items()]


def _interval(values: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> dict[str, float | int]:
    low, high = percentile_interval(drawn @ values)
    return {"value": round(float(values.mean()), 6), "low": round(low, 6), "high": round(high, 6)}
