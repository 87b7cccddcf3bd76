"""Ask whether the maps hang on the weights, and the network's answer on what they point at."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adpet.evidence.cam_reference import Map
from adpet.evidence.cam_sanity import (
    cascade_rows,
    deletion_insertion,
    gains,
    highest_first,
    in_blocks_at_random,
    map_similarity,
)
from adpet.imaging.coronal import coronal_slices, resize_maps
from adpet.learning.cam import class_activation_maps
from adpet.learning.randomised import cascade
from adpet.params import Params
from adpet.stages.explain_maps import Explainer, Space, slices_of

if TYPE_CHECKING:
    import keras

# Points of a curve beside its first, and random orders that a map's order is compared with.
STEPS, RANDOM_ORDERS = 8, 2


def cascade_table(model: "keras.Model", scans: Sequence[str], params: Params) -> pd.DataFrame:
    """Return how alike the scans' exact maps stay to themselves, while layers lose what they learned."""
    slices = [slices_of(scan) for scan in scans]

    def maps_of(network: "keras.Model") -> list[Map]:
        return [class_activation_maps(network, one, method=params.explain.method)[0] for one in slices]

    def randomised() -> Iterator[tuple[str, list[Map]]]:
        for layer, network in cascade(model, seed=params.seed):
            yield layer, maps_of(network)

    original = maps_of(model)
    return pd.DataFrame(cascade_rows(original, randomised(), np.ones(original[0].shape, dtype=bool)))


def similarity_to(
    model: "keras.Model", other: "keras.Model", scans: Sequence[str], params: Params
) -> dict[str, float]:
    """Return how alike the maps of two networks are, such as one that was trained on shuffled labels.

    Returns
    -------
    dict
        ``similarity``: Spearman's correlation of the exact maps, mean over scans; ``lowest``, ``highest``.
    """
    alike = []
    for scan in scans:
        slices = slices_of(scan)
        ours, theirs = (
            class_activation_maps(network, slices, method=params.explain.method)[0]
            for network in (model, other)
        )
        alike.append(map_similarity(ours, theirs, np.ones(ours.shape, dtype=bool)))
    return {"similarity": float(np.mean(alike)), "lowest": min(alike), "highest": max(alike)}


def curve_table(
    explainer: Explainer, referenced: Mapping[str, Map], scans: Sequence[str], space: Space, params: Params
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Replace what maps point at by healthy tissue, step by step, and put it into healthy scans.

    Parameters
    ----------
    referenced : mapping of str to (i, j, k) ndarray
        Referenced volumes by scan.

    Returns
    -------
    table : DataFrame
        `scan`, `map` (``exact``, ``referenced`` or ``random``), `share`,
        and the log-odds after `deletion` and `insertion`.
    facts : dict
        By map, the mean area between its curves and the random ones, in logits; positive is better.
    """
    inside = coronal_slices(space.inside.astype(np.float32), space.template.affine, space.grid) > 0.5
    rows: list[dict[str, Any]] = []
    areas: dict[str, list[dict[str, float]]] = {"exact": [], "referenced": []}
    for number, scan in enumerate(scans):
        curves = _curves(explainer, referenced[scan], scan, inside, space, seed=params.seed + number)
        rows += [
            {"scan": scan, "map": name, **dict(zip(curve, values, strict=True))}
            for name, curve in curves.items()
            for values in zip(*curve.values(), strict=True)
        ]
        for name, found in areas.items():
            found.append(gains(curves[name], curves["random"]))
    means = {
        name: {
            key: round(float(np.mean([one[key] for one in found])), 6) for key in ("deletion", "insertion")
        }
        for name, found in areas.items()
    }
    return pd.DataFrame(rows), means


def _curves(
    explainer: Explainer, referenced: Map, scan: str, inside: Any, space: Space, *, seed: int
) -> dict[str, dict[str, list[float]]]:
    slices, rng = slices_of(scan), np.random.default_rng(seed)

    def log_odds(changed: Any) -> float:
        return float(explainer.exact(changed)[1].mean())

    def curve(order: Any) -> dict[str, list[float]]:
        return deletion_insertion(slices, explainer.healthy, order, log_odds, steps=STEPS)

    exact = explainer.exact(slices)[0]
    found = {
        "exact": resize_maps(exact, space.grid.size),
        "referenced": coronal_slices(referenced, space.template.affine, space.grid),
    }
    curves = {name: curve(highest_first(maps, inside)) for name, maps in found.items()}
    stride = space.grid.size // exact.shape[1]
    drawn = [curve(in_blocks_at_random(inside, rng, block=stride)) for _ in range(RANDOM_ORDERS)]
    curves["random"] = {key: np.mean([one[key] for one in drawn], axis=0).tolist() for key in drawn[0]}
    return curves
