"""Tables and volumes that stages hand to each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.scans import read_scans, read_typed
from adpet.cohort.splits import SPLIT_COLUMNS
from adpet.errors import InputError
from adpet.imaging.nifti import read_volume
from adpet.imaging.normative import Image, Norms, fit_norms, smoothed_in_brain
from adpet.imaging.registration import Mask
from adpet.params import Params
from adpet.storage import atomic_write

MATRIX_COLUMNS = [f"m{row}{column}" for row in range(3) for column in range(4)]

# Quality measures of a scan by itself, as `adpet.inference.quality.CHECKS` names them.
MEASURE_COLUMNS = [
    "similarity", "brain_in_view", "field_of_view_mm", "grey_white_contrast", "outside_share", "asymmetry",
    "roughness", "stripes", "negative_share",
]  # fmt: skip

# ``alignment.csv``: why a scan was set aside or flagged; the matrix maps MNI mm to the scan's mm.
ALIGNMENT_COLUMNS = {
    "scan": "str",
    "passed": "bool",
    "reason": "str",
    "flagged": "str",
    **dict.fromkeys(MEASURE_COLUMNS, "float64"),
    **dict.fromkeys(MATRIX_COLUMNS, "float64"),
}

# ``slices.csv``: y is MNI, in mm.
SLICE_COLUMNS = {"scan": "str", "index": "int64", "y_mm": "float64"}

# ``validation.csv``, one row a slice; none if the test set validates: nothing more is chosen on it.
VALIDATION_COLUMNS = {**SPLIT_COLUMNS, "probability": "float64"}

# Columns that are read as text: a subject or a site may be named "012" or "NA".
WORDS = dict.fromkeys(("scan", "subject", "session", "diagnosis", "part", "group"), "str")


def read_alignment() -> pd.DataFrame:
    """Read ``alignment.csv``."""
    return read_typed(paths.ALIGNMENT, ALIGNMENT_COLUMNS)


def read_results(path: Path) -> pd.DataFrame:
    """Read a table of results; only empty cells are missing."""
    if not path.exists():
        raise InputError(f"{path}: required, but not there; run: dvc repro")
    return pd.read_csv(path, dtype=WORDS, keep_default_na=False, na_values=[""])


def write_table(table: pd.DataFrame, path: Path, *, float_format: str | None = "%.9g") -> None:
    """Write a table as CSV; None keeps all digits."""
    with atomic_write(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n", float_format=float_format)


def read_ages() -> "pd.Series[float]":
    """Read the ages in years by scan; NaN if unknown."""
    return read_scans(paths.SCANS).set_index("scan")["age"]


def healthy_scans(split: pd.DataFrame) -> list[str]:
    """Return the first CN scan of each training subject."""
    healthy = split[(split["part"] != "test") & (split["diagnosis"] == "CN")]
    return healthy.drop_duplicates("subject")["scan"].tolist()


def evenly(scans: Sequence[str], most: int) -> list[str]:
    """Return at most `most` of the scans, evenly spaced."""
    places = np.linspace(0, len(scans) - 1, min(len(scans), most)).round().astype(int)
    return [scans[place] for place in places]


def read_uptake(scan: str, brain: Mask, params: Params) -> Image:
    """Read smoothed SUVR in the brain, (v,); NaN if hidden."""
    width = {"fwhm_mm": params.explain.smooth_mm, "grid_mm": params.normalize.grid_mm}
    return smoothed_in_brain(read_volume(paths.VOLUMES / f"{scan}.nii").data, brain, **width)[brain]


def read_norms(healthy: Sequence[str], brain: Mask, params: Params) -> Norms:
    """Fit normative images to healthy scans, one a subject."""
    uptake = (read_uptake(scan, brain, params) for scan in healthy)
    return fit_norms(uptake, read_ages()[list(healthy)].to_numpy(np.float64))
