"""List the scans of a collection, and what of it cannot be used."""

from functools import partial
from pathlib import Path

from adpet.cohort.reader import read_collection
from adpet.cohort.scans import require_usable, write_rejected, write_scans
from adpet.cohort.summary import ingest_report, report_text
from adpet.errors import InputError
from adpet.parallel import progress
from adpet.params import Params
from adpet.paths import INGEST, INGEST_NOTES, REJECTED, SCANS
from adpet.storage import read_yaml, write_json


def run(params: Params) -> None:
    """Write ``scans.csv``, ``rejected.csv`` and ``ingest.json``; fail where too little is usable.

    Prints what it found: what is used, what was set aside and why, and how alike the groups are.
    """
    cohort = params.cohort
    if not params.tracking.push_scans:
        _require_kept_here(Path(cohort.raw))
    collection = read_collection(
        Path(cohort.raw),
        layout=cohort.layout,
        table=_table_inside(Path(cohort.raw), "table", cohort.table),
        diagnosis_column=cohort.diagnosis_column,
        diagnosis_map=cohort.diagnosis_map,
        diagnosis=cohort.diagnosis,
        diagnosis_table=_table_inside(Path(cohort.raw), "diagnosis_table", cohort.diagnosis_table),
        adni_level=cohort.adni_level,
        workers=params.compute.workers,
        notes=INGEST_NOTES,
        progress=partial(progress, label="ingest", unit="file"),
    )
    # Written first: the error of `require_usable` sends the reader to it.
    write_rejected(REJECTED, collection.rejected)
    require_usable(collection, max_rejected_fraction=cohort.max_rejected_fraction)
    write_scans(SCANS, collection.scans)
    report = ingest_report(collection)
    write_json(INGEST, report)
    print(report_text(report))


def _require_kept_here(raw: Path) -> None:
    """Refuse a folder of scans that ``dvc add`` has put under DVC in such a way that ``dvc push`` sends it.

    Raises
    ------
    InputError
        Where its ``.dvc`` file lacks ``push: false``.
    """
    for folder in (raw, *raw.parents):
        file = folder.with_name(f"{folder.name}.dvc") if folder.name else folder
        if not file.is_file():
            continue
        outs = (read_yaml(file) or {}).get("outs") or []
        if any(out.get("push", True) for out in outs if out.get("path") == folder.name):
            raise InputError(
                f"{file}: required `push: false` for {folder.name}, so that `dvc push` sends no scans; "
                "received none; add that line below its `path:`, or set tracking.push_scans"
            )


def _table_inside(raw: Path, key: str, name: str | None) -> Path | None:
    """Return the path of one of the collection's tables, which must lie where DVC versions it with the scans.

    Raises
    ------
    InputError
        Where it lies elsewhere.
    """
    if name is None:
        return None
    table = raw / name
    if not table.resolve().is_relative_to(raw.resolve()):
        raise InputError(
            f"params.yaml: cohort.{key}: required a path inside cohort.raw ({raw}), so that DVC versions "
            f"it with the scans; received {name}; move the file there"
        )
    return table
