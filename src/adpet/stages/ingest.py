"""List the scans of a collection, and its unusable files."""

from functools import partial
from pathlib import Path

from adpet import paths
from adpet.cohort.reader import read_collection
from adpet.cohort.scans import require_usable, subject_table, write_table
from adpet.cohort.splits import cross_validation_parts, split_by_subject
from adpet.cohort.summary import ingest_report, report_text
from adpet.cohort.tables import require_inside
from adpet.errors import InputError
from adpet.parallel import map_in_processes, progress
from adpet.params import Params
from adpet.storage import read_yaml, write_json

# The remote in .dvc/config that data of single participants goes to.
LAB = "lab"


def run(params: Params) -> None:
    """Write the tables of scans and ``ingest.json``; print a summary."""
    cohort, raw = params.cohort, Path(params.cohort.raw)
    _require_lab_remote(raw)
    collection = read_collection(
        raw,
        **cohort.model_dump(exclude={"raw", "table", "diagnosis_table", "max_rejected_fraction"}),
        table=_table_inside(params, "table", cohort.table),
        diagnosis_table=_table_inside(params, "diagnosis_table", cohort.diagnosis_table),
        each=partial(map_in_processes, workers=params.compute.workers, cluster=params.compute.cluster),
        notes=paths.INGEST_NOTES,
        progress=partial(progress, label="ingest", unit="file"),
    )
    # Written and told first: the error of `require_usable` sends the reader to them.
    write_table(paths.REJECTED, collection.rejected)
    report = ingest_report(collection)
    print(report_text(report))
    require_usable(collection, max_rejected_fraction=cohort.max_rejected_fraction)
    # Too few subjects for a later stage are refused now, not after hours of work.
    people, split, folds = subject_table(collection.scans), params.split, params.evaluate.cross_validation
    if split.unit == "subject":
        split_by_subject(people, test_fraction=split.test_fraction, folds=split.folds, seed=split.seed)
    if folds:
        cross_validation_parts(collection.scans, folds=folds, seed=split.seed)
    found = set(collection.score_only["group"]) | set(collection.score_only["diagnosis"])
    if missing := [word for word in cohort.score_only if word not in found]:
        raise InputError(
            f"cohort.score_only: required diagnoses of usable scans; received {', '.join(missing)}; "
            "rejected.csv has the collection's terms"
        )
    write_table(paths.SCANS, collection.scans)
    write_table(paths.SCORE_ONLY, collection.score_only)
    write_json(paths.INGEST, report)


def _require_lab_remote(raw: Path) -> None:
    """Refuse scans that `dvc push` sends to the default remote."""
    for folder in (raw, *raw.parents):
        file = folder.with_name(f"{folder.name}.dvc") if folder.name else folder
        if not file.is_file():
            continue
        outs = [out for out in read_yaml(file)["outs"] if out["path"] == folder.name]
        if any(out.get("push", True) and out.get("remote") != LAB for out in outs):
            raise InputError(
                f"{file}: required `remote: {LAB}`, so that `dvc push` keeps the scans out of the default "
                f"remote; received none; run: echo '  remote: {LAB}' >> {file}"
            )


def _table_inside(params: Params, key: str, name: str | None) -> Path | None:
    """Return the path of a table inside of the collection."""
    raw = Path(params.cohort.raw)
    table = raw / name if name else None
    try:
        if table:
            require_inside(table, raw, params.cohort.link_targets)
    except InputError as error:
        raise InputError(
            f"params.yaml: cohort.{key}: required a path inside cohort.raw ({raw}), so that DVC versions "
            f"it with the scans; received {name}; move the file there"
        ) from error
    return table
