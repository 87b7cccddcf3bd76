"""List the scans of a collection, and what of it cannot be used."""

from functools import partial
from pathlib import Path

from adpet.artifacts import INGEST, REJECTED, SCANS, write_json
from adpet.cohort.collection import read_collection
from adpet.cohort.scans import ingest_summary, require_usable, write_rejected, write_scans
from adpet.params import Params
from adpet.workers import progress


def run(params: Params) -> None:
    """Write ``scans.csv``, ``rejected.csv`` and ``ingest.json``; fail where too little is usable."""
    cohort = params.cohort
    collection = read_collection(
        Path(cohort.raw),
        layout=cohort.layout,
        table=Path(cohort.table) if cohort.table else None,
        diagnosis_column=cohort.diagnosis_column,
        diagnosis_map=cohort.diagnosis_map,
        progress=partial(progress, label="ingest", unit="file"),
    )
    # Written first: the error of `require_usable` sends the reader to it.
    write_rejected(REJECTED, collection.rejected)
    require_usable(collection, max_rejected_fraction=cohort.max_rejected_fraction)
    write_scans(SCANS, collection.scans)
    write_json(INGEST, ingest_summary(collection))
