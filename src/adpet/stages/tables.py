"""Tables that stages hand to each other, and whose scans they describe."""

from pathlib import Path

import pandas as pd

from adpet.cohort.scans import read_typed
from adpet.cohort.splits import SPLIT_COLUMNS
from adpet.errors import InputError
from adpet.params import Params
from adpet.paths import SIMULATED_RAW
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

# What is a word in tables of results, whatever it looks like: a subject or a site may be named "012" or "NA".
WORDS = dict.fromkeys(("scan", "subject", "session", "diagnosis", "part", "group"), "str")


def read_alignment(path: Path) -> pd.DataFrame:
    """Read ``alignment.csv``.

    Raises
    ------
    InputError
        If there is no such table, or it is not one.
    """
    return read_typed(path, ALIGNMENT_COLUMNS)


def read_slices_table(path: Path) -> pd.DataFrame:
    """Read ``slices.csv``.

    Raises
    ------
    InputError
        If there is no such table, or it is not one.
    """
    return read_typed(path, SLICE_COLUMNS)


def read_results(path: Path) -> pd.DataFrame:
    """Read a table of results; only an empty cell is a value that is not there.

    Raises
    ------
    InputError
        If there is no such table.
    """
    if not path.exists():
        raise InputError(f"{path}: required, but not there; run: dvc repro")
    return pd.read_csv(path, dtype=WORDS, keep_default_na=False, na_values=[""])


# ``validation.csv``, one row a slice; no rows where the tested validate, on whom nothing more is chosen.
VALIDATION_COLUMNS = {**SPLIT_COLUMNS, "probability": "float64"}


def write_validation(table: pd.DataFrame, path: Path) -> None:
    """Write ``validation.csv`` from rows of the split with the `probability` of AD."""
    with atomic_write(path) as aside:
        table[list(VALIDATION_COLUMNS)].to_csv(aside, index=False, lineterminator="\n", float_format="%.9g")


def read_validation(path: Path) -> pd.DataFrame:
    """Read ``validation.csv``.

    Raises
    ------
    InputError
        If there is no such table, or it is not one.
    """
    return read_typed(path, VALIDATION_COLUMNS)


def may_log_images(params: Params) -> bool:
    """True if images of single scans may go to MLflow."""
    return params.tracking.log_images or reads_simulated(params)


def reads_simulated(params: Params) -> bool:
    """Say whether the scans are the simulated cohort's, whose truth is known."""
    return Path(params.cohort.raw).resolve().is_relative_to(SIMULATED_RAW.resolve())
