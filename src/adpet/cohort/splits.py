"""Assign subjects to the test set and to validation folds.

Folds are stratified by diagnosis and balanced in age and sex; no subject is in two parts.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.cohort.scans import DIAGNOSES, count_values, read_typed, require_cells, subject_table, write_table
from adpet.errors import InputError, LeakageError

TEST: Final = "test"
TRAIN: Final = "train"

SPLIT_COLUMNS: Final[dict[str, str]] = {
    "scan": "str",
    "index": "int64",
    "subject": "str",
    "diagnosis": "str",
    "part": "str",
}
PART = re.compile(r"test|train|fold-(0|[1-9]\d*)")

# Fewest subjects of each diagnosis for a fold of a site or scanner, and the fraction, one in 5, of the other
# subjects that validates.
FEWEST_OF_GROUP, GROUP_VALIDATION = 5, 5
# Most subjects in two parts that an error names.
SUBJECTS_NAMED = 3


def fold_name(number: int) -> str:
    """Return the name of a fold's part."""
    return f"fold-{number}"


def split_by_subject(subjects: pd.DataFrame, *, test_fraction: float, folds: int, seed: int) -> pd.DataFrame:
    """Assign subjects to the test set and folds.

    Seats are given to the parts by Webster's method over diagnosis and sex, so that each part's share of any
    of these groups is right to two or three subjects. In a group, a part's seats lie one in each of equally
    many stretches of age, at random within it (stratified sampling), so that ages agree as well. `subjects`
    has one row each, with age in years; with 0 folds the rest is in ``train``.
    """
    if subjects["subject"].duplicated().any():
        twice = subjects.loc[subjects["subject"].duplicated(), "subject"].iloc[0]
        raise InputError(f"a split needs one row a subject; received two of {twice}; use `subject_table`")
    parts, weights = _parts(test_fraction, folds)
    rng = np.random.default_rng(seed)
    # By subject in the end, so that the order of the rows does not matter.
    ordered = subjects.sort_values(["diagnosis", "sex", "age", "subject"], ignore_index=True)
    seats = _webster_seats(len(ordered), weights, rng)
    assigned = np.empty(len(ordered), dtype=np.int64)
    for rows in ordered.groupby(["diagnosis", "sex"], sort=True).indices.values():
        assigned[rows] = _spread(seats[rows], rng)
    ordered["part"] = pd.Series(assigned).map(dict(enumerate(parts))).astype("str")
    _require_both_diagnoses(ordered, parts)
    return ordered[["subject", "diagnosis", "part"]].sort_values("subject", ignore_index=True)


def assign_slices(slices: pd.DataFrame, scans: pd.DataFrame, subject_parts: pd.DataFrame) -> pd.DataFrame:
    """Give every slice the part of its subject (`SPLIT_COLUMNS`)."""
    split = slices[["scan", "index"]].merge(
        scans[["scan", "subject", "diagnosis"]], on="scan", how="left", validate="many_to_one"
    )
    split = split.merge(subject_parts[["subject", "part"]], on="subject", how="left", validate="many_to_one")
    for column, table in (("subject", "scans"), ("part", "subjects")):
        if split[column].isna().any():
            scan = split.loc[split[column].isna(), "scan"].iloc[0]
            raise InputError(f"slices of {scan}: required a row in the table of {table}; run `dvc repro`")
    return _ordered(split)


def split_by_slice(slices: pd.DataFrame, *, test_fraction: float, folds: int, seed: int) -> pd.DataFrame:
    """Split single slices, as in 2019: LEAKY, for comparison only.

    As `split_by_subject`, but of slices in random order within each diagnosis: slices of one subject fall in
    several parts, and a network can score by recognising the subject.
    """
    parts, weights = _parts(test_fraction, folds)
    rng = np.random.default_rng(seed)
    split = slices.sort_values(["scan", "index"], ignore_index=True)
    assigned = np.empty(len(split), dtype=np.int64)
    for rows in split.groupby("diagnosis", sort=True).indices.values():
        assigned[rows] = rng.permutation(_webster_seats(len(rows), weights, rng))
    split["part"] = pd.Series(assigned).map(dict(enumerate(parts))).astype("str")
    _require_both_diagnoses(split, parts)
    return _ordered(split)


def cross_validation_parts(
    scans: pd.DataFrame, *, folds: int | Literal["site", "scanner"], seed: int
) -> dict[str, pd.DataFrame]:
    """Return each fold's `subject` and `part`, by the fold's name.

    Three or more equal folds of all subjects, or one for each site or scanner with `FEWEST_OF_GROUP` subjects
    of each diagnosis that were scanned nowhere else.
    """
    if isinstance(folds, str):
        return _left_out(scans, by=folds, seed=seed)
    assigned = cross_validation_folds(subject_table(scans), folds=folds, seed=seed)
    return {str(fold): fold_parts(assigned, fold=fold) for fold in range(folds)}


def _left_out(scans: pd.DataFrame, *, by: str, seed: int) -> dict[str, pd.DataFrame]:
    """Make a fold of each large group, by name.

    A subject with scans there and elsewhere takes no part in that fold.
    """
    people = subject_table(scans)
    places = {subject: set(names) - {""} for subject, names in scans.groupby("subject")[by]}
    seen = [places[subject] for subject in people["subject"]]
    only = pd.Series([next(iter(names)) if len(names) == 1 else "" for names in seen])
    counts = pd.crosstab(only, people["diagnosis"]).reindex(columns=list(DIAGNOSES), fill_value=0)
    names = [name for name in counts.index[counts.min(axis=1) >= FEWEST_OF_GROUP] if name]
    if len(names) < 2:
        raise InputError(
            f"evaluate.cross_validation: {by}: required two {by}s with {FEWEST_OF_GROUP} subjects of each "
            f"diagnosis; received {len(names)}; ask for a number of folds"
        )
    found = {}
    for name in names:
        tested = people.loc[only == name, ["subject"]].assign(part=TEST)
        others = people[[name not in where for where in seen]]
        equal = cross_validation_folds(others, folds=GROUP_VALIDATION, seed=seed)
        part = np.where(equal["fold"] == 0, "validation", TRAIN)
        found[name] = pd.concat([tested, equal[["subject"]].assign(part=part)], ignore_index=True)
    return found


def cross_validation_folds(subjects: pd.DataFrame, *, folds: int, seed: int) -> pd.DataFrame:
    """Assign all subjects to 3 or more equal folds."""
    fewest = subjects["diagnosis"].value_counts().min()
    if fewest < folds:
        raise InputError(
            f"evaluate.cross_validation: required 0, or at most the {fewest} subjects of the smaller group; "
            f"received {folds}; lower it, or add subjects"
        )
    # A test set as large as each of the other folds is the last of them.
    assigned = split_by_subject(subjects, test_fraction=1 / folds, folds=folds - 1, seed=seed)
    numbers = {fold_name(number): number for number in range(folds - 1)} | {TEST: folds - 1}
    return assigned.assign(fold=assigned["part"].map(numbers))[["subject", "diagnosis", "fold"]]


def fold_parts(folds: pd.DataFrame, *, fold: int) -> pd.DataFrame:
    """Return subjects' parts when `fold` is tested, the next validated."""
    parts = {fold: "test", (fold + 1) % (int(folds["fold"].max()) + 1): "validation"}
    return folds[["subject"]].assign(part=[parts.get(number, "train") for number in folds["fold"]])


def check_disjoint(split: pd.DataFrame) -> None:
    """Raise LeakageError with the first subjects in two parts."""
    pairs = split[["subject", "part"]].drop_duplicates().sort_values(["subject", "part"])
    torn = pairs[pairs["subject"].duplicated(keep=False)].groupby("subject")["part"].agg(" and ".join)
    if len(torn):
        first = torn.head(SUBJECTS_NAMED).items()
        named = "; ".join(f"subject {subject} in {parts}" for subject, parts in first)
        more = f"; and {len(torn) - SUBJECTS_NAMED} more" if len(torn) > SUBJECTS_NAMED else ""
        raise LeakageError(
            f"split: required every subject in one part; received {named}{more}; set split.unit to subject "
            "and run `dvc repro split`"
        )


def split_hash(split: pd.DataFrame) -> str:
    """Return the SHA-256 of the rows in canonical order."""
    rows = _ordered(split).to_csv(index=False, header=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()


def split_summary(split: pd.DataFrame, scans: pd.DataFrame) -> dict[str, Any]:
    """Summarize a split as JSON values: hash, leakage, parts."""
    leaky = bool(split[["subject", "part"]].drop_duplicates()["subject"].duplicated().any())
    people = subject_table(scans)
    return {
        "hash": split_hash(split),
        "unit": "slice" if leaky else "subject",
        "leaky": leaky,
        "parts": {
            str(part): _describe(rows, people[people["subject"].isin(rows["subject"])])
            for part, rows in split.groupby("part", sort=True)
        },
    }


def write_split(path: Path, split: pd.DataFrame) -> None:
    """Write a split; `read_split` gives the same table back."""
    _check_split(split)
    write_table(path, split)


def read_split(path: Path) -> pd.DataFrame:
    """Read and check a split; a leaky one is allowed."""
    return read_typed(path, SPLIT_COLUMNS, _check_split)


def _parts(test_fraction: float, folds: int) -> tuple[list[str], npt.NDArray[np.float64]]:
    if not 0 < test_fraction < 1 or folds < 0:
        raise ValueError(
            "`test_fraction` must be in (0, 1) and `folds` 0 or more. "
            f"Received: test_fraction={test_fraction}, folds={folds}"
        )
    rest = [fold_name(number) for number in range(folds)] or [TRAIN]
    return [TEST, *rest], np.array([test_fraction, *[(1 - test_fraction) / len(rest)] * len(rest)])


def _webster_seats(
    count: int, weights: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return the part of each seat, in turn (Webster, Sainte-Lague)."""
    order = rng.permutation(len(weights))
    taken = np.zeros(len(weights))
    seats = np.empty(count, dtype=np.int64)
    for seat in range(count):
        claims = weights[order] / (2 * taken[order] + 1)
        # Equal weights give equal claims to the last bit, so the first of `order` is chance's choice.
        seats[seat] = order[np.argmax(claims)]
        taken[seats[seat]] += 1
    return seats


def _spread(seats: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Reorder seats to spread each part's evenly."""
    parts, counts = np.unique(seats, return_counts=True)
    owners = np.repeat(parts, counts)
    positions = np.concatenate([(np.arange(count) + rng.random(count)) / count for count in counts])
    return owners[np.argsort(positions)]


def _require_both_diagnoses(assigned: pd.DataFrame, parts: Sequence[str]) -> None:
    held = set(zip(assigned["part"], assigned["diagnosis"], strict=True))
    folds = min(len(parts), assigned["diagnosis"].value_counts().min()) - 1
    # Equal parts take turns, so that each has one of as many subjects.
    equal = f"set split.folds to {folds} and split.test_fraction to {1 / (folds + 1):.4f}, or "
    for diagnosis in sorted(set(assigned["diagnosis"])):
        missing = [part for part in parts if (part, diagnosis) not in held]
        if missing:
            count = int((assigned["diagnosis"] == diagnosis).sum())
            raise InputError(
                f"split: required {diagnosis} in each of {len(parts)} parts; received {count} of it, none in "
                f"{missing[0]}; {equal if folds > 1 else ''}add subjects"
            )


def _ordered(split: pd.DataFrame) -> pd.DataFrame:
    table = split[list(SPLIT_COLUMNS)].astype(SPLIT_COLUMNS)
    return table.sort_values(["scan", "index"], ignore_index=True)


def _check_split(split: pd.DataFrame) -> None:
    require_cells(
        split,
        "index",
        ~split.duplicated(["scan", "index"]) & (split["index"] >= 0),
        "a slice that occurs once",
    )
    require_cells(split, "diagnosis", split["diagnosis"].isin(DIAGNOSES), "AD or CN")
    require_cells(split, "part", split["part"].str.fullmatch(PART.pattern), "test, train or fold-<number>")


def _describe(rows: pd.DataFrame, people: pd.DataFrame) -> dict[str, Any]:
    ages = people["age"].dropna()
    known = people.loc[people["sex"] != "", "sex"]
    return {
        "subjects": len(people),
        "scans": int(rows["scan"].nunique()),
        "slices": len(rows),
        **{diagnosis: int((people["diagnosis"] == diagnosis).sum()) for diagnosis in DIAGNOSES},
        "age_mean": round(float(ages.mean()), 2) if len(ages) else None,
        "women": round(float((known == "F").mean()), 4) if len(known) else None,
        "sites": dict(sorted(count_values(people["site"]).items())),
    }
