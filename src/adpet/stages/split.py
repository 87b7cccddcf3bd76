"""Assign the subjects to the test set and validation folds."""

from adpet import paths
from adpet.cohort.scans import read_scans, subject_table
from adpet.cohort.splits import (
    assign_slices,
    check_disjoint,
    split_by_slice,
    split_by_subject,
    split_summary,
    write_split,
)
from adpet.params import Params
from adpet.stages.common.tables import read_slices_table
from adpet.storage import write_json


def run(params: Params) -> None:
    """Write ``split.csv``, one row per slice, and ``split.json``."""
    settings = params.split
    scans = read_scans(paths.SCANS)
    slices = read_slices_table(paths.SLICES_TABLE)
    scans = scans[scans["scan"].isin(slices["scan"])]
    if settings.unit == "slice":
        slices = slices.merge(scans[["scan", "subject", "diagnosis"]], on="scan", validate="many_to_one")
        split = split_by_slice(
            slices, test_fraction=settings.test_fraction, folds=settings.folds, seed=params.seed
        )
    else:
        parts = split_by_subject(
            subject_table(scans),
            test_fraction=settings.test_fraction,
            folds=settings.folds,
            seed=params.seed,
        )
        split = assign_slices(slices, scans, parts)
        check_disjoint(split)
    write_split(paths.SPLIT, split)
    write_json(paths.SPLIT_SUMMARY, split_summary(split, scans))
