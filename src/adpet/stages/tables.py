"""The tables that one stage hands to the next, with their columns, and how they are read."""

from pathlib import Path

import pandas as pd

from adpet.cohort.scans import read_typed

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
