"""Tables that stages hand to each other."""

from pathlib import Path

import pandas as pd

from adpet import paths
from adpet.cohort.scans import read_typed
from adpet.cohort.splits import SPLIT_COLUMNS
from adpet.errors import InputError
from adpet.storage import atomic_write

MATRIX_COLUMNS = [f"m{row}{column}" for row in range(3) for column in range(4)]

# ``alignment.csv``: similarity is a correlation, the matrix maps MNI mm to the scan's mm.
ALIGNMENT_COLUMNS = {
    "scan": "str",
    "passed": "bool",
    "similarity": "float64",
    "reason": "str",
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
