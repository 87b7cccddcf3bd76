"""Scans table: one row a scan, and its checks.

The key is ``sub-<subject>[_ses-<session>][_run-<run>]``; ``AD`` is the positive class. Unknown text is
``""``, an unknown age NaN.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from adpet.errors import InputError
from adpet.storage import atomic_write

DIAGNOSES: Final = ("AD", "CN")
SEXES: Final = ("F", "M", "")

# Columns and dtypes of scans.csv. `level` is the processing level in the collection's words; `path` is POSIX,
# relative to the project's root where it lies inside of it, and a folder where each frame is a file;
# `frame_seconds` are the seconds of each frame that count, separated by spaces; `content` is the SHA-256 of
# the bytes of its files, or of the NIfTI that DICOM and others are converted to. With `scanner`, these are
# all that `normalize` and `score` take from the folder of scans: both depend on the table in its place.
SCAN_COLUMNS: Final[dict[str, str]] = dict.fromkeys((
    "scan", "subject", "session", "diagnosis", "age", "sex", "site", "scanner", "level", "path",
    "frame_seconds", "content",
), "str") | {"age": "float64"}  # fmt: skip

# Of score_only.csv: `group` is the subject's first such diagnosis, `baseline` that scan; the others are years
# from then to the scan, to the first later visit with AD, and to the last one with a diagnosis of its own.
SCORE_ONLY_COLUMNS: Final[dict[str, str]] = SCAN_COLUMNS | {
    "group": "str",
    "baseline": "bool",
    **dict.fromkeys(("years", "ad_years", "followed_years"), "float64"),
}

REJECTED_COLUMNS: Final[dict[str, str]] = {"file": "str", "reason": "str", "kind": "str"}

# A scan's key is the name of its files: no separator of folders, nothing that leads out of one.
SCAN_KEY: Final = r"[^./\\][^/\\]*"

IN_BOTH: Final = "subject {} is AD in one scan and CN in another"
# Most reasons that the summary counts one by one.
REASONS_LISTED = 30


@dataclass(frozen=True)
class Collection:
    """Used scans, rejected files, counts by tracer, level, unread column.

    `spellings` are the ids of each person that has several, `without_scan` those of listed people;
    `score_only` has the scans of people with other diagnoses.
    """

    scans: pd.DataFrame
    rejected: pd.DataFrame
    tracers: Mapping[str, int] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    spellings: Sequence[Sequence[str]] = ()
    without_scan: Sequence[str] = ()
    score_only: pd.DataFrame = field(default_factory=lambda: score_only_table([]))


def scans_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Return rows as a scans table, ordered by key."""
    table = pd.DataFrame(list(rows), columns=list(SCAN_COLUMNS)).astype(SCAN_COLUMNS)
    return table.sort_values("scan", ignore_index=True)


def score_only_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Return rows as a table of scored people's scans."""
    table = pd.DataFrame(list(rows), columns=list(SCORE_ONLY_COLUMNS)).astype(SCORE_ONLY_COLUMNS)
    return table.sort_values("scan", ignore_index=True)


def rejected_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Return rows as a table of rejections, ordered by file."""
    table = pd.DataFrame(list(rows), columns=list(REJECTED_COLUMNS)).astype(REJECTED_COLUMNS)
    return table.sort_values(["file", "reason"], ignore_index=True)


def subject_table(scans: pd.DataFrame) -> pd.DataFrame:
    """Return each subject's diagnosis, first age, sex and site."""
    first = scans.sort_values(["subject", "age", "scan"]).groupby("subject", sort=True)
    table = first[["diagnosis", "age"]].first()
    for column in ("sex", "site"):
        # A visit that lacks the value does not hide it: "" sorts before every other text.
        table[column] = first[column].max()
    return table.reset_index()


def check_scans(table: pd.DataFrame) -> None:
    """Check a scans table."""
    # Keys become file names, and some file systems do not tell cases apart.
    require_cells(table, "scan", ~table["scan"].str.lower().duplicated(), "a key that occurs once")
    require_cells(table, "subject", table["subject"] != "", "a subject")
    require_cells(table, "diagnosis", table["diagnosis"].isin(DIAGNOSES), "AD or CN")
    require_cells(table, "sex", table["sex"].isin(SEXES), "F, M or nothing")
    require_cells(
        table, "path", (table["path"] != "") & ~table["path"].duplicated(), "a path that occurs once"
    )
    require_cells(table, "content", table["content"].str.fullmatch("[0-9a-f]{64}"), "64 hexadecimal digits")
    for scan, reason in _conflicts(table).items():
        raise InputError(f"{scan}: {reason}; run `dvc repro`")


def set_aside_conflicts(collection: Collection) -> Collection:
    """Reject subjects with both diagnoses or a shared image.

    Which label or name is right cannot be known, and either would leak over a split.
    """
    # Of two scans with one image, the baseline is kept.
    others = collection.score_only.sort_values("baseline", ascending=False, kind="stable")
    apart = others[list(SCAN_COLUMNS)].assign(diagnosis=others["group"])
    scans = pd.concat([collection.scans, apart], ignore_index=True) if len(others) else collection.scans
    again = scans.loc[scans.duplicated(["subject", "content"]), "scan"]
    reasons = dict.fromkeys(again, "the same image as another scan of this subject") | _conflicts(scans)
    if not reasons:
        return collection
    given = scans["scan"].map(reasons)
    moved = pd.DataFrame({"file": scans["path"], "reason": given, "kind": "unusable"})[given.notna()]
    kept, scored = (
        table[~table["scan"].isin(list(reasons))].reset_index(drop=True)
        for table in (collection.scans, collection.score_only)
    )
    rejected = rejected_table([*collection.rejected.to_dict("records"), *moved.to_dict("records")])
    return replace(collection, scans=kept, rejected=rejected, score_only=scored)


def require_usable(collection: Collection, *, max_rejected_fraction: float) -> None:
    """Refuse a collection with many unusable files or one group."""
    scans, rejected = collection.scans, collection.rejected
    unusable = rejected[rejected["kind"] == "unusable"]
    counts = scans["diagnosis"].value_counts()
    empty = [diagnosis for diagnosis in DIAGNOSES if not counts.get(diagnosis, 0)]
    if empty:
        received = ", ".join(f"{counts.get(diagnosis, 0)} {diagnosis}" for diagnosis in DIAGNOSES)
        raise InputError(
            f"required scans of AD and of CN; received {received}, {len(rejected)} files set aside"
            f"{_first_reasons(rejected)}; see rejected.csv, cohort.diagnosis_column and cohort.diagnosis_map"
        )
    total = len(scans) + len(collection.score_only) + len(unusable)
    if len(unusable) > max_rejected_fraction * total:
        raise InputError(
            f"{len(unusable)} of {total} scans cannot be used, more than cohort.max_rejected_fraction = "
            f"{max_rejected_fraction:g} allows{_first_reasons(unusable)}; mend what rejected.csv lists"
        )


def read_scans(path: Path) -> pd.DataFrame:
    """Read and check a scans table."""
    return read_typed(path, SCAN_COLUMNS, check_scans)


def write_table(path: Path, table: pd.DataFrame, *, separator: str = ",") -> None:
    """Write a table as CSV, whole or not at all.

    `read_scans` and `read_typed` give the same table back.
    """
    with atomic_write(path) as aside:
        table.to_csv(aside, sep=separator, index=False, lineterminator="\n")


def read_typed(
    path: Path, columns: Mapping[str, str], check: Callable[[pd.DataFrame], None] = lambda _: None
) -> pd.DataFrame:
    """Read a CSV of this package with exactly these columns."""
    dtypes: dict[Any, str] = dict(columns)
    numbers: dict[Any, list[str]] = {column: [""] for column, dtype in columns.items() if dtype != "str"}
    try:
        # Text stays as it is ("NA" may be a label); only in numbers is an empty cell no value.
        # Lines end as they were written: a carriage return may be part of a file's name.
        table = pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=numbers, lineterminator="\n")
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; run `dvc repro`") from error
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: required a table as `dvc repro` writes it; received: {reason}") from error
    if list(table.columns) != list(columns):
        received = ", ".join(map(str, table.columns))
        raise InputError(
            f"{path}: required the columns {', '.join(columns)}; received {received}; run `dvc repro`"
        )
    if "scan" in columns:
        odd = table.loc[~table["scan"].str.fullmatch(SCAN_KEY), "scan"]
        if len(odd):
            raise InputError(
                f"{path}: column scan: required a key that can name a file, without / and no dot first; "
                f"received {odd.iloc[0]!r}; run `dvc repro`"
            )
    try:
        check(table)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return table


def ingest_summary(collection: Collection) -> dict[str, Any]:
    """Count a collection, as JSON values."""
    scans, rejected = collection.scans, collection.rejected
    subjects = subject_table(scans)
    content = hashlib.sha256("\n".join(sorted(scans["content"])).encode()).hexdigest()
    return {
        "scans": len(scans),
        "subjects": len(subjects),
        "diagnosis": {
            diagnosis: {
                "scans": int((scans["diagnosis"] == diagnosis).sum()),
                **_describe(subjects[subjects["diagnosis"] == diagnosis]),
            }
            for diagnosis in DIAGNOSES
        },
        "subjects_by_visits": count_values(scans.groupby("subject").size().astype("str")),
        "scanners": count_values(scans["scanner"]),
        "sites": count_values(scans["site"]),
        "rejected": {
            kind: {
                "files": int((rejected["kind"] == kind).sum()),
                "reasons": count_values(
                    rejected.loc[rejected["kind"] == kind, "reason"], most=REASONS_LISTED
                ),
            }
            for kind in ("unusable", "skipped")
        },
        "content": content,
    }


def count_values(values: "pd.Series[str]", *, most: int | None = None) -> dict[str, int]:
    """Count values, most frequent first; unknown ones as ``unknown``."""
    counted = values.replace("", "unknown").value_counts()
    pairs = sorted(
        ((str(value), int(n)) for value, n in counted.items()), key=lambda pair: (-pair[1], pair[0])
    )
    listed = dict(pairs[:most])
    rest = sum(n for _, n in pairs[len(listed) :])
    return {**listed, "other": rest} if rest else listed


def _conflicts(scans: pd.DataFrame) -> dict[str, str]:
    owners = scans.groupby("content")["subject"].transform("nunique")
    shared = set(scans.loc[owners > 1, "subject"])
    labels = scans.groupby("subject")["diagnosis"].transform("nunique")
    torn = set(scans.loc[labels > 1, "subject"])
    reasons = {}
    for scan, subject in zip(scans["scan"], scans["subject"], strict=True):
        if subject in shared:
            reasons[scan] = f"subject {subject} has the same image as another subject"
        elif subject in torn:
            reasons[scan] = IN_BOTH.format(subject)
    return reasons


def require_cells(table: pd.DataFrame, column: str, allowed: "pd.Series[bool]", required: str) -> None:
    """Refuse a table with a cell that is not allowed."""
    if not allowed.all():
        row = table[~allowed.astype(bool)].iloc[0]
        where = f"{row['scan']} slice {row['index']}" if "index" in table else row["scan"]
        raise InputError(
            f"{where}: column {column}: required {required}; received {row[column]!r}; run `dvc repro`"
        )


def _describe(subjects: pd.DataFrame) -> dict[str, Any]:
    ages = subjects["age"].dropna()
    sex = subjects["sex"]
    return {
        "subjects": len(subjects),
        "age": {
            "known": len(ages),
            "mean": round(float(ages.mean()), 2) if len(ages) else None,
            "sd": round(float(ages.std()), 2) if len(ages) > 1 else None,
        },
        "sex": {name or "unknown": int((sex == name).sum()) for name in SEXES},
    }


def _first_reasons(rejected: pd.DataFrame) -> str:
    first = [f"{file}: {reason}" for file, reason, _ in rejected.head(2).itertuples(index=False)]
    return f" (first: {'; '.join(first)})" if first else ""
