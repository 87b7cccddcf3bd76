"""Score saliency volumes: truth, controls, z-scores, atlas regions.

Maps are values in a mask of the template grid, (v,), unless said otherwise; volumes share that grid.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest, rankdata

from adpet.errors import InputError
from adpet.evaluation.bootstrap import percentile_interval
from adpet.imaging.atlas import AD_PATTERN, Atlas
from adpet.imaging.normative import require_healthy

Map: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]

# The truth is where at least this share of uptake is lost after the scanner's blur; less is noise.
LEAST_DEFICIT: Final = 0.05
SCORES: Final = ("pointing", "mass", "mass_ratio", "auroc", "iou")
# A deficit has a worse side if the hemispheres' shares of it differ by this much.
LEAST_ASYMMETRY: Final = 0.05
# A verdict on fewer subjects would rest on an interval that is too narrow.
FEWEST_JUDGED: Final = 10
# The network's maps, and what a patient's own must improve on to say something about that patient.
NETWORK_MAPS: Final = {"exact": "CAM", "referenced": "z-scored attribution map"}
RIVALS: Final = {
    "other patients": "other patients' maps",
    "group mean": "the group mean",
    "z-map": "a z-map made without a network",
}


def truth_mask(deficit: Map) -> Mask:
    """Return the voxels whose deficit exceeds 5 %."""
    return np.asarray(deficit > LEAST_DEFICIT)


def map_scores(found: Map, truths: Mask) -> dict[str, npt.NDArray[np.float64]]:
    """Score every map against every truth.

    Parameters
    ----------
    found : (m, v) float32 ndarray
        High values are salient; only positive ones have mass.
    truths : (t, v) bool ndarray
        Each neither empty nor all voxels.

    Returns
    -------
    dict
        (m, t) ndarrays. ``pointing``: 1 if the highest voxel is in the truth (Zhang et al. 2018), else 0.
        ``mass``: share of positive mass in the truth. ``mass_ratio``: that over the truth's share of voxels.
        ``auroc``: probability that a voxel of the truth is higher than another, ties one half. ``iou``:
        intersection over union of the truth and as many of the highest voxels.
    """
    values, n, positive = found.astype(np.float64), truths.shape[1], truths.sum(axis=1)
    if not ((positive > 0) & (positive < n)).all():
        raise ValueError(f"`truths` must be parts of the mask. Received: {positive.tolist()} of {n} voxels")
    wanted, mass = truths.T.astype(np.float64), np.clip(values, 0, None)
    total = mass.sum(axis=1, keepdims=True)
    share = np.divide(mass @ wanted, total, out=np.zeros((len(found), len(truths))), where=total > 0)
    won = rankdata(values, axis=1) @ wanted - positive * (positive + 1) / 2
    # A stable order breaks ties the same way everywhere.
    orders, sized = np.argsort(-values, axis=1, kind="stable"), list(zip(truths, positive, strict=True))
    hits = np.array([[truth[order[:size]].sum() for truth, size in sized] for order in orders])
    return {
        "pointing": truths[:, values.argmax(axis=1)].T.astype(np.float64),
        "mass": share,
        "mass_ratio": share * n / positive,
        "auroc": won / (positive * (n - positive)),
        "iou": hits / (2 * positive - hits),
    }


def score_table(found: Mapping[str, Map], truths: Mask, subjects: "pd.Series[str]") -> pd.DataFrame:
    """Score own maps, other patients' maps and group means.

    Parameters
    ----------
    found : mapping of str to (n, v) float32 ndarray
        A map of every scan by the map's name.
    truths : (n, v) bool ndarray
    subjects : Series
        By scan. "other patients <name>" is the mean score of all other subjects' maps on a scan's truth.
    """
    others = subjects.to_numpy()[:, None] != subjects.to_numpy()
    tables = []
    for name, maps in found.items():
        scores = map_scores(np.vstack([maps, maps.mean(axis=0)]), truths)
        by_map = {
            name: {score: values[:-1].diagonal() for score, values in scores.items()},
            f"group mean {name}": {score: values[-1] for score, values in scores.items()},
        }
        if others.any():
            by_map[f"other patients {name}"] = {
                score: np.average(values[:-1], axis=0, weights=others) for score, values in scores.items()
            }
        facts = {"scan": subjects.index, "subject": subjects.to_numpy()}
        tables += [pd.DataFrame({**facts, "map": key, **columns}) for key, columns in by_map.items()]
    return pd.concat(tables, ignore_index=True)


def centre_map(inside: Mask) -> Map:
    """Return values inside that fall with distance from centre."""
    where = np.argwhere(inside)
    distance = np.linalg.norm(where - where.mean(axis=0), axis=-1)
    return np.asarray(1 / (1 + distance), dtype=np.float32)


def score_summary(
    table: pd.DataFrame, *, seed: int, resamples: int
) -> dict[str, dict[str, dict[str, float | int]]]:
    """Return each map's mean scores with intervals over subjects.

    `table` has `subject`, `map` and `SCORES`, one row a scan and map; maps of as many subjects use the
    same resamples.
    """
    return {
        str(name): {score: _interval(rows[score].to_numpy(np.float64), seed, resamples) for score in SCORES}
        for name, rows in _subject_scores(table).groupby(level="map", sort=True)
    }


def score_differences(table: pd.DataFrame, *, seed: int, resamples: int) -> dict[str, dict[str, Any]]:
    """Return own minus rival scores, paired, with intervals over subjects.

    By map ("z-map" is one), rival (see `RIVALS`) and score; resamples are those of `score_summary`.
    """
    subjects = _subject_scores(table)
    there = set(subjects.index.get_level_values("map"))
    found: dict[str, dict[str, Any]] = {}
    for own in (*NETWORK_MAPS, "z-map"):
        for rival in RIVALS:
            other = rival if rival == "z-map" else f"{rival} {own}"
            if own != other and {own, other} <= there:
                gain = subjects.loc[own].to_numpy(np.float64) - subjects.loc[other].to_numpy(np.float64)
                found.setdefault(own, {})[rival] = {
                    score: _interval(gain[:, number], seed, resamples) for number, score in enumerate(SCORES)
                }
    return found


def verdict(name: str, gains: Mapping[str, Mapping[str, Any]], *, subjects: int) -> str:
    """Say whether a network's map adds anything to its rivals.

    `gains` are its `score_differences` by rival, over this many `subjects`; AUROC decides.
    """
    title = NETWORK_MAPS[name]
    if subjects < FEWEST_JUDGED:
        return f"{title}: {subjects} scored subjects are too few for a verdict (required: {FEWEST_JUDGED})."
    said = []
    for rival, words in RIVALS.items():
        if rival in gains:
            gain = gains[rival]["auroc"]
            loses = "is worse than" if gain["high"] < 0 else "adds nothing measurable to"
            adds = "adds to" if gain["low"] > 0 else loses
            said.append(
                f"{adds} {words} ({gain['value']:+z.3f}, {gain['low']:+z.3f} to {gain['high']:+z.3f})"
            )
    return (
        f"A patient's own {title} {'; it '.join(said)}. Differences of AUROC and 95 % intervals over "
        f"{subjects} subjects."
    )


def asymmetry(maps: Map, x_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return hemispheres' difference of positive mass over its sum.

    `maps` are (..., v); `x_mm`, (v,), is MNI x, negative on the left, which counts as positive.
    """
    mass = np.clip(maps, 0, None).astype(np.float64)
    left, right = mass @ (x_mm < 0), mass @ (x_mm > 0)
    return np.asarray((left - right) / np.maximum(left + right, np.finfo(np.float64).tiny))


def side_agreement(
    found: Mapping[str, Map], deficits: Map, x_mm: npt.NDArray[np.float64], subjects: "pd.Series[str]"
) -> dict[str, Any]:
    """Return how often maps find the deficit's worse side.

    Maps are (n, v), or (v,) if the same for all scans; `deficits` are (n, v), `x_mm` is (v,), and `subjects`
    name those of the n rows. A subject counts by the first scan whose deficit has a worse side, and `left` of
    them have it on the left. The `agreement` of a map is a share of them, with Wilson's interval.
    """
    worse = asymmetry(deficits, x_mm)
    sided = subjects.reset_index(drop=True)[np.abs(worse) >= LEAST_ASYMMETRY]
    chosen = sided.drop_duplicates().index.to_numpy()
    shares = {}
    for name, maps in found.items() if chosen.size else ():
        agreed = int((np.sign(asymmetry(maps, x_mm)) == np.sign(worse))[chosen].sum())
        ends = binomtest(agreed, chosen.size).proportion_ci(method="wilson")
        shares[name] = _rounded(agreed / chosen.size, ends.low, ends.high)
    return {
        "least_asymmetry": LEAST_ASYMMETRY,
        "subjects": int(chosen.size),
        "left": int((worse[chosen] > 0).sum()),
        "agreement": shares,
    }


def network_ranges(table: pd.DataFrame) -> dict[str, Any]:
    """Return the range of scores over untrained networks.

    The sign of an untrained network's maps is arbitrary, so their scores vary widely. `network` is missing in
    rows of other maps.
    """
    means = table.groupby(["map", "network"], sort=True)[list(SCORES)].mean()
    extremes = {
        str(name): {
            score: {"lowest": round(float(column.min()), 6), "highest": round(float(column.max()), 6)}
            for score, column in rows.items()
        }
        for name, rows in means.groupby(level="map", sort=True)
    }
    scans = table.loc[table["network"].notna(), "scan"].nunique()
    return {"networks": int(table["network"].nunique()), "scans": int(scans), **extremes}


def score_rows(maps: Mapping[str, Map], truth: Mask, **facts: Any) -> list[dict[str, Any]]:
    """Return one row a map: name, facts, scores."""
    scores = map_scores(np.stack(list(maps.values())), truth[None])
    return [
        {**facts, "map": name} | {score: float(values[number, 0]) for score, values in scores.items()}
        for number, name in enumerate(maps)
    ]


def _subject_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean scores by map and subject."""
    return table.groupby(["map", "subject"], sort=True)[list(SCORES)].mean()


@cache
def _resamples(n: int, seed: int, resamples: int) -> npt.NDArray[np.float64]:
    """Return the weights of `n` subjects in bootstrap resamples."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n


def _interval(values: npt.NDArray[np.float64], seed: int, resamples: int) -> dict[str, float | int]:
    drawn = _resamples(len(values), seed, resamples)
    return _rounded(float(values.mean()), *percentile_interval(drawn @ values))


def _rounded(value: float, low: float, high: float) -> dict[str, float | int]:
    return {"value": round(value, 6), "low": round(float(low), 6), "high": round(float(high), 6)}


# Assumed noise variance of each component, as a share of the total.
NOISE = 0.2


@dataclass(frozen=True, eq=False)
class Reference:
    """Distribution of healthy maps over a mask's voxels."""

    mean: Map  # (v,), in logits
    # Standard deviation in logits, root mean square over all voxels: a voxel's own would inflate places at
    # which healthy maps never differ.
    spread: float
    scans: int

    def distance(self, maps: Map) -> Map:
        """Return z-scores of maps, (..., v), minus their own mean.

        A global offset is a matter of the scan's probability; what remains is the location.
        """
        distance = (maps - self.mean) / np.float32(self.spread)
        above = distance - distance.mean(axis=-1, keepdims=True, dtype=np.float64)
        return np.asarray(above, dtype=np.float32)


def healthy_reference(maps: Map) -> Reference:
    """Return the distribution of healthy maps, (n, v)."""
    require_healthy(len(maps))
    variance = float(maps.var(axis=0, ddof=1, dtype=np.float64).mean())
    if not variance > 0:
        raise InputError(
            "z-scored attribution maps: the maps of CN training scans are equal: the network looks at "
            "nothing; train it longer"
        )
    mean = maps.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Reference(mean, float(np.sqrt(variance)), len(maps))


@dataclass(frozen=True, eq=False)
class Patterns:
    """Wiener filter on the principal components of healthy maps."""

    patterns: Map  # (k, v), orthonormal
    gains: Map  # (k,), share of each that is kept

    def kept(self, distances: Map) -> Map:
        """Return the filtered z-scores, (..., v)."""
        return np.asarray((distances @ self.patterns.T * self.gains) @ self.patterns, dtype=np.float32)


def healthy_patterns(distances: Map) -> Patterns:
    """Return principal components of healthy z-scores, (n, v), with gains.

    A gain is the component's variance over that plus `NOISE` times the total variance.
    """
    # With fewer maps than voxels, components follow from the products between maps.
    variance, mixtures = np.linalg.eigh((distances @ distances.T).astype(np.float64))
    there = variance > 1e-6 * variance.max()
    patterns = mixtures.T[there].astype(np.float32) @ distances
    patterns /= np.linalg.norm(patterns, axis=1, keepdims=True)
    gains = variance[there] / (variance[there] + NOISE * variance.sum())
    return Patterns(patterns, gains.astype(np.float32))


Volume: TypeAlias = npt.NDArray[np.floating]

# The brain outside of all regions.
ELSEWHERE = "elsewhere in the brain"
# A larger share of the log-odds from outside the brain, where no disease can be, is an alarm.
MOST_OUTSIDE = 0.1
# The brain is grown by this much, for the blur of scans and their imperfect alignment.
MARGIN_MM = 6.0


def region_table(
    maps: Mapping[str, Volume], uptake: Mapping[str, Volume], atlas: Atlas, brain: Mask
) -> pd.DataFrame:
    """Return map mass and group uptake by region.

    Parameters
    ----------
    maps : mapping of str to (i, j, k) float ndarray
        Group maps by name; positive values have mass.
    uptake : mapping of str to (i, j, k) float ndarray
        Mean SUVR images by group.
    atlas : Atlas
    brain : (i, j, k) bool ndarray
        Shares are of the mass in it.

    Returns
    -------
    DataFrame
        `region`, `ad_pattern` (whether the disease begins there), `voxels`, `volume_share`, ``<name>_mass``
        and ``<name>_density`` (mass share over volume share) of each map, ``<group>_uptake``; the last row is
        the rest of the brain.
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
    """Return a map's mass in the AD pattern, by `region_table`."""
    pattern = table[table["ad_pattern"]]
    mass, volume = float(pattern[f"{name}_mass"].sum()), float(pattern["volume_share"].sum())
    return {"mass": round(mass, 6), "over_volume": round(mass / volume, 6) if volume else 0.0}


def outside_share(ad: Map, cn: Map, brain: Mask) -> float:
    """Return the share of AD minus CN outside the brain.

    `ad` and `cn` are the groups' mean integrated gradients, (n, h, w), whose sum is the log-odds of AD
    relative to the mean healthy scan. A network that has learned a mark outside of `brain` tells them apart
    there. A place of a CAM can be larger than the space around the brain; a pixel is not.
    """
    difference = ad.astype(np.float64) - cn
    inside, outside = abs(difference[brain].sum()), abs(difference[~brain].sum())
    return float(outside / (inside + outside)) if inside + outside else 0.0


def alarms_of(outside: float) -> list[str]:
    """Return an alarm if AD differs outside the brain."""
    if outside <= MOST_OUTSIDE:
        return []
    what = f"{outside:.0%} of what tells AD from CN scans lies outside the brain"
    return [
        f"{what} (alarm above {MOST_OUTSIDE:.0%}): look for marks or borders before you believe the model"
    ]


Floats: TypeAlias = npt.NDArray[np.floating]
Slices: TypeAlias = npt.NDArray[np.uint8]
LogOdds: TypeAlias = Callable[[Slices], float]


def map_similarity(a: Floats, b: Floats, inside: Mask) -> float:
    """Spearman's rank correlation in a mask; 0 for constant maps."""
    ranks = [rankdata(values[inside]) for values in (a, b)]
    first, second = (rank - rank.mean() for rank in ranks)
    scale = float(np.sqrt(np.sum(first**2) * np.sum(second**2)))
    return float(np.sum(first * second)) / scale if scale > 0 else 0.0


def deletion_insertion(
    slices: Slices, healthy: Slices, order: npt.NDArray[np.intp], log_odds: LogOdds, *, steps: int
) -> dict[str, list[float]]:
    """Replace pixels by healthy ones, and the reverse.

    Parameters
    ----------
    slices, healthy : (n, h, w, channels) uint8 ndarray
        The scan, and the mean of healthy training subjects in the same planes.
    order : (pixels,) int ndarray
        Flat indices of pixels of `slices`, first to be replaced first.
    log_odds : callable
        Log-odds of AD of a scan's slices.
    steps : int
        Equal parts that `order` is cut into.

    Returns
    -------
    dict
        ``share`` of `order` that was changed, from 0 to 1; log-odds after ``deletion`` and ``insertion``.
    """
    curves: dict[str, list[float]] = {"share": [], "deletion": [], "insertion": []}
    for count in np.linspace(0, order.size, steps + 1).round().astype(int):
        curves["share"].append(float(count / order.size))
        for name, base, other in (("deletion", slices, healthy), ("insertion", healthy, slices)):
            changed = base.copy()
            pixels, others = (values.reshape(math.prod(base.shape[:3]), -1) for values in (changed, other))
            pixels[order[:count]] = others[order[:count]]
            curves[name].append(log_odds(changed))
    return curves


def highest_first(maps: Floats, inside: Mask) -> npt.NDArray[np.intp]:
    """Return the flat indices of the mask's pixels, highest first."""
    places = np.flatnonzero(inside)
    return np.asarray(places[np.argsort(-maps.flat[places], kind="stable")])


def in_blocks_at_random(inside: Mask, rng: np.random.Generator, *, block: int) -> npt.NDArray[np.intp]:
    """Return the mask's pixels in random order, block by block.

    Scattered single pixels would be noise that no map could produce; blocks are as coarse as maps.
    """
    planes, rows, columns = np.indices(inside.shape)
    across = -(-inside.shape[2] // block)
    number = (planes * inside.shape[1] + rows // block) * across + columns // block
    drawn = rng.permutation(int(number.max()) + 1)[number]
    places = np.flatnonzero(inside)
    return np.asarray(places[np.argsort(drawn.flat[places], kind="stable")])


def gains(ours: dict[str, list[float]], random: dict[str, list[float]]) -> dict[str, float]:
    """Return the areas between a map's curves and random ones.

    Positive is better than chance: deletion should lower the log-odds sooner, insertion raise them sooner.
    """
    areas = {
        name: float(np.trapezoid(ours[name], ours["share"]) - np.trapezoid(random[name], random["share"]))
        for name in ("deletion", "insertion")
    }
    return {"deletion": -areas["deletion"], "insertion": areas["insertion"]}


def cascade_rows(
    original: Sequence[Floats], randomised: Iterator[tuple[str, Sequence[Floats]]], inside: Mask
) -> list[dict[str, Any]]:
    """Return the similarity to the original maps by randomized layer.

    `randomised` yields the layer randomized last with the maps since. The first row is the network itself.
    """
    rows: list[dict[str, Any]] = [{"layer": "none", "similarity": 1.0, "lowest": 1.0, "highest": 1.0}]
    for layer, maps in randomised:
        alike = [map_similarity(a, b, inside) for a, b in zip(original, maps, strict=True)]
        mean = float(np.mean(alike))
        rows.append({"layer": layer, "similarity": mean, "lowest": min(alike), "highest": max(alike)})
    return rows
