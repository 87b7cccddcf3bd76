"""Forest plots, with intervals: the network beside its baselines, its subgroups, and its folds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from adpet.evidence.differences import BASELINES, CHANCE
from adpet.evidence.drawing import (
    AD_COLOUR,
    CN_COLOUR,
    GREY,
    LIGHT_GREY,
    MINUS,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches a row, and for titles and axes.
ROW_HEIGHT, FRAME_HEIGHT = 0.27, 1.0


class Row(NamedTuple):
    """One line of a forest plot; `value` is None where there is none to draw."""

    label: str
    value: float | None
    low: float
    high: float
    colour: str = CN_COLOUR
    heading: bool = False
    note: str = ""


@styled
def baselines_figure(metrics: Mapping[str, Any]) -> "Figure":
    """Draw the AUC of network and baselines, and the network's lead over each of them.

    Parameters
    ----------
    metrics : mapping
        The document ``metrics.json``.
    """
    names = [name for name in BASELINES if name in metrics["baselines"]]
    areas = [("network", metrics["subject"]["auc"], AD_COLOUR)]
    areas += [(BASELINES[name], metrics["baselines"][name]["auc"], CN_COLOUR) for name in names]
    figure = new_figure(7.6, FRAME_HEIGHT + ROW_HEIGHT * (len(names) + 1))
    left, right = figure.subplots(1, 2, sharey=True)
    rows = [
        Row(label[0].upper() + label[1:], auc["value"], auc["low"], auc["high"], colour)
        for label, auc, colour in areas
    ]
    leads = [metrics["differences"][name] for name in names]
    lead_rows = [Row("", None, 0, 0), *(Row("", lead["value"], lead["low"], lead["high"]) for lead in leads)]
    _forest(left, rows)
    left.axvline(CHANCE, color=LIGHT_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    left.set(xlabel="AUC per subject (95 % CI)", xlim=(min(0.4, *(row.low - 0.03 for row in rows)), 1.02))
    _forest(right, lead_rows)
    right.axvline(0, color=LIGHT_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    right.set(xlabel=f"Network {MINUS} baseline, AUC (95 % CI)")
    _labelled(left, rows)
    return figure


@styled
def subgroups_figure(table: pd.DataFrame) -> "Figure":
    """Draw AUC and balanced accuracy in every subgroup; where a diagnosis lacks there is nothing to draw.

    Parameters
    ----------
    table : DataFrame
        As `subgroups.subgroup_table` returns it.
    """
    panels = {"auc": "AUC (95 % CI)", "balanced_accuracy": "Balanced accuracy (95 % CI)"}
    figure = new_figure(7.6, FRAME_HEIGHT + ROW_HEIGHT * (len(table) + table["fact"].nunique() - 1))
    both = figure.subplots(1, 2, sharey=True)
    for axes, (name, label) in zip(both, panels.items(), strict=True):
        rows = _subgroup_rows(table, name)
        _forest(axes, rows)
        axes.axvline(CHANCE, color=LIGHT_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        overall = float(table[name].iloc[0])
        axes.axvline(overall, color=AD_COLOUR, linewidth=0.8, zorder=0)
        axes.set(xlabel=label, xlim=(-0.02, 1.02))
    _labelled(both[0], rows)
    return figure


@styled
def folds_figure(summary: Mapping[str, Any]) -> "Figure":
    """Draw the AUC of all subjects of a cross-validation, and that of each fold.

    Parameters
    ----------
    summary : mapping
        As `cross_validation.pooled_summary` returns it.
    """
    counts = summary["counts"]
    pooled = (f"All subjects  ({counts['subjects']})", summary["pooled"]["auc"], AD_COLOUR)
    folds = [
        (
            f"Fold {name}  ({counts['fold'][name]['ad']} AD, {counts['fold'][name]['cn']} CN)",
            fold["auc"],
            CN_COLOUR,
        )
        for name, fold in summary["fold"].items()
    ]
    rows = [
        Row(label, auc["value"], auc["low"], auc["high"], colour) for label, auc, colour in [pooled, *folds]
    ]
    figure = new_figure(7.6, FRAME_HEIGHT + ROW_HEIGHT * len(rows))
    axes = figure.subplots()
    _forest(axes, rows)
    axes.axvline(CHANCE, color=LIGHT_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set(xlabel="AUC per subject (95 % CI)", xlim=(min(0.4, *(row.low - 0.03 for row in rows)), 1.02))
    _labelled(axes, rows)
    return figure


def _subgroup_rows(table: pd.DataFrame, name: str) -> list[Row]:
    rows: list[Row] = []
    for fact, groups in table.groupby("fact", sort=False):
        if fact != "all":
            rows.append(Row(str(fact).capitalize(), None, 0, 0, heading=True))
        for group in groups.to_dict("records"):
            value = None if np.isnan(group[name]) else group[name]
            note = "" if value is not None else "one diagnosis only"
            title = "All subjects" if fact == "all" else f"{group['group']}"
            label = f"{title}  ({group['n_ad']} AD, {group['n_cn']} CN)"
            colour = AD_COLOUR if fact == "all" else CN_COLOUR
            rows.append(Row(label, value, group[f"{name}_low"], group[f"{name}_high"], colour, note=note))
    return rows


def _forest(axes: "Axes", rows: Sequence[Row]) -> None:
    """Draw one marker with its interval a row, the first at the top, and its numbers beside it."""
    for place, row in enumerate(rows):
        if row.value is None:
            _beside(axes, place, row.note)
            continue
        axes.hlines(place, row.low, row.high, color=row.colour, linewidth=1.4)
        axes.plot(row.value, place, "s", color=row.colour, markersize=5.5, markeredgecolor="white")
        numbers = f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
        _beside(axes, place, numbers.replace("-", MINUS))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _beside(axes: "Axes", place: int, text: str) -> None:
    axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=GREY)


def _labelled(axes: "Axes", rows: Sequence[Row]) -> None:
    """Name the rows; shared by all panels."""
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.heading else "normal")
