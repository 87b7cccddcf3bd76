"""What the training scans were like: regional uptake of healthy people, and limits of the quality checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.answering.limits import limits_of, profile_distances, profile_of
from adpet.answering.quality import CHECKS, measures, view_measures
from adpet.answering.regions import regional_means
from adpet.artifacts import ALIGNMENT, SCANS, VOLUMES
from adpet.cohort.scans import read_scans
from adpet.imaging.align import brain_points
from adpet.imaging.regions import Atlas
from adpet.imaging.standard import Standard
from adpet.imaging.volume import read_header, read_volume
from adpet.stages.tables import MATRIX_COLUMNS, read_alignment
from adpet.workers import progress

# An SD of two like subjects is 0, and nobody can be compared with it.
SMALLEST_SD = 0.01


@dataclass(frozen=True, eq=False)
class Cohort:
    """The training scans in numbers.

    Attributes
    ----------
    cn_mean, cn_sd : list of float
        Uptake of the atlas' regions in cognitively normal training subjects, one scan each.
    profile : dict
        As `profile_of` gives it, of all training scans.
    limits : list of dict
        As `limits_of` gives them.
    """

    cn_mean: list[float]
    cn_sd: list[float]
    profile: dict[str, Any]
    limits: list[dict[str, Any]]


def measured_cohort(
    split: pd.DataFrame,
    standard: Standard,
    atlas: Atlas,
    tissue: npt.NDArray[np.uint8],
    *,
    min_similarity: float,
) -> Cohort:
    """Measure the scans of everyone who is not tested.

    Parameters
    ----------
    split : DataFrame
        As `read_split` gives it, a row a slice.
    standard : Standard
        The space that the scans were brought to.
    atlas : Atlas
        Its labels on the standard grid.
    tissue : (i, j, k) uint8 ndarray
        1 where a voxel of the standard grid is mostly grey matter, 2 where it is mostly white matter.
    min_similarity : float
        Correlation with the template below which `standardize` set scans aside.

    Returns
    -------
    Cohort
        Uptake as a ratio to the reference region.

    Raises
    ------
    InputError
        If a scan, its registered volume or a table of a stage before is not there or cannot be read.
    """
    scans = _training_scans(split)
    labels = list(atlas.names)
    points = brain_points(standard.brain, standard.template.affine)
    uptakes: list[npt.NDArray[np.float64]] = []
    rows: list[dict[str, float]] = []
    for scan in progress(scans.to_dict("records"), label="export", unit="scan", total=len(scans)):
        volume = read_volume(VOLUMES / f"{scan['scan']}.nii")
        header = read_header(Path(scan["path"]))
        matrix = np.eye(4)
        matrix[:3] = np.reshape([scan[column] for column in MATRIX_COLUMNS], (3, 4))
        uptakes.append(np.nan_to_num(regional_means(volume.data, atlas.labels, labels)))
        no_profile = {"mean": uptakes[-1], "precision": np.zeros((len(labels), len(labels)))}
        rows.append(
            measures(
                volume.data,
                brain=standard.brain,
                tissue=tissue,
                uptake=uptakes[-1],
                profile=no_profile,
                similarity=scan["similarity"],
            )
            | view_measures(header.shape, header.affine, matrix, points)
        )
    uptake = np.stack(uptakes)
    measured = {name: np.array([row[name] for row in rows]) for name in CHECKS}
    measured["profile_distance"] = profile_distances(uptake, scans["subject"].to_numpy())
    normal = uptake[((scans["diagnosis"] == "CN") & ~scans.duplicated("subject")).to_numpy()]
    return Cohort(
        cn_mean=normal.mean(axis=0).round(6).tolist(),
        cn_sd=np.maximum(normal.std(axis=0, ddof=1), SMALLEST_SD).round(6).tolist(),
        profile=profile_of(uptake),
        limits=limits_of(measured, min_similarity=min_similarity),
    )


def _training_scans(split: pd.DataFrame) -> pd.DataFrame:
    """Return one row a training scan: `scan`, `subject`, `diagnosis`, `path`, `similarity` and the matrix."""
    training = split.loc[split["part"] != "test", ["scan", "subject", "diagnosis"]].drop_duplicates("scan")
    paths = read_scans(SCANS)[["scan", "path"]]
    return training.merge(paths, on="scan").merge(read_alignment(ALIGNMENT), on="scan")
