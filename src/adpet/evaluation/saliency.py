"""Score saliency volumes: truth, controls, z-scores, atlas regions.

All volumes share one template grid; masks are boolean arrays of its shape.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.stats import rankdata

from adpet.errors import InputError
from adpet.evaluation.bootstrap import percentile_interval
from adpet.imaging.atlas import AD_PATTERN, Atlas

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


Volume: TypeAlias = npt.NDArray[np.floating]

# The row of what lies in the brain but in no region.
ELSEWHERE = "elsewhere in the brain"
# More of a map's mass than this outside the brain is an alarm: the network looks at what cannot be disease.
MOST_OUTSIDE = 0.1


def region_table(
    maps: Mapping[str, Volume], uptake: Mapping[str, Volume], atlas: Atlas, brain: Mask
) -> pd.DataFrame:
    """Return one row a region: its share of each map's mass and its mean uptake in each group.

    Parameters
    ----------
    maps : mapping of str to (i, j, k) float ndarray
        Group maps by name; positive values have mass.
    uptake : mapping of str to (i, j, k) float ndarray
        Mean ratio images by group.
    atlas : Atlas
        On the same grid.
    brain : (i, j, k) bool ndarray
        Shares are of the mass in it.

    Returns
    -------
    DataFrame
        `region`, `ad_pattern` (whether the disease begins there), `voxels`, `volume_share`,
        ``<name>_mass`` and ``<name>_density`` (mass share over volume share) for each map, ``<group>_uptake``
        for each group; the last row is the brain outside of all regions.
    """
    labels = np.where(brain, atlas.labels, 0)
    numbers = [number for number in atlas.names if (labels == number).any()]
    masks = [labels == number for number in numbers] + [brain & ~np.isin(labels, numbers)]
    table = pd.DataFrame({"region": [*(atlas.names[number] for number in numbers), ELSEWHERE]})
    table["ad_pattern"] = table["region"].isin(AD_PATTERN)
    table["voxels"] = [int(mask.sum()) for mask in masks]
    table["volume_share"] = table["voxels"] / int(brain.sum())
    for name, data in maps.items():
        mass = np.clip(data, 0, None).astype(np.float64)
        total = float(mass[brain].sum())
        table[f"{name}_mass"] = [float(mass[mask].sum()) / total if total else 0.0 for mask in masks]
        table[f"{name}_density"] = table[f"{name}_mass"] / table["volume_share"].where(table["voxels"] > 0)
    for name, data in uptake.items():
        table[f"{name}_uptake"] = [
            float(data[mask].mean(dtype=np.float64)) if mask.any() else float("nan") for mask in masks
        ]
    return table


def pattern_share(table: pd.DataFrame, name: str) -> dict[str, float]:
    """Return how much of a map's mass lies in the known pattern, and over the pattern's share of the brain.

    Parameters
    ----------
    table : DataFrame
        As `region_table` gives it, with the map `name`.
    """
    pattern = table[table["ad_pattern"]]
    mass, volume = float(pattern[f"{name}_mass"].sum()), float(pattern["volume_share"].sum())
    return {"mass": round(mass, 6), "over_volume": round(mass / volume, 6) if volume else 0.0}


def share_outside(data: Volume, brain: Mask) -> float:
    """Return the share of a map's absolute mass that lies outside the brain; 0 where it has none."""
    mass = np.abs(data).astype(np.float64)
    total = float(mass.sum())
    return float(mass[~brain].sum()) / total if total else 0.0


def alarms_of(shares: Mapping[str, float]) -> list[str]:
    """Return one line for each map of which more than 10 % lies outside the brain."""
    return [
        f"{name}: {share:.0%} of the map's mass lies outside the brain (alarm above {MOST_OUTSIDE:.0%}): "
        "look at its montages before you believe the model"
        for name, share in shares.items()
        if share > MOST_OUTSIDE
    ]


Floats: TypeAlias = npt.NDArray[np.floating]
Slices: TypeAlias = npt.NDArray[np.uint8]
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
