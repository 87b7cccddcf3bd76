"""Assign the subjects to the test set and validation folds."""

from typing import Any

from adpet import paths
from adpet.cohort.scans import read_scans, read_typed, subject_table
from adpet.cohort.splits import (
    assign_slices,
    check_disjoint,
    split_by_slice,
    split_by_subject,
    split_summary,
    write_split,
)
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
        split = split_by_slice(slices, **options)
    else:
        split = assign_slices(slices, scans, split_by_subject(subject_table(scans), **options))
        check_disjoint(split)
    write_split(paths.SPLIT, split)
    write_json(paths.SPLIT_SUMMARY, split_summary(split, scans))
