"""Metadata tables and what readers make of them: candidates, rejections."""

import csv
import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, Literal

from adpet.errors import InputError
from adpet.imaging.sidecar import FDG, Statement, weigh

# What stands for "unknown" in the tables of BIDS, ADNI, R and spreadsheets.
MISSING_VALUES = frozenset({"", "n/a", "na", "nan", "none", "null", "-", "?"})

# Spreadsheets of countries with a decimal comma separate cells by semicolons.
DELIMITERS = (",", ";", "\t")

# "75", "75.3", "75,3", DICOM's "075Y", and "89+", which BIDS recommends for the oldest.
AGE = re.compile(r"(\d{1,3}(?:[.,]\d+)?)\s*[Yy+]?")
MAX_AGE_YEARS = 120

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
    `diagnoses` are those that tables give a subject at any visit, with and without a scan.
    """

    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    tracers: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    diagnoses: dict[str, set[str]] = field(default_factory=dict)

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
    """Read a CSV or TSV file, short rows padded."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            lines = list(csv.reader(file, delimiter=_delimiter(path, first)))
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: required a table in UTF-8; received: {reason}; save it again") from error
    if not lines or not any(map(str.strip, lines[0])):
        raise InputError(f"{path}: required a first line with the names of the columns; it is empty")
    keys = [column_key(name) for name in lines[0]]
    rows = (_row(keys, cells) for cells in lines[1:] if any(map(str.strip, cells)))
    return Table(path, tuple(name.strip() for name in lines[0]), tuple(rows))


def require_inside(path: Path, root: Path) -> None:
    """Refuse a file outside of its collection, links resolved."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{path.name} leads out of {root}, by its path or a link; put the file itself there")


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


def parse_date(text: str) -> str:
    """Return ``8/10/2021`` or ``2021-08-10`` as ``20210810``, else ``""``."""
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
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(DELIMITERS, key=header.count)


def _row(keys: list[str], cells: list[str]) -> dict[str, str]:
    row: dict[str, str] = {}
    for index, key in enumerate(keys):
        row.setdefault(key, cells[index].strip() if index < len(cells) else "")
    return row
