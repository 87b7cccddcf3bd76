"""Metadata tables and what readers make of them: candidates, rejections."""

import csv
import hashlib
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from adpet.errors import InputError
from adpet.imaging.nifti import natural_key
from adpet.imaging.sidecar import FDG, SCANNER, Statement, scanner_of, weigh

# What stands for "unknown" in the tables of BIDS, ADNI, R and spreadsheets.
MISSING_VALUES = frozenset({"", "n/a", "na", "nan", "none", "null", "-", "?"})

# Spreadsheets of countries with a decimal comma separate cells by semicolons.
DELIMITERS = (",", ";", "\t")

# "75", "75.3 years", "75,3", DICOM's "075Y", and "89+" or ">89" of the oldest.
AGE = re.compile(r"(?i)[>\u2265]?=?\s*(\d{1,3}(?:[.,]\d+)?)\s*(?:\+|y\.?o?\.?|(?:yr|year)s?)?")
MAX_AGE_YEARS = 120

ISO_DATE = re.compile(r"(\d{4})([/.-])(\d{1,2})\2(\d{1,2})(?!\d)")
NAMED_MONTH = re.compile(r"(\d{1,2})[ -]([A-Za-z]{3})[a-z]*[ -](\d{4})(?!\d)")
# Day and month, in an order that the text alone does not tell if both are 12 or less.
OTHER_DATE = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?!\d)")
DateOrder = Literal["auto", "month-first", "day-first"]

DAYS_A_YEAR = 365.25
MONTHS = 12
MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

# Sessions with these names are the first ones, in this order (ADNI's sc comes before bl).
FIRST_SESSIONS: Final = ("sc", "screening", "init", "initial", "bl", "baseline")

# What looks like an image, read or not.
IMAGE: Final = re.compile(
    r"(?i)[^.].*\.(nii|img|hdr|mgh|mgz|mnc|par|rec|v|dcm|ima|nrrd|mha|zip)(\.(?!json|tsv|txt|md5|dvc)\w+)*"
)

# Name of a tracer that nothing gives.
UNKNOWN: Final = "unknown"

# "skipped": excluded by design (another tracer, diagnosis, processing level);
# "unusable": damaged, contradictory or incomplete, which counts against cohort.max_rejected_fraction.
Kind = Literal["skipped", "unusable"]
SKIPPED: Final[Kind] = "skipped"
UNUSABLE: Final[Kind] = "unusable"


@dataclass(frozen=True)
class Table:
    """Rows of one file, keyed by `column_key` of the header."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def has(self, column: str) -> bool:
        """True if there is the column, in any spelling."""
        return column_key(column) in map(column_key, self.columns)


class Visit(NamedTuple):
    """Diagnosis at a visit, with or without a scan."""

    day: str  # YYYYMMDD, or ""
    age: float
    diagnosis: str


@dataclass(frozen=True)
class Candidate:
    """Scan that a collection describes, its file unopened.

    `file` is an image, or a folder with the frames of one alone; `diagnosis` is in the collection's words, as
    is `level`, the processing before we got the image; `date` is YYYYMMDD and orders a subject's scans only.
    `frames` has the sidecar's times. If the file is damaged, the first intact one of `others` is taken.
    """

    file: Path
    subject: str
    session: str = ""
    run: str = ""
    diagnosis: str = ""
    age: float = math.nan
    sex: str = ""
    site: str = ""
    scanner: str = ""
    level: str = ""
    date: str = ""
    frames: Mapping[str, Any] = field(default_factory=dict)
    others: "tuple[Candidate, ...]" = ()

    @property
    def key(self) -> str:
        """Key of the scan, a safe file name everywhere."""
        entities = (("sub", self.subject), ("ses", self.session), ("run", self.run))
        return "_".join(f"{name}-{safe_label(label)}" for name, label in entities if label)

    @property
    def visit(self) -> Visit:
        """The visit that the scan is of."""
        return Visit(self.date, self.age, self.diagnosis)


@dataclass(frozen=True)
class Rejection:
    """File that is not used, and the reason."""

    file: Path
    reason: str
    kind: Kind


@dataclass(frozen=True)
class Findings:
    """Candidates and rejections that a reader found.

    `tracers` counts the files of each tracer, `levels` the FDG images of each processing level, used or not.
    `visits` are those with a diagnosis of their own in a table, by subject, with and without a scan; `unread`
    counts the cells of candidates by column that hold no age, sex or date; `without_scan` are listed
    participants.
    """

    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    tracers: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    visits: dict[str, set[Visit]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)
    without_scan: list[str] = field(default_factory=list)

    def parse(self, column: str, parser: Callable[[str], Any], text: str) -> Any:
        """Parse a cell; count it if that fails."""
        value = parser(text)
        if plain(text) and (value == "" or value != value):  # noqa: PLR0124 - NaN
            self.unread[column] += 1
        return value

    def takes(
        self, file: Path, statements: Sequence[Statement], *, hint: str = "", uncorrected: str = ""
    ) -> bool:
        """Count a file's tracer, and reject others than FDG.

        A file that states none is rejected with a `hint` alone; `uncorrected` says that attenuation was not
        corrected.
        """
        tracer, clash = weigh(statements)
        if tracer or hint:
            self.tracers[tracer or UNKNOWN] += 1
        if tracer not in {"", FDG}:
            # It would be left out anyway: that something general says FDG is no fault that counts.
            self.reject(file, f"tracer {tracer} is not FDG" + (f" ({clash})" if clash else ""), SKIPPED)
        elif clash:
            self.reject(file, f"{clash}; correct what is wrong")
        elif hint and not tracer:
            self.reject(file, f"its tracer is not given; {hint}")
        elif uncorrected:
            self.reject(file, f"not corrected for attenuation, says {uncorrected}", SKIPPED)
        else:
            return True
        return False

    def reject(self, file: Path, reason: str, kind: Kind = UNUSABLE) -> None:
        """Reject one file."""
        self.rejected.append(Rejection(file, reason, kind))


def read_table(path: Path) -> Table:
    """Read a CSV or TSV file, short rows padded.

    Tabs separate as in BIDS, without quoting. A quote left open, a row with more cells than the header or two
    columns of one name would give a scan another one's facts: they are refused.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = _delimiter(path, first)
            plain_cells = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
            lines = list(plain_cells if delimiter == "\t" else csv.reader(file, delimiter=delimiter))
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: required a table in UTF-8; received: {reason}; save it again") from error
    if delimiter == "\t":
        # R and spreadsheets put quotes around whole cells all the same.
        lines = [[re.sub(r'^\s*"([^"]*)"\s*$', r"\1", cell) for cell in cells] for cells in lines]
    if not lines or not any(map(str.strip, lines[0])):
        raise InputError(f"{path}: required a first line with the names of the columns; it is empty")
    keys = [column_key(name) for name in lines[0]]
    _check_cells(path, lines, keys, delimiter)
    rows = (_row(keys, cells) for cells in lines[1:] if any(map(str.strip, cells)))
    return Table(path, tuple(name.strip() for name in lines[0]), tuple(rows))


def table_columns(path: Path) -> tuple[str, ...]:
    """Read the names of a table's columns."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: required a table in UTF-8; it cannot be read; check the path") from error
    return tuple(next(csv.reader([first], delimiter=_delimiter(path, first)), ()))


def require_inside(path: Path, root: Path, link_targets: Sequence[str] = ()) -> None:
    """Refuse a file outside of its collection, links resolved.

    Links may lead to `link_targets`, into DVC's cache and into git-annex.
    """
    # Not Path.resolve, which raises for a link to itself.
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)) and not any(
        real.is_relative_to(folder) for folder in _link_stores(root.absolute(), tuple(link_targets))
    ):
        raise InputError(
            f"{path.name} leads out of {root}, by its path or a link; put the file itself there, or name the "
            "link's folder in cohort.link_targets"
        )


def require_columns(table: Table, columns: Iterable[str], *, hint: str) -> None:
    """Refuse a table without some of `columns`."""
    missing = [column for column in columns if not table.has(column)]
    if missing:
        received = ", ".join(table.columns)
        raise InputError(
            f"{table.path}: required the columns {', '.join(missing)}; received {received}; {hint}"
        )


def column_key(name: str) -> str:
    """Return ``imagedataid`` for a header ``Image Data ID``."""
    return "".join(character for character in name.casefold() if character.isalnum())


def plain(text: str) -> str:
    """Return text with single spaces, ``""`` if unknown."""
    text = " ".join(text.split())
    return "" if text.casefold() in MISSING_VALUES else text


def scanner_stated(metadata: Mapping[str, Any]) -> str:
    """Return the scanner that a sidecar names, or ``""``."""
    return scanner_of({key: plain(str(metadata.get(key, ""))) for key in SCANNER})


def parse_age(text: str) -> float:
    """Return an age in years, else NaN."""
    match = AGE.fullmatch(text.strip())
    years = float(match[1].replace(",", ".")) if match else math.nan
    return years if 0 < years <= MAX_AGE_YEARS else math.nan


def parse_sex(text: str) -> str:
    """Return ``F``, ``M`` or ``""``."""
    word = text.strip().casefold()
    if word in {"f", "female", "w", "woman"}:
        return "F"
    return "M" if word in {"m", "male", "man"} else ""


def date_order(table: Table, key: str, declared: DateOrder = "auto") -> DateOrder:
    """Return the order of a column's dates, proven or declared.

    A day above 12 proves it, or the dots of 10.8.2021, also against what is `declared`, which is then
    refused; ``auto`` is neither.
    """
    dates = [match for row in table.rows if (match := OTHER_DATE.match(row.get(key, "").strip()))]
    proven: set[DateOrder] = set() if declared == "auto" else {declared}
    proven |= {"day-first" for match in dates if int(match[1]) > MONTHS or match[2] == "."}
    proven |= {"month-first" for match in dates if int(match[3]) > MONTHS}
    if len(proven) > 1:
        raise InputError(
            f"{table.path}: column {key}: required dates of one order; day first and month first, in the "
            "cells or by cohort.date_order; write all as YYYY-MM-DD"
        )
    return proven.pop() if proven else "auto"


def parse_date(text: str, order: DateOrder = "month-first") -> str:
    """Return ``8/10/2021`` or ``2021-08-10`` as ``20210810``, else ``""``.

    With the order ``auto``, ``8/10/2021`` is unknown and ``13/10/2021`` is not.
    """
    if match := OTHER_DATE.match(text.strip()):
        month, day, year = int(match[1]), int(match[3]), int(match[4])
        if order == "day-first" or (order == "auto" and month > MONTHS):
            month, day = day, month
        elif order == "auto" and day <= MONTHS and month != day:
            return ""
    elif match := ISO_DATE.match(text.strip()):
        year, month, day = map(int, match.group(1, 3, 4))
    elif (match := NAMED_MONTH.match(text.strip())) and match[2].lower() in MONTH_NAMES:
        day, month, year = int(match[1]), MONTH_NAMES.index(match[2].lower()) + 1, int(match[3])
    else:
        return ""
    try:
        return date(year, month, day).strftime("%Y%m%d").zfill(8)
    except ValueError:
        return ""


def years_between(first: Visit, second: Visit) -> float:
    """Return the years between two visits, NaN if unknown.

    By dates, else by ages with decimals: whole years are a year off.
    """
    if first.day and second.day:
        days = date.fromisoformat(second.day) - date.fromisoformat(first.day)
        return round(days.days / DAYS_A_YEAR, 3)
    return round(second.age - first.age, 3) if first.age % 1 or second.age % 1 else math.nan


def session_order(label: str) -> tuple[int, tuple[str | int, ...]]:
    """Return a key that orders a person's sessions by name."""
    name = label.casefold()
    rank = FIRST_SESSIONS.index(name) if name in FIRST_SESSIONS else len(FIRST_SESSIONS)
    return rank, natural_key(name)


def safe_label(label: str) -> str:
    """Return a label in ASCII letters and digits.

    ``941_S_6962`` is ``941S6962``. If more than separators is lost, digits of a hash keep labels apart.
    """
    ascii_only = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9]", "", ascii_only)
    if re.fullmatch(r"[A-Za-z0-9 ._-]*[A-Za-z0-9][A-Za-z0-9 ._-]*", label):
        return safe
    return safe + hashlib.sha256(label.encode()).hexdigest()[:6]


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv" and "\t" in header:
        return "\t"
    return max(DELIMITERS, key=header.count)


def _row(keys: list[str], cells: list[str]) -> dict[str, str]:
    # A column without a name, as of R's row numbers, is left out: "" stands for "no such column".
    return {key: cells[index].strip() if index < len(cells) else "" for index, key in enumerate(keys) if key}


def _check_cells(path: Path, lines: list[list[str]], keys: list[str], delimiter: str) -> None:
    twice = [name for name, key in zip(lines[0], keys, strict=True) if key and keys.count(key) > 1]
    if twice:
        raise InputError(f"{path}: two columns have one name ({' and '.join(twice)}); remove or rename one")
    for number, cells in enumerate(lines, start=1):
        if any(map(str.strip, cells[len(keys) :])):
            raise InputError(
                f"{path}: row {number}: required {len(keys)} cells, as in the header; received {len(cells)}; "
                "put quotes around text with separators"
            )
        if any(len(cell.splitlines()) > 1 and delimiter in cell for cell in cells):
            raise InputError(f"{path}: row {number}: a quote is not closed and takes other rows in; close it")


@cache
def _link_stores(root: Path, link_targets: tuple[str, ...]) -> tuple[Path, ...]:
    """Return the folders that links may lead to, resolved."""
    # Half a second, which a collection without links does not pay.
    from dvc.config import Config

    folders = [Path(target) for target in link_targets]
    for parent in {*root.parents, *root.resolve().parents, root}:
        folders.append(parent / ".git/annex/objects")
        if (parent / ".dvc").is_dir():
            cache_dir = Config(str(parent / ".dvc"))["cache"].get("dir")
            folders.append(Path(cache_dir) if cache_dir else parent / ".dvc/cache")
    return tuple(folder.resolve() for folder in folders if folder.is_dir())
