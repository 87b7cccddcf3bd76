"""Read ADNI's diagnoses by visit (DXSUM), which change over the years where ``Group`` does not.

A scan belongs to the visit that has its code, else to the nearest exam within `MAX_DAYS`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from adpet.cohort.tables import Table, parse_date, plain, read_table
from adpet.errors import InputError

# DIAGNOSIS in DXSUM, in words that cohort.diagnosis_map knows; a negative number stands for none.
NUMBERS: Final = {1: "CN", 2: "MCI", 3: "Dementia"}
NUMBER: Final = re.compile(r"(-?\d+)(?:\.0*)?")
# The number at a PTID's end, which other tables call RID.
RID: Final = re.compile(r"(?:\d{3}_S_)?0*(\d+)(?:\.0*)?")

COLUMNS: Final = {
    "PTID": ("ptid", "subjectid", "subject"),
    "RID": ("rid",),
    "VISCODE": ("viscode",),
    "VISCODE2": ("viscode2",),
    "EXAMDATE": ("examdate", "visdate"),
    "DIAGNOSIS": ("diagnosis", "dx", "dxcurren"),
}
# Half a year: exams are a year apart, and of two diagnoses the nearer one holds.
MAX_DAYS: Final = 180


@dataclass(frozen=True)
class Exam:
    """One visit: its codes without case, its day as YYYYMMDD or ``""``, and the diagnosis in words."""

    codes: frozenset[str]
    day: str
    diagnosis: str


@dataclass(frozen=True)
class VisitDiagnoses:
    """The exams of all subjects, by RID."""

    name: str
    exams: Mapping[str, Sequence[Exam]]

    def known(self, subject: str) -> set[str]:
        """Return all diagnoses that a subject (PTID) ever had."""
        return {exam.diagnosis for exam in self.exams.get(_rid(subject), ())}

    def at(self, subject: str, *, visit: str, day: str) -> str:
        """Return the diagnosis at a scan.

        Parameters
        ----------
        subject : str
            PTID.
        visit, day : str
            The scan's visit code and its day as YYYYMMDD, ``""`` where they are not known.

        Raises
        ------
        InputError
            If no visit matches, or the matching ones have different diagnoses.
        """
        exams = self.exams.get(_rid(subject), ())
        if not exams:
            raise InputError(f"{self.name} has no diagnosis of {subject}; add one")
        same = [exam for exam in exams if visit and visit.casefold() in exam.codes]
        matching = (_nearest(same, day) or same) if same else _nearest(exams, day, most=MAX_DAYS)
        diagnoses = sorted({exam.diagnosis for exam in matching})
        when = " ".join(filter(None, (visit and f"visit {visit}", day))) or "a scan without visit and date"
        if not diagnoses:
            raise InputError(
                f"{self.name} has no visit of {subject} with the scan's code or within {MAX_DAYS} days "
                f"({when}); add it"
            )
        if len(diagnoses) > 1:
            raise InputError(f"{self.name} says {' and '.join(diagnoses)} of {subject} ({when}); mend it")
        return diagnoses[0]


def read_visit_diagnoses(path: Path) -> VisitDiagnoses:
    """Read a table of diagnoses by visit; rows without a diagnosis are no visits.

    Raises
    ------
    InputError
        If the table is unreadable, lacks the columns that tell subject, visit and diagnosis, or has a
        diagnosis that is no word and none of 1, 2, 3.
    """
    table = read_table(path)
    keys = {column: next(filter(table.has, variants), "") for column, variants in COLUMNS.items()}
    _require_columns(table, keys)
    exams: dict[str, list[Exam]] = {}
    for cells in table.rows:
        row = {column: plain(cells.get(key, "")) for column, key in keys.items()}
        rid, diagnosis = _rid(row["PTID"]) or _rid(row["RID"]), _in_words(row["DIAGNOSIS"], path)
        if rid and diagnosis:
            codes = frozenset({row["VISCODE"].casefold(), row["VISCODE2"].casefold()} - {""})
            exams.setdefault(rid, []).append(Exam(codes, parse_date(row["EXAMDATE"]), diagnosis))
    return VisitDiagnoses(path.name, exams)


def _nearest(exams: Sequence[Exam], day: str, *, most: int | None = None) -> list[Exam]:
    """Return the exams of the nearest day, the earlier of two that are equally near."""
    dated = [exam for exam in exams if exam.day] if day else []
    if not dated:
        return []
    best = min(dated, key=lambda exam: (_days_apart(exam.day, day), exam.day))
    if most is not None and _days_apart(best.day, day) > most:
        return []
    return [exam for exam in dated if exam.day == best.day]


def _days_apart(first: str, second: str) -> int:
    return abs((date.fromisoformat(first) - date.fromisoformat(second)).days)


def _rid(subject: str) -> str:
    match = RID.fullmatch(subject)
    return match[1] if match else ""


def _in_words(diagnosis: str, path: Path) -> str:
    number = NUMBER.fullmatch(diagnosis)
    if not number:
        return diagnosis
    if int(number[1]) < 0:
        return ""
    if int(number[1]) not in NUMBERS:
        meanings = ", ".join(f"{value} ({word})" for value, word in NUMBERS.items())
        raise InputError(f"{path}: required as diagnosis {meanings} or a word; received {diagnosis}; mend it")
    return NUMBERS[int(number[1])]


def _require_columns(table: Table, keys: Mapping[str, str]) -> None:
    groups = (("PTID", "RID"), ("VISCODE", "VISCODE2", "EXAMDATE"), ("DIAGNOSIS",))
    missing = [" or ".join(group) for group in groups if not any(keys[column] for column in group)]
    if missing:
        raise InputError(
            f"{table.path}: required the columns {', '.join(missing)}; received {', '.join(table.columns)}; "
            "set cohort.diagnosis_table to ADNI's DXSUM"
        )
