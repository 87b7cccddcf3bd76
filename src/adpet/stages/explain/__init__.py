"""Explain the test scans: CAM and z-scored attribution maps."""

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.splits import read_split
from adpet.contracts import EvaluationDocument, Saliency, TrainingRun, read_contract, write_contract
from adpet.evaluation import saliency as scoring
from adpet.evaluation.aggregation import Pooling, pooled_probability
from adpet.evaluation.saliency import Map, Reference
from adpet.imaging.atlas import load_atlas
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.slices import coronal_slices, own_planes, resize_maps
from adpet.learning import limit_threads
from adpet.parallel import progress
from adpet.params import Params
from adpet.reporting.brain_figures import REFERENCED_UNIT, cam_montage, group_map_figure, sanity_figure
from adpet.reporting.style import save_figure
from adpet.stages.common.checks import may_log_images, reads_simulated
from adpet.stages.common.tables import evenly, healthy_scans, read_results, write_table
from adpet.stages.explain.controls import sanity_tables, truth_scores, truths_of, z_maps
from adpet.stages.explain.maps import (
    HealthyMaps,
    ScanMaps,
    Slices,
    Space,
    maps_of,
    mean_slices,
    slices_of,
    space_of,
)
from adpet.storage import atomic_write, flatten, read_json

# The maps of every scan, the suffix of their files, and the unit of their values.
KINDS = {"exact": ("cam", "logit"), "referenced": ("referenced", "SD"), "z-map": ("low_uptake", "SD")}

# Healthy reference scans and scored AD scans at the most: enough for patterns and intervals, and for memory.
MOST_HEALTHY = MOST_SCORED = 200

# Values inside, (v,), by kind and scan; means by kind and group: a diagnosis, or its correct or wrong part.
Values = dict[str, dict[str, Map]]
Means = dict[str, dict[str, Map]]
Groups = dict[str, list[str]]


def run(params: Params) -> None:
    """Write volumes, montages, tables and ``cam.json``; log to MLflow."""
    from adpet.stages.common.tracking import log_to_training  # here: workers need no MLflow

    # The search may have chosen the network's shape.
    trained = read_contract(paths.RUN, TrainingRun).lineage.params
    params = params.with_values(flatten({"model": trained["model"]}), source=str(paths.RUN))
    limit_threads(params.compute.threads)
    space = space_of(params)
    split = read_split(paths.SPLIT).drop_duplicates("scan", keep="first")
    scans = _with_answers(split[split["part"] == "test"])
    healthy = split.loc[(split["part"] != "test") & (split["diagnosis"] == "CN"), "scan"].tolist()
    baseline = mean_slices(healthy)
    healthy = evenly(healthy, MOST_HEALTHY)
    shown = progress(
        maps_of([*healthy, *scans["scan"]], baseline, params),
        label="explain", unit="scan", total=len(healthy) + len(scans),
    )  # fmt: skip
    low = z_maps(scans["scan"].tolist(), healthy_scans(split), space, params)
    references = HealthyMaps(list(islice(shown, len(healthy))))
    groups, scored = _groups(scans), _scored(scans, params)
    examined = scans.loc[scans["diagnosis"] == "AD", "scan"].head(params.explain.sanity_scans).tolist()
    kept = {*scored["scan"], *examined}
    means, values = _write_scans(
        shown, references, scans, low, space, groups=groups, kept=kept, params=params
    )
    integrated = means["integrated"]
    outside = scoring.outside_share(integrated["ad"], integrated["cn"], space.planes_of_brain())
    regions = _write_groups(means, groups, references.by_depth, space, params)
    facts = _facts(groups, regions)
    facts |= {
        "outside": round(outside, 6),
        "alarms": scoring.alarms_of(outside),
        "method": references.method,
        "planes": len(space.grid.y_mm),
        "reference_scans": len(healthy),
        "truth": _write_truth(values, scored, healthy, space, params),
        "sanity": _write_sanity(values["referenced"], examined, baseline, space, params),
    }
    write_contract(paths.CAM, facts, Saliency)
    for alarm in facts["alarms"]:
        print(f"ALARM: {alarm}")
    files: dict[str | None, list[Path]] = {
        "explain/groups": [paths.CAM, paths.EXPLAIN / "regions.csv", paths.EXPLAIN / "groups"]
    }
    private = ("montages", "montages_referenced", "volumes") if may_log_images(params) else ()
    files |= {f"explain/{folder}": [paths.EXPLAIN / folder] for folder in ("sanity", *private)}
    log_to_training(params, files)


def _with_answers(scans: pd.DataFrame) -> pd.DataFrame:
    """Return the scans with `probability` and whether it is `correct`."""
    predictions = read_results(paths.PREDICTIONS)
    threshold = read_contract(paths.EVALUATION, EvaluationDocument).threshold
    pooling = Pooling.of(read_json(paths.POOLING))
    probability = {
        scan: pooled_probability(rows.to_numpy(np.float64), pooling)
        for scan, rows in predictions[predictions["part"] == "test"].groupby("scan")["probability"]
    }
    answers = scans.assign(probability=scans["scan"].map(probability)).reset_index(drop=True)
    return answers.assign(correct=(answers["probability"] >= threshold) == (answers["diagnosis"] == "AD"))


def _scored(scans: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Return simulated patients' correctly classified scans, at most `MOST_SCORED`."""
    found = scans[(scans["diagnosis"] == "AD") & scans["correct"] & reads_simulated(params)]
    return found[found["scan"].isin(evenly(found["scan"].tolist(), MOST_SCORED))]


def _write_scans(
    maps_of_scans: Iterable[ScanMaps],
    references: HealthyMaps,
    scans: pd.DataFrame,
    low: Iterable[Map],
    space: Space,
    *,
    groups: Groups,
    kept: set[str],
    params: Params,
) -> tuple[Means, Values]:
    """Write the volumes of each scan and some montages.

    `maps_of_scans` and `low`, the z-maps' values inside, are in the order of `scans`.

    Returns
    -------
    means : mapping of str to mapping of str to (i, j, k) ndarray
        By map and group; of ``integrated``, the integrated gradients, (n, h, w).
    values : mapping of str to mapping of str to (v,) ndarray
        By map and scan of those `kept`.
    """
    most = params.explain.montages
    half = {"AD": (most + 1) // 2, "CN": most // 2}
    drawn = {
        scan
        for diagnosis, wanted in half.items()
        for scan in scans.loc[scans["diagnosis"] == diagnosis, "scan"].head(wanted)
    }
    members = {name: set(of_group) for name, of_group in groups.items()}
    sums: dict[tuple[str, str], Any] = {}
    values: Values = {kind: {} for kind in KINDS}
    with (
        atomic_write(paths.EXPLAIN / "volumes") as folder,
        atomic_write(paths.EXPLAIN / "montages") as montages,
        atomic_write(paths.EXPLAIN / "montages_referenced") as montages_referenced,
    ):
        for one in (folder, montages, montages_referenced):
            one.mkdir()
        rows = zip(scans["scan"], scans["diagnosis"], maps_of_scans, low, strict=True)
        for scan, diagnosis, maps, low_uptake in rows:
            volumes = {
                "exact": space.volume_of(maps.exact),
                "referenced": space.filled(references.z_scored(maps)),
                "z-map": space.filled(low_uptake),
            }
            for kind, data in (volumes | {"integrated": maps.integrated}).items():
                for name in (name for name in groups if scan in members[name]):
                    # To -0.0 every number adds as itself.
                    sums[kind, name] = sums.get((kind, name), -0.0) + data.astype(np.float64)
            for kind, (suffix, _) in KINDS.items():
                _write_map(folder / f"{scan}_{suffix}.nii.gz", volumes[kind], space)
                if scan in kept:
                    values[kind][scan] = volumes[kind][space.inside]
            if scan in drawn:
                settings: dict[str, Any] = {
                    "y_mm": np.array(space.grid.y_mm),
                    "title": f"{scan}: {diagnosis}, mean logit {maps.logits.mean():+.2f}",
                    "hide_below": params.explain.hide_below,
                }
                slices = own_planes(slices_of(scan))
                figure = cam_montage(slices, resize_maps(maps.exact, space.grid.size), **settings)
                save_figure(figure, montages / f"{scan}.png")
                planes = coronal_slices(volumes["referenced"], space.template.affine, space.grid)
                figure = cam_montage(slices, planes, unit=REFERENCED_UNIT, **settings)
                save_figure(figure, montages_referenced / f"{scan}.png")
    means = {
        kind: {name: np.asarray(sums[kind, name] / len(groups[name]), np.float32) for name in groups}
        for kind in (*KINDS, "integrated")
    }
    return means, values


def _write_map(path: Path, data: Map, space: Space) -> None:
    write_volume(path, Volume(data, space.template.affine), space="mni")


def _groups(scans: pd.DataFrame) -> Groups:
    """Return the non-empty groups."""
    groups: Groups = {}
    for diagnosis in ("AD", "CN"):
        rows = scans[scans["diagnosis"] == diagnosis]
        parts = {"": rows, "_correct": rows[rows["correct"]], "_wrong": rows[~rows["correct"]]}
        groups |= {
            f"{diagnosis.lower()}{part}": chosen["scan"].tolist()
            for part, chosen in parts.items()
            if len(chosen)
        }
    return groups


def _write_groups(
    group_means: Means, groups: Groups, references: dict[str, Reference], space: Space, params: Params
) -> pd.DataFrame:
    """Write group maps and figures; return the table of regions."""
    means: dict[str, Map] = {}
    with atomic_write(paths.EXPLAIN / "groups") as folder:
        folder.mkdir()
        for kind, (suffix, unit) in KINDS.items():
            found = group_means[kind].copy()
            means |= {f"{name}_{kind}": data for name, data in found.items()}
            found["difference"] = found["ad"] - found["cn"]
            for name, data in found.items():
                _write_map(folder / f"{name}_{suffix}.nii.gz", data, space)
            figure = group_map_figure(
                found["ad"], found["cn"], found["difference"], space.template.data, space.template.affine,
                n_ad=len(groups["ad"]), n_cn=len(groups["cn"]),
                hide_below=params.explain.hide_below, unit=unit,
            )  # fmt: skip
            save_figure(figure, folder / ("groups.png" if kind == "exact" else f"groups_{kind}.png"))
        for depth, reference in references.items():
            _write_map(folder / f"reference_{depth}.nii.gz", space.filled(reference.mean), space)
    uptake = {name: _mean_uptake(groups[name]) for name in ("ad", "cn")}
    atlas = load_atlas(params.explain.atlas, params.normalize.grid_mm)
    table = scoring.region_table(means, uptake, atlas, space.brain)
    write_table(table, paths.EXPLAIN / "regions.csv")
    return table


def _mean_uptake(scans: list[str]) -> Map:
    """Return mean SUVR over the scans that show a voxel."""
    total, shown = np.zeros(()), np.zeros(())
    for scan in scans:
        data = read_volume(paths.VOLUMES / f"{scan}.nii").data
        total, shown = total + data, shown + (data != 0)
    return np.asarray(total / np.maximum(shown, 1), dtype=np.float32)


def _facts(groups: Groups, regions: pd.DataFrame) -> dict[str, Any]:
    """Return scan counts and AD pattern, by map and group."""
    return {
        kind: {
            group: {"scans": len(scans), "ad_pattern": scoring.pattern_share(regions, f"{group}_{kind}")}
            for group, scans in groups.items()
        }
        for kind in scoring.NETWORK_MAPS
    }


def _write_truth(
    values: Values, scored: pd.DataFrame, healthy: list[str], space: Space, params: Params
) -> dict[str, Any]:
    """Score the maps against the simulated cohort's truth, if any."""
    deficits = truths_of(scored, space)
    table, facts = truth_scores(values, deficits, scored, healthy, space, params=params)
    write_table(table, paths.EXPLAIN / "truth.csv")
    return facts


def _write_sanity(
    referenced: Mapping[str, Map], chosen: list[str], baseline: Slices, space: Space, params: Params
) -> dict[str, Any]:
    """Write the tables and the figure of the sanity checks."""
    with atomic_write(paths.EXPLAIN / "sanity") as folder:
        folder.mkdir()
        if not chosen:
            return {"scans": 0}
        cascade, curves, areas = sanity_tables(
            {scan: space.filled(referenced[scan]) for scan in chosen}, chosen, baseline, params
        )
        write_table(cascade, folder / "cascade.csv")
        write_table(curves, folder / "curves.csv")
        save_figure(sanity_figure(cascade, curves), folder / "sanity.png")
    rows = cascade[["layer", "similarity"]].round(6).to_dict("records")
    return {"scans": len(chosen), "cascade": rows, "area_over_random": areas}
