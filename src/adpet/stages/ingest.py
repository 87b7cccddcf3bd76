"""List the scans of a collection, and its unusable files."""

from functools import partial
from pathlib import Path
from typing import Any

from adpet import paths
from adpet.cohort.reader import read_collection
from adpet.cohort.scans import Collection, require_usable, subject_table, write_table
from adpet.cohort.splits import cross_validation_parts, split_by_subject
from adpet.cohort.summary import ingest_report, report_text
from adpet.cohort.tables import require_inside
from adpet.errors import InputError
from adpet.parallel import map_in_processes, progress
from adpet.params import Cohort, External, Params
from adpet.storage import read_yaml, write_json

# The remote in .dvc/config that data of single participants goes to.
LAB = "lab"


def run(params: Params) -> None:
    """Write the tables of scans and ``ingest.json``; print a summary."""
    cohort, raw = params.cohort, Path(params.cohort.raw)
    require_lab_remote(raw)
    collection = collection_at(
        raw,
        params,
        layout=cohort.layout,
        **tables_inside(cohort, params),
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


def collection_at(folder: Path, params: Params, **changed: Any) -> Collection:
    """Read a collection as `cohort` in the parameters says.

    `changed` are other arguments of `read_collection`: layout and tables at least.
    """
    settings = params.cohort.model_dump(
        exclude={"raw", "layout", "table", "diagnosis_table", "max_rejected_fraction"}
    )
    settings |= {
        "each": partial(map_in_processes, workers=params.compute.workers),
        "progress": partial(progress, label="read", unit="file"),
    }
    return read_collection(folder, **{**settings, **changed})


def require_lab_remote(raw: Path) -> None:
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


def tables_inside(collection: Cohort | External, params: Params) -> dict[str, Any]:
    """Return the paths of a collection's tables, which lie inside."""
    section, raw = type(collection).__name__.lower(), Path(collection.raw)
    named = {"table": collection.table, "diagnosis_table": collection.diagnosis_table}
    for key, name in named.items():
        try:
            if name:
                require_inside(raw / name, raw, params.cohort.link_targets)
        except InputError as error:
            raise InputError(
                f"params.yaml: {section}.{key}: required a path inside {section}.raw ({raw}), so that DVC "
                f"versions it with the scans; received {name}; move the file there"
            ) from error
    return {key: raw / name if name else None for key, name in named.items()}
