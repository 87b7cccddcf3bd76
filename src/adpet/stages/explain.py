"""Draw what the network looks at: exact class activation maps of the test scans."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.artifacts import (
    CAM,
    EXPLAIN,
    MODEL,
    RUN,
    SLICES,
    SPLIT,
    read_json,
    write_json,
    written_aside,
)
from adpet.cohort.splits import read_split
from adpet.evidence.brain_figures import cam_montage, group_map_figure
from adpet.evidence.drawing import save_figure
from adpet.imaging.coronal import CoronalGrid, back_project, resize_maps
from adpet.imaging.template import brain_mask, fdg_template
from adpet.imaging.volume import Volume, write_volume
from adpet.learning.cam import class_activation_maps
from adpet.learning.saving import load_model
from adpet.learning.training import set_determinism
from adpet.params import Params
from adpet.stages.fitting import may_log_images
from adpet.stages.slice import coronal_grid
from adpet.tracking.runs import append_to_run, find_run
from adpet.tracking.store import connect
from adpet.workers import progress


def run(params: Params) -> None:
    """Write a CAM volume a test scan, montages of some, the groups' means, and ``cam.json``."""
    set_determinism(params.seed, params.compute.threads)
    model = load_model(MODEL)
    grid = coronal_grid(params)
    template = fdg_template(params.standardize.grid_mm)
    split = read_split(SPLIT)
    scans = split[split["part"] == "test"].drop_duplicates("scan")
    drawn = _balanced(scans, params.explain.montages)
    groups = {diagnosis: _Mean(template) for diagnosis in ("AD", "CN")}
    with written_aside(EXPLAIN / "volumes") as volumes, written_aside(EXPLAIN / "montages") as montages:
        volumes.mkdir()
        montages.mkdir()
        rows = zip(scans["scan"], scans["diagnosis"], strict=True)
        for scan, diagnosis in progress(rows, label="explain", unit="scan", total=len(scans)):
            slices = np.load(SLICES / f"{scan}.npy")
            maps, logits = class_activation_maps(model, slices)
            data = back_project(maps, grid, shape=template.data.shape, affine=template.affine)
            write_volume(volumes / f"{scan}_cam.nii.gz", Volume(data, template.affine), space="mni")
            groups[diagnosis].add(data)
            if scan in drawn:
                figure = cam_montage(
                    slices,
                    resize_maps(maps, grid.size),
                    y_mm=np.array(grid.y_mm),
                    title=f"{scan}: {diagnosis}, mean logit {logits.mean():+.2f}",
                    hide_below=params.explain.hide_below,
                )
                save_figure(figure, montages / f"{scan}.png")
    _write_groups(groups, template, params)
    write_json(CAM, _facts(groups, grid, brain_mask(params.standardize.grid_mm)))
    _log(params)


class _Mean:
    """The running mean of volumes on one grid."""

    def __init__(self, like: Volume) -> None:
        self._sum = np.zeros(like.data.shape, dtype=np.float64)
        self.scans = 0

    def add(self, data: npt.NDArray[np.float32]) -> None:
        self._sum += data
        self.scans += 1

    @property
    def mean(self) -> npt.NDArray[np.float32]:
        return (self._sum / max(1, self.scans)).astype(np.float32)


def _balanced(scans: pd.DataFrame, count: int) -> set[str]:
    """Return `count` scans, half of them AD, in the order of the table."""
    half = {"AD": (count + 1) // 2, "CN": count // 2}
    return {
        scan
        for diagnosis, wanted in half.items()
        for scan in scans.loc[scans["diagnosis"] == diagnosis, "scan"].head(wanted)
    }


def _write_groups(groups: dict[str, _Mean], template: Volume, params: Params) -> None:
    means = {name: group.mean for name, group in groups.items()}
    difference = means["AD"] - means["CN"]
    with written_aside(EXPLAIN / "groups") as folder:
        folder.mkdir()
        for name, data in (("ad", means["AD"]), ("cn", means["CN"]), ("difference", difference)):
            write_volume(folder / f"{name}_cam.nii.gz", Volume(data, template.affine), space="mni")
        figure = group_map_figure(
            means["AD"],
            means["CN"],
            difference,
            template.data,
            template.affine,
            n_ad=groups["AD"].scans,
            n_cn=groups["CN"].scans,
            hide_below=params.explain.hide_below,
        )
        save_figure(figure, folder / "groups.png")


def _facts(groups: dict[str, _Mean], grid: CoronalGrid, brain: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return how many scans stand behind the means, and how much of each mean lies inside the brain."""
    facts: dict[str, Any] = {"planes": len(grid.y_mm)}
    for name, group in groups.items():
        mass = np.abs(group.mean)
        total = float(mass.sum())
        inside = float(mass[brain].sum()) / total if total else 0.0
        facts[name] = {"scans": group.scans, "share_inside_brain": round(inside, 6)}
    return facts


def _log(params: Params) -> None:
    connect(Path.cwd(), experiment=params.tracking.experiment)
    with append_to_run(find_run(read_json(RUN)["lineage"]["id"], "train")) as tracked:
        for path in (CAM, *sorted((EXPLAIN / "groups").iterdir())):
            tracked.log_artifact(path, "explain/groups")
        if may_log_images(params):
            for folder in ("montages", "volumes"):
                for path in sorted((EXPLAIN / folder).iterdir()):
                    tracked.log_artifact(path, f"explain/{folder}")
