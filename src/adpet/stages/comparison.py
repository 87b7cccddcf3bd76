"""The baselines of an evaluation: what the scans table tells, regional means, and voxels."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.artifacts import SCANS, VOLUMES
from adpet.cohort.scans import read_scans
from adpet.evidence.baselines import (
    FACTS,
    baseline_predictions,
    fact_model,
    is_known,
    region_means,
    region_model,
    voxel_features,
)
from adpet.imaging.regions import BUILT_IN, load_atlas
from adpet.imaging.template import brain_mask
from adpet.imaging.volume import read_volume
from adpet.workers import progress

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

# Edge of the cubes, in mm, that the linear baseline averages voxels over.
BLOCK_MM = 9.0


class Baseline(NamedTuple):
    """Predictions of the test scans, and of the training scans by models that had not seen their subjects."""

    test: pd.DataFrame
    out_of_fold: pd.DataFrame


def baselines(split: pd.DataFrame, *, grid_mm: float) -> dict[str, Baseline]:
    """Fit every baseline to all training subjects, and predict the test subjects; by name.

    A fact that no scan has, such as the site of a single hospital's cohort, gives no baseline.
    """
    facts = read_scans(SCANS)[["scan", "session", "age", "sex", "site", "scanner"]]
    scans = split.drop_duplicates("scan")[["scan", "subject", "diagnosis", "part"]]
    scans = scans.merge(facts, on="scan", how="left", validate="one_to_one")
    voxels, regions = _of_volumes(scans["scan"], grid_mm)
    wanted: dict[str, tuple[npt.NDArray[np.float32] | pd.DataFrame, Pipeline | None]] = {
        "regions": (regions, region_model()),
        "voxels": (voxels, None),
    }
    for name, columns in FACTS.items():
        if is_known(scans, columns):
            wanted[name] = scans[list(columns)], fact_model(columns)
    training = (scans["part"] != "test").to_numpy()
    return {
        name: Baseline(*baseline_predictions(features, scans, training=training, model=model))
        for name, (features, model) in wanted.items()
    }


def _of_volumes(
    scans: "pd.Series[str]", grid_mm: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Read each standard volume once: (scans, blocks) and (scans, regions) features."""
    atlas = load_atlas(BUILT_IN, grid_mm)
    regions: list[npt.NDArray[np.float32]] = []

    def volumes() -> Iterator[npt.NDArray[np.float32]]:
        for scan in progress(scans, label="baselines", unit="scan", total=len(scans)):
            volume = read_volume(VOLUMES / f"{scan}.nii").data
            regions.append(region_means(volume, atlas.labels, list(atlas.names)))
            yield volume

    voxels = voxel_features(volumes(), brain_mask(grid_mm), block=max(1, round(BLOCK_MM / grid_mm)))
    return voxels, np.array(regions)
