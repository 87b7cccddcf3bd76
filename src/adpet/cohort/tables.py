"""Tables as people and archives write them: CSV or TSV, any spelling of the headers, blanks as ``n/a``.

Cells are the text that is there, without surrounding spaces; `plain` and the parsers make values of it.
"""

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from adpet.errors import InputError

# What stands for "unknown" in the tables of BIDS, ADNI, R and spreadsheets.
UNKNOWN = frozenset({"", "n/a", "na", "nan", "none", "null", "-", "?"})

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
    return "" if text.casefold() in UNKNOWN else text


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
