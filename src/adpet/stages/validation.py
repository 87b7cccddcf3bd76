"""What the network that was validated made of the validation fold: threshold and weights are chosen on it.

A network that is then trained on that fold too could not be asked for it any more.
"""

from pathlib import Path

import pandas as pd

from adpet.artifacts import written_aside
from adpet.cohort.scans import read_typed
from adpet.cohort.splits import SPLIT_COLUMNS

# ``validation.csv``, one row a slice; no rows where the tested validate, on whom nothing more is chosen.
VALIDATION_COLUMNS = {**SPLIT_COLUMNS, "probability": "float64"}


def write_validation(table: pd.DataFrame, path: Path) -> None:
    """Write ``validation.csv`` from rows of the split with the `probability` of AD."""
    with written_aside(path) as aside:
        table[list(VALIDATION_COLUMNS)].to_csv(aside, index=False, lineterminator="\n", float_format="%.9g")


def read_validation(path: Path) -> pd.DataFrame:
    """Read ``validation.csv``.

    Raises
    ------
    InputError
        If there is no such table, or it is not one.
    """
    return read_typed(path, VALIDATION_COLUMNS)
