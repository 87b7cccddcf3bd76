"""Assign the subjects to the test set and validation folds."""

from typing import Any

from adpet import paths
from adpet.cohort import splits
from adpet.cohort.scans import read_scans, read_typed, subject_table
from adpet.params import Params
from adpet.stages.common.tables import SLICE_COLUMNS
from adpet.storage import write_json


def run(params: Params) -> None:
    """Write ``split.csv``, one row per slice, and ``split.json``."""
    options: dict[str, Any] = params.split.model_dump(include={"test_fraction", "folds", "seed"})
    scans = read_scans(paths.SCANS)
    slices = read_typed(paths.SLICES_TABLE, SLICE_COLUMNS)
    scans = scans[scans["scan"].isin(slices["scan"])]
    if params.split.unit == "slice":
        slices = slices.merge(scans[["scan", "subject", "diagnosis"]], on="scan", validate="many_to_one")
        split = splits.split_by_slice(slices, **options)
    else:
        split = splits.assign_slices(slices, scans, splits.split_by_subject(subject_table(scans), **options))
        splits.check_disjoint(split)
    splits.write_split(paths.SPLIT, split)
    write_json(paths.SPLIT_SUMMARY, splits.split_summary(split, scans))
