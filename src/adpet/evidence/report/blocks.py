"""The parts that a report is made of, and how numbers are written in them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd

from adpet.evidence.drawing import MINUS

DIGITS = 3


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Items:
    """Sentences that stand side by side."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "items"


@dataclass(frozen=True)
class Heading:
    """The title of a part of a section."""

    title: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Chart:
    """A figure: `uri` holds the image itself, `alt` says what it shows; `wide` ones scroll on a phone."""

    uri: str
    alt: str
    caption: str
    wide: bool = False
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row, and the others are set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: bool = True
    kind: ClassVar[str] = "table"


# The measures of an evaluation, as they are printed.
MEASURES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score (0 is best)",
    "calibration_error": "Calibration error (0 is best)",
}

Block = Text | Items | Heading | Chart | Table


@dataclass(frozen=True)
class Section:
    """A chapter of the report; `anchor` is its name in the page's address."""

    title: str
    anchor: str
    blocks: tuple[Block, ...]


def table(caption: str, columns: Iterable[str], rows: Iterable[Iterable[str]], **options: bool) -> Table:
    """Return a table of rows and columns that may be of any kind of sequence."""
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows), **options)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one mapping a row, by column."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def number(value: float | None, digits: int = DIGITS) -> str:
    """Return a number with so many decimals; a dash where there is none."""
    if value is None or value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return "-"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def reach(metric: Mapping[str, Any], digits: int = DIGITS) -> str:
    """Return an interval's ends."""
    return f"{number(metric['low'], digits)} to {number(metric['high'], digits)}"


def interval(metric: Mapping[str, Any], digits: int = DIGITS) -> str:
    """Return a value with its 95 % interval, in words."""
    return f"{number(metric['value'], digits)} (95 % interval {reach(metric, digits)})"


def with_reach(metric: Mapping[str, Any]) -> tuple[str, str]:
    """Return a value and its interval's ends, for two cells of a table."""
    return number(metric["value"]), reach(metric)


def difference(metric: Mapping[str, Any]) -> str:
    """Return a difference with its 95 % interval, to stand in brackets."""
    return f"{number(metric['value'])}, 95 % interval {reach(metric)}"


def typeset(sentence: str) -> str:
    """Return a sentence of another document with a full stop, and its numbers with signs as printed."""
    return re.sub(r"(?<![\w-])-(?=\d)", MINUS, sentence).rstrip(".") + "."


def percent(share: float) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.0f} %"


def points(gap: Mapping[str, Any]) -> str:
    """Return a difference of shares in percentage points, with its interval."""
    low, high = (number(100 * gap[end], 0) for end in ("low", "high"))
    return f"{number(100 * gap['value'], 0)} points (95 % interval {low} to {high})"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def words(name: str) -> str:
    """Return a column's or key's name as words, the first letter large."""
    text = name.replace("val_", "validation_").replace("_", " ")
    return text[:1].upper() + text[1:]
