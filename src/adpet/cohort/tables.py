"""Read metadata tables; recognise tracers and candidate scans."""

import csv
import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final, Literal

from adpet.errors import InputError

# What stands for "unknown" in the tables of BIDS, ADNI, R and spreadsheets.
MISSING_VALUES = frozenset({"", "n/a", "na", "nan", "none", "null", "-", "?"})

# Spreadsheets of countries with a decimal comma separate cells by semicolons.
DELIMITERS = (",", ";", "\t")

# "75", "75.3", "75,3", DICOM's "075Y", and "89+", which BIDS recommends for the oldest.
AGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)\s*[Yy+]?")
MAX_AGE_YEARS = 120


@dataclass(frozen=True)
class Table:
    """The rows of one file; each is a mapping from `column_key` of a header to the cell."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]

    def has(self, column: str) -> bool:
        """Say whether there is such a column, however it is spelled."""
        return column_key(column) in map(column_key, self.columns)


def read_table(path: Path) -> Table:
    """Read a CSV or TSV file; a short row is filled up with ``""``.

    Raises
    ------
    InputError
        If there is no such file, or it is not a UTF-8 table with a header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            lines = list(csv.reader(file, delimiter=_delimiter(path, first)))
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: required a table in UTF-8; received: {reason}; save it anew") from error
    if not lines or not any(map(str.strip, lines[0])):
        raise InputError(f"{path}: required a first line with the names of the columns; it is empty")
    keys = [column_key(name) for name in lines[0]]
    rows = (_row(keys, cells) for cells in lines[1:] if any(map(str.strip, cells)))
    return Table(path, tuple(name.strip() for name in lines[0]), tuple(rows))


def require_inside(path: Path, root: Path) -> None:
    """Raise InputError where a file of a collection lies elsewhere, by its path or a link."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{path.name} leads out of {root}, by its path or a link; put the file itself there")


def require_columns(table: Table, columns: Iterable[str], *, hint: str) -> None:
    """Raise InputError that names the columns which are not there, those which are, and `hint`."""
    missing = [column for column in columns if not table.has(column)]
    if missing:
        received = ", ".join(table.columns)
        raise InputError(
            f"{table.path}: required the columns {', '.join(missing)}; received {received}; {hint}"
        )


def column_key(name: str) -> str:
    """Return a header without case, spaces and marks: ``Image Data ID`` is ``imagedataid``."""
    return "".join(character for character in name.casefold() if character.isalnum())


def plain(text: str) -> str:
    """Return `text` with single spaces, or ``""`` where it says that it is unknown."""
    text = " ".join(text.split())
    return "" if text.casefold() in MISSING_VALUES else text


def parse_age(text: str) -> float:
    """Return an age in years, or NaN where the text is not the age of a person."""
    match = AGE.fullmatch(text.strip())
    years = float(match[1].replace(",", ".")) if match else math.nan
    return years if 0 < years <= MAX_AGE_YEARS else math.nan


def parse_sex(text: str) -> str:
    """Return ``F``, ``M``, or ``""`` where the text is neither female nor male."""
    word = text.strip().casefold()
    if word in {"f", "female", "w", "woman"}:
        return "F"
    return "M" if word in {"m", "male", "man"} else ""


def parse_date(text: str) -> str:
    """Return ``8/10/2021`` (month first, padded or not) or ``2021-08-10`` as ``20210810``, else ``""``."""
    if match := re.match(r"(\d{1,2})/(\d{1,2})/(\d{4})(?!\d)", text.strip()):
        month, day, year = map(int, match.groups())
    elif match := re.match(r"(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)", text.strip()):
        year, month, day = map(int, match.groups())
    else:
        return ""
    try:
        return date(year, month, day).strftime("%Y%m%d").zfill(8)
    except ValueError:
        return ""


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(DELIMITERS, key=header.count)


def _row(keys: list[str], cells: list[str]) -> dict[str, str]:
    row: dict[str, str] = {}
    for index, key in enumerate(keys):
        row.setdefault(key, cells[index].strip() if index < len(cells) else "")
    return row


FDG: Final = "FDG"
# How files are counted of which nobody says what was injected.
UNKNOWN: Final = "unknown"

# FDG without case and marks: "FDG", "18F-FDG", "fluorodeoxyglucose", "fludeoxyglucose",
# "2-deoxy-2-[18F]fluoro-D-glucose".
FDG_NAMES: Final = re.compile("fdg|deoxyglucose|fluoro.{0,2}glucose")


def tracer_name(text: str) -> str:
    """Return ``FDG`` for every name of FDG, other tracers as they are named, ``""`` where none is."""
    name = plain(text)
    return FDG if FDG_NAMES.search(column_key(name)) else name


# "skipped": no part of the study by design (another tracer, diagnosis, processing level);
# "unusable": damaged, contradictory or incomplete, which counts against cohort.max_rejected_fraction.
Kind = Literal["skipped", "unusable"]
SKIPPED: Final[Kind] = "skipped"
UNUSABLE: Final[Kind] = "unusable"


@dataclass(frozen=True)
class Candidate:
    """One scan as a collection describes it, before its file is opened; `diagnosis` in its own words.

    `file` is an image, or a folder that holds nothing but the frames of one; `level` is what was done to the
    image before we got it, in the collection's words; `date` is YYYYMMDD and orders a subject's scans only.
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
    frame_seconds: str = ""
    level: str = ""
    date: str = ""

    @property
    def key(self) -> str:
        """The scan's key, safe as a file name on every system."""
        entities = (("sub", self.subject), ("ses", self.session), ("run", self.run))
        return "_".join(f"{name}-{safe_label(label)}" for name, label in entities if label)


@dataclass(frozen=True)
class Rejection:
    """One file that is not used, and why, in words for who keeps the scans."""

    file: Path
    reason: str
    kind: Kind


@dataclass(frozen=True)
class Findings:
    """What a reader of one layout found.

    `tracers` counts the files of every tracer there is, `levels` the FDG images of every processing level,
    whether they are used or not. `diagnoses` are those that tables give a subject at any of its visits, with
    and without a scan.
    """

    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    tracers: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    diagnoses: dict[str, set[str]] = field(default_factory=dict)

    def reject(self, file: Path, reason: str, kind: Kind = UNUSABLE) -> None:
        """Set one file aside."""
        self.rejected.append(Rejection(file, reason, kind))


def safe_label(label: str) -> str:
    """Return `label` in ASCII letters and digits: ``941_S_6962`` is ``941S6962``.

    Where more than separators is lost, some digits of a hash keep labels apart.
    """
    ascii_only = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9]", "", ascii_only)
    if re.fullmatch(r"[A-Za-z0-9 ._-]*[A-Za-z0-9][A-Za-z0-9 ._-]*", label):
        return safe
    return safe + hashlib.sha256(label.encode()).hexdigest()[:6]
