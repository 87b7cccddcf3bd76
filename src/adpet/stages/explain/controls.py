"""Controls of the explain stage: randomized networks and simulated truth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from operator import call
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adpet.evaluation import saliency as scoring
from adpet.evaluation.saliency import Map, Mask
from adpet.imaging.nifti import read_volume
from adpet.imaging.registration import resample
from adpet.imaging.slices import coronal_slices, resize_maps
from adpet.learning import limit_threads
from adpet.parallel import map_in_processes
from adpet.params import Params
from adpet.paths import SIMULATED_TRUTH
from adpet.stages.common.tables import MATRIX_COLUMNS, read_ages, read_alignment, read_norms, read_uptake
from adpet.stages.explain.maps import (
    Explainer,
    HealthyMaps,
    Slices,
    Space,
    mean_slices,
    slices_of,
    space_of,
    trained_explainer,
)

if TYPE_CHECKING:
    import keras

# Points of a curve after its first, and random orders to compare with.
STEPS, RANDOM_ORDERS = 8, 2

# Networks that have learned nothing, healthy training scans that they are referenced to, and scans that each
# is scored on.
UNTRAINED, UNTRAINED_SCANS, UNTRAINED_SCORED = 6, 16, 24


def cascade_table(scans: Sequence[str], *, baseline: Slices, params: Params) -> pd.DataFrame:
    """Return the maps' similarity as the network's layers are randomized."""
    from adpet.learning.saliency import cascade, class_activation_maps

    model = trained_explainer(baseline, params).model
    slices = [slices_of(scan) for scan in scans]

    def maps_of(examined: "keras.Model") -> list[Map]:
        return [class_activation_maps(examined, one, method=params.explain.method)[0] for one in slices]

    original = maps_of(model)
    randomized = ((layer, maps_of(changed)) for layer, changed in cascade(model, seed=params.seed))
    return pd.DataFrame(scoring.cascade_rows(original, randomized, np.ones(original[0].shape, dtype=bool)))


def sanity_tables(
    referenced: Mapping[str, Map], scans: Sequence[str], baseline: Slices, params: Params
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, dict[str, float]]]:
    """Return cascade, curves and areas, computed in processes.

    The first is `cascade_table`; the second has `scan`, `map` (``exact``, ``referenced`` or ``random``),
    `share` and the log-odds after `deletion` and `insertion`; the third is by map the mean area between its
    curves and the random ones, in logits, where positive is better.
    """
    options: dict[str, Any] = {"baseline": baseline, "params": params}
    tasks: list[Callable[[], Any]] = [
        partial(cascade_table, scans, **options),
        *(
            partial(_curves, scan, referenced[scan], seed=params.seed + number, **options)
            for number, scan in enumerate(scans)
        ),
    ]
    cascaded, *found = map_in_processes(call, tasks, workers=params.compute.workers)
    rows = [
        {"scan": scan, "map": name, **dict(zip(curve, values, strict=True))}
        for scan, curves in zip(scans, found, strict=True)
        for name, curve in curves.items()
        for values in zip(*curve.values(), strict=True)
    ]
    areas = {}
    for name in ("exact", "referenced"):
        over = [scoring.gains(curves[name], curves["random"]) for curves in found]
        areas[name] = {key: round(float(np.mean([one[key] for one in over])), 6) for key in over[0]}
    return cascaded, pd.DataFrame(rows), areas


def _curves(
    scan: str, referenced: Map, *, seed: int, baseline: Slices, params: Params
) -> dict[str, dict[str, list[float]]]:
    explainer, space = trained_explainer(baseline, params), space_of(params)
    slices, rng = slices_of(scan), np.random.default_rng(seed)
    inside = coronal_slices(space.inside.astype(np.float32), space.template.affine, space.grid) > 0.5

    def log_odds(changed: Any) -> float:
        return float(explainer.exact(changed)[1].mean())

    def curve(order: Any) -> dict[str, list[float]]:
        return scoring.deletion_insertion(slices, explainer.baseline, order, log_odds, steps=STEPS)

    exact = explainer.exact(slices)[0]
    found = {
        "exact": resize_maps(exact, space.grid.size),
        "referenced": coronal_slices(referenced, space.template.affine, space.grid),
    }
    curves = {name: curve(scoring.highest_first(maps, inside)) for name, maps in found.items()}
    stride = space.grid.size // exact.shape[1]
    drawn = [curve(scoring.in_blocks_at_random(inside, rng, block=stride)) for _ in range(RANDOM_ORDERS)]
    curves["random"] = {key: np.mean([one[key] for one in drawn], axis=0).tolist() for key in drawn[0]}
    return curves


def truths_of(scans: pd.DataFrame, space: Space) -> dict[str, Map]:
    """Return true relative deficits inside, (v,), by scan."""
    alignment = read_alignment().set_index("scan")
    deficits = {}
    for scan in scans["scan"]:
        path = SIMULATED_TRUTH / f"{scan}_deficit.nii.gz"
        if path.exists():
            deficits[str(scan)] = _in_mni(path, alignment.loc[scan, MATRIX_COLUMNS], space)[space.inside]
    return deficits


def z_maps(scans: Sequence[str], healthy: Sequence[str], space: Space, params: Params) -> Iterator[Map]:
    """Make z-maps' values inside, (v,), high where uptake is low.

    They are those of `predict`, of the opposite sign; `healthy` are training scans, one a subject.
    """
    norms, ages, inside = read_norms(healthy, space.brain, params), read_ages(), space.inside[space.brain]
    found = (norms.z(read_uptake(scan, space.brain, params), ages[scan]) for scan in scans)
    return (-np.nan_to_num(z)[inside] for z in found)


def truth_scores(
    explained: Mapping[str, Mapping[str, Map]],
    deficits: Mapping[str, Map],
    scans: pd.DataFrame,
    healthy: Sequence[str],
    space: Space,
    *,
    params: Params,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Score the exact, referenced and z-maps, and their controls.

    Parameters
    ----------
    explained : mapping of str to mapping of str to (v,) ndarray
        Values inside by map (``exact``, ``referenced``, ``z-map``) and scan.
    deficits : mapping of str to (v,) ndarray
        The truth by scan.
    scans : DataFrame
        Correctly classified AD test scans: `scan`, `subject`.
    healthy : sequence of str
        Training scans that the maps of untrained networks are referenced to.

    Returns
    -------
    table : DataFrame
        One row a scan and map; of untrained networks' maps one a network, with its number as `network`.
    facts : dict
        Mean scores by map and paired differences with their intervals, verdicts, agreement with the deficit's
        side, and what they were taken from.
    """
    masks = {scan: scoring.truth_mask(deficit) for scan, deficit in deficits.items()}
    # A deficit of 5 % nowhere, or everywhere, leaves nothing to be found.
    sizes = {scan: int(mask.sum()) for scan, mask in masks.items()}
    scored = [scan for scan in scans["scan"] if 0 < sizes.get(scan, 0) < masks[scan].size]
    if not scored:
        return pd.DataFrame(columns=["scan", "subject", "map", *scoring.SCORES]), {"scans": 0}
    inside, subjects = space.inside, scans.set_index("scan").loc[scored, "subject"]
    found = {name: np.stack([maps[scan] for scan in scored]) for name, maps in explained.items()}
    truths = np.stack([masks[scan] for scan in scored])
    centre = scoring.map_scores(scoring.centre_map(inside)[None], truths)
    rows = [
        {"scan": scan, "map": "centre"} | {score: values[0, number] for score, values in centre.items()}
        for number, scan in enumerate(scored)
    ]
    # One such network is as likely to call dark bright as the other way round: only several are at chance.
    one = partial(
        _untrained_rows,
        healthy=healthy[:UNTRAINED_SCANS],
        truths={scan: masks[scan] for scan in scored[:UNTRAINED_SCORED]},
        params=params,
    )
    for of_network in map_in_processes(one, range(1, UNTRAINED + 1), workers=params.compute.workers):
        rows += of_network
    controls = pd.DataFrame(rows).assign(subject=lambda table: table["scan"].map(subjects))
    table = pd.concat([scoring.score_table(found, truths, subjects), controls], ignore_index=True)
    # The template's axes are those of MNI space.
    x_mm = np.argwhere(inside)[:, 0] * space.template.affine[0, 0] + space.template.affine[0, 3]
    sides = found | {f"group mean {name}": maps.mean(axis=0) for name, maps in found.items()}
    deficit = np.stack([deficits[scan] for scan in scored]) * truths
    options = {"seed": params.seed, "resamples": params.evaluate.resamples}
    differences = scoring.score_differences(table, **options)
    return table, {
        "scans": len(scored),
        "left_out": len(scans) - len(scored),
        "least_deficit": scoring.LEAST_DEFICIT,
        "area_share": round(float(truths.mean()), 6),
        "scores": scoring.score_summary(table, **options),
        "differences": differences,
        "verdict": {
            name: scoring.verdict(name, differences[name], subjects=subjects.nunique())
            for name in scoring.NETWORK_MAPS
        },
        "side": scoring.side_agreement(sides, deficit, x_mm, subjects),
        "untrained": scoring.network_ranges(table),
    }


def _in_mni(path: Path, matrix: "pd.Series[float]", space: Space) -> Map:
    to_scan = np.vstack([matrix.to_numpy(np.float64).reshape(3, 4), [0, 0, 0, 1]])
    template = space.template
    return resample(read_volume(path), shape=template.data.shape, affine=template.affine, matrix=to_scan)


def _untrained_rows(
    number: int, *, healthy: Sequence[str], truths: Mapping[str, Mask], params: Params
) -> list[dict[str, Any]]:
    """Score the maps of a network that has learned nothing."""
    from adpet.learning.model import reused_model
    from adpet.stages.common.fitting import network_settings

    limit_threads(params.compute.threads)
    blank = reused_model(**network_settings(params) | {"weights": "none", "seed": params.seed + number})
    space = space_of(params)
    explainer = Explainer(blank, mean_slices(healthy), space, params)
    references = HealthyMaps([explainer.maps(scan) for scan in healthy])
    rows: list[dict[str, Any]] = []
    for scan, truth in truths.items():
        maps = explainer.maps(scan)
        values = {
            "untrained exact": space.volume_of(maps.exact)[space.inside],
            "untrained referenced": references.z_scored(maps),
        }
        rows += scoring.score_rows(values, truth, scan=scan, network=number)
    return rows
