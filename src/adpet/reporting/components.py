"""Components of the report: text, tables, figures, input documents."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.reporting.style import MINUS, save_as

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS = 3


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A bulleted list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Heading:
    """Title of a subsection."""

    title: str


@dataclass(frozen=True)
class Chart:
    """A figure with alternative text.

    `uri` holds the image itself; `wide` figures scroll on a phone.
    """

    uri: str
    alt: str
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: bool = True

    def as_dataframe(self) -> pd.DataFrame:
        """Return the columns; intervals stand behind their values."""
        columns: dict[str, list[str]] = {}
        for column, cells in zip(self.columns, zip(*self.rows, strict=True), strict=True):
            if column == "95 % interval":
                last, values = columns.popitem()
                columns[last] = [
                    f"{value} ({ci})" if ci else value for value, ci in zip(values, cells, strict=True)
                ]
            else:
                columns[column] = list(cells)
        return pd.DataFrame(columns)


# Metrics, as they are printed.
MEASURES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score (0 is best)",
    "log_loss": "Log loss (0 is best)",
    "calibration_error": "Calibration error (0 is best)",
    "calibration_slope": "Calibration slope (1 is best)",
    "calibration_intercept": "Calibration intercept (0 is best)",
}

Block = Text | Items | Heading | Chart | Table


def number(value: float | None, digits: int = DIGITS) -> str:
    """Format a number with fixed decimals; a dash if missing."""
    if value is None or value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return "-"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.removeprefix("-")


def format_ci(metric: Mapping[str, Any], digits: int = DIGITS) -> str:
    """Format the ends of an interval."""
    return f"{number(metric['low'], digits)} to {number(metric['high'], digits)}"


def interval(metric: Mapping[str, Any]) -> str:
    """Format a value with its 95 % interval."""
    return f"{number(metric['value'])} (95 % interval {format_ci(metric)})"


def value_and_ci(metric: Mapping[str, Any]) -> tuple[str, str]:
    """Return value and interval for two cells of a table."""
    return number(metric["value"]), format_ci(metric)


def typeset(sentence: str) -> str:
    """Set minus signs and a full stop."""
    return re.sub(r"(?<![\w-])-(?=\d)", MINUS, sentence).rstrip(".") + "."


def percent(share: float) -> str:
    """Format a share in per cent."""
    return f"{100 * share:.0f} %"


def points(gap: Mapping[str, Any]) -> str:
    """Format a difference of shares in percentage points."""
    low, high = (number(100 * gap[end], 0) for end in ("low", "high"))
    return f"{number(100 * gap['value'], 0)} points (95 % interval {low} to {high})"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def fold_title(summary: Mapping[str, Any], fold: str) -> str:
    """Name a fold, by its site or scanner."""
    names = summary.get("names")
    return f"{humanize(summary['left_out'])} {names[fold]}" if names else f"Fold {fold}"


def humanize(name: str) -> str:
    """Return a column or key as words, capitalized."""
    text = name.replace("val_", "validation_").replace("_", " ").replace("auc", "AUC")
    return text[:1].upper() + text[1:]


Document = dict[str, Any]
Map = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Tables of ``results/evaluate/``, without subject ids."""

    subjects: pd.DataFrame
    subgroups: pd.DataFrame
    roc: pd.DataFrame
    roc_band: pd.DataFrame
    precision_recall: pd.DataFrame
    calibration: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Search:
    """Trials of the hyperparameter search, and parameter importances."""

    trials: pd.DataFrame
    monitor: str
    rising: bool
    importance: Mapping[str, float] = field(default_factory=dict)
    logarithmic: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Maps:
    """Group maps by file name, their template, and tables."""

    volumes: Mapping[str, Map]
    underlay: Map
    affine: npt.NDArray[np.float64]
    hide_below: float
    regions: pd.DataFrame
    cascade: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class Documents:
    """Content of a report; optional parts may be missing."""

    metrics: Document
    findings: Document
    evaluation: Evaluation
    trained: Document  # run.json of the training
    history: pd.DataFrame  # its epochs
    ingest: Document
    split: Document
    aggregation: str
    is_simulated: bool
    leakage: Document | None = None
    cam: Document | None = None
    maps: Maps | None = None
    search: Search | None = None
    cross_validation: Document | None = None  # pooled folds
    external: Document | None = None  # validation on another collection
    scored: Document | None = None  # groups of other diagnoses
    scored_subjects: pd.DataFrame | None = None  # their probabilities, without ids

    @property
    def leaky(self) -> bool:
        """True if subjects are on both sides of the split."""
        return bool(self.metrics["leakage"]["leaky"])

    @property
    def lineage(self) -> Document:
        """Return what the model was made from."""
        return dict(self.trained["lineage"])


def data_uri(figure: "Figure", kind: Literal["svg", "png"] = "svg") -> str:
    """Return a figure as a data URI with deterministic bytes."""
    content = io.BytesIO()
    save_as(figure, content, kind)
    media = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{media};base64,{base64.b64encode(content.getvalue()).decode()}"
