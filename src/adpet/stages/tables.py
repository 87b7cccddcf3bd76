"""The tables that one stage hands to the next, and those of results, and how they are read."""

from pathlib import Path

import pandas as pd

from adpet.cohort.scans import read_typed
from adpet.errors import InputError

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
