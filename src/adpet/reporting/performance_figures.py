"""Figures of performance: curves, calibration, comparisons, leakage."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.evaluation.comparison import BASELINES, CHANCE
from adpet.evaluation.leakage import GAPS, INCONCLUSIVE, INVALID
from adpet.reporting.components import fold_title, humanize
from adpet.reporting.style import AD_COLOUR, CN_COLOUR, EN_DASH, GREY, LIGHT_GREY, MINUS, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Cells with a larger share are dark and get white text.
DARK_SHARE = 0.55
# Size of a dot in data units, largest spread, and largest group drawn with dots of full size.
DOT_HEIGHT, DOT_WIDTH, DOT_SPREAD, DOT_CROWD = 0.024, 0.045, 0.42, 60
DOT_POINTS = 26.0
# Markers of values, and of misclassified subjects.
WHITE_EDGED: dict[str, Any] = {"markeredgecolor": "white", "clip_on": False}
RING: dict[str, Any] = {"s": 95, "facecolors": "none", "edgecolors": "black", "linewidths": 1.0}
# Chance, and other lines of reference.
DASHED: dict[str, Any] = {"color": LIGHT_GREY, "linewidth": 1, "linestyle": (0, (4, 3))}


@styled
def roc_figure(curves: pd.DataFrame, band: pd.DataFrame, *, metrics: Mapping[str, Any]) -> "Figure":
    """Draw ROC curves, with the bootstrap band of subjects."""
    figure, axes = _unit_square(f"False positive rate (1 {MINUS} specificity)", "Sensitivity to AD")
    axes.plot([0, 1], [0, 1], **DASHED)
    look: dict[str, Any] = {
        "color": CN_COLOUR,
        "alpha": 0.18,
        "linewidth": 0,
        "label": "95 % band over subjects",
    }
    axes.fill_between(band["false_positive_rate"], band["low"], band["high"], **look)
    looks = {"slice": (GREY, 0.9, "Per slice"), "subject": (CN_COLOUR, 2.0, "Per subject")}
    for level, (colour, width, name) in looks.items():
        curve = curves[curves["level"] == level]
        label = f"{name}: AUC {_with_interval(metrics[level]['auc'])}"
        axes.plot(
            curve["false_positive_rate"], curve["sensitivity"], color=colour, linewidth=width, label=label
        )
    subject = metrics["subject"]
    place = 1 - subject["specificity"]["value"], subject["sensitivity"]["value"]
    label = f"Operating point (threshold {metrics['threshold']:.2f})"
    axes.plot(*place, "o", color=AD_COLOUR, markersize=7, label=label, zorder=5, **WHITE_EDGED)
    handles, labels = axes.get_legend_handles_labels()
    order = [2, 0, 3, 1]
    axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="lower right", borderaxespad=0.8)
    return figure


@styled
def precision_recall_figure(curves: pd.DataFrame, *, metrics: Mapping[str, Any]) -> "Figure":
    """Draw precision-recall curves of `metrics.precision_recall_curves`, and chance."""
    figure, axes = _unit_square("Recall (sensitivity to AD)", "Precision (positive predictive value)")
    share = metrics["counts"]["subjects_ad"] / metrics["counts"]["subjects"]
    looks = {"subject": (CN_COLOUR, 2.0, "Per subject", 3), "slice": (GREY, 0.9, "Per slice", 2)}
    for level, (colour, width, name, order) in looks.items():
        curve = curves[curves["level"] == level]
        label = f"{name}: AP {_with_interval(metrics[level]['average_precision'])}"
        # Steps make the area the average precision.
        axes.step(
            curve["recall"], curve["precision"], color=colour, linewidth=width, label=label, zorder=order
        )
    axes.axhline(share, **DASHED, label=f"Chance: {share:.2f}, the share of AD subjects")
    axes.legend(loc="lower left", borderaxespad=0.8)
    return figure


@styled
def calibration_figure(points: pd.DataFrame, *, metrics: Mapping[str, Any]) -> "Figure":
    """Draw the reliability diagrams of `metrics.calibration_points`."""
    subjects = points.loc[points["level"] == "subject", "n"]
    each = f"{subjects.min()} to {subjects.max()}" if subjects.min() < subjects.max() else f"{subjects.max()}"
    figure, axes = _unit_square(
        f"Mean probability of AD, in {len(subjects)} bins of {each} subjects",
        "Share with AD (bars: exact 95 % CI)",
    )
    axes.plot([0, 1], [0, 1], **DASHED, label="Perfect calibration")
    looks = {"slice": (GREY, "s", 4, "Per slice"), "subject": (CN_COLOUR, "o", 7, "Per subject")}
    for level, (colour, marker, size, name) in looks.items():
        rows = points[points["level"] == level]
        error = _with_interval(metrics[level]["calibration_error"])
        if level == "subject":
            axes.vlines(rows["probability"], rows["low"], rows["high"], color=colour, linewidth=1.4)
        look: dict[str, Any] = {
            "color": colour,
            "linewidth": 0.8,
            "markersize": size,
            "label": f"{name}: error {error}",
        }
        axes.plot(rows["probability"], rows["observed"], f"{marker}-", **look, **WHITE_EDGED)
    figure.legend(loc="outside upper center", ncols=1)
    return figure


@styled
def confusion_figure(metrics: Mapping[str, Any]) -> "Figure":
    """Draw confusion matrices: counts, and shares of the diagnosis."""
    figure = new_figure(6.4, 3.1)
    for axes, level in zip(figure.subplots(1, 2), ("subject", "slice"), strict=True):
        cells = metrics[level]["confusion"]
        names = ("true_positive", "false_negative", "false_positive", "true_negative")
        counts = np.array([cells[name] for name in names]).reshape(2, 2)
        shares = counts / counts.sum(axis=1, keepdims=True)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(2, 2):
            text = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
            colour = "white" if shares[row, column] > DARK_SHARE else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=11, color=colour)
        axes.set(title=f"Per {level} (n = {counts.sum():,})", xlabel="Predicted", ylabel="Diagnosis")
        axes.set_xticks([0, 1], ["AD", "CN"])
        axes.set_yticks([0, 1], ["AD", "CN"])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@styled
def probability_figure(subjects: pd.DataFrame, *, threshold: float) -> "Figure":
    """Draw one dot a subject by diagnosis; misclassified ones ringed."""
    figure = new_figure(4.2, 4.4)
    axes = figure.add_subplot()
    names, wrong_drawn = [], False
    looks = (("CN", CN_COLOUR, "o"), ("AD", AD_COLOUR, "^"))
    for centre, (diagnosis, colour, marker) in enumerate(looks):
        values = subjects.loc[subjects["diagnosis"] == diagnosis, "probability"].to_numpy(np.float64)
        wrong = (values >= threshold) != (diagnosis == "AD")
        scale = min(1.0, math.sqrt(DOT_CROWD / max(values.size, 1)))
        across = centre + _side_by_side(values, scale)
        axes.scatter(
            across, values, s=DOT_POINTS * scale**2, c=colour, marker=marker, alpha=0.85, linewidths=0
        )
        if wrong.any():
            label = None if wrong_drawn else "Misclassified"
            axes.scatter(across[wrong], values[wrong], label=label, **RING)
            wrong_drawn = True
        names.append(f"{diagnosis}\n{(~wrong).sum()} of {values.size} correct")
    axes.axhline(
        threshold, color="black", linewidth=1, linestyle=(0, (4, 3)), label=f"Threshold {threshold:.2f}"
    )
    axes.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.03), xticks=[0, 1], ylabel="Probability of AD, per subject")
    axes.set_xticklabels(names)
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _unit_square(xlabel: str, ylabel: str) -> tuple["Figure", "Axes"]:
    figure = new_figure(4.6, 4.6)
    axes = figure.add_subplot()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def _with_interval(metric: Mapping[str, float]) -> str:
    return f"{metric['value']:.2f} (95 % CI {metric['low']:.2f}{EN_DASH}{metric['high']:.2f})"


def _side_by_side(values: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    """Return horizontal offsets that keep dots apart.

    Each dot takes the free place nearest to the middle; without one, dots overlap.
    """
    steps = int(DOT_SPREAD / (DOT_WIDTH * scale))
    places = np.array(sorted(range(-steps, steps + 1), key=lambda step: (abs(step), -step)))
    taken = np.full(values.size, steps + 1)
    for dot in np.argsort(values, kind="stable"):
        near = taken[np.abs(values - values[dot]) < DOT_HEIGHT * scale]
        free = places[~np.isin(places, near)]
        taken[dot] = free[0] if free.size else 0
    return taken * (DOT_WIDTH * scale)


# Inches of a row, and of titles and axes.
ROW_HEIGHT, FRAME_HEIGHT = 0.27, 1.0


class Row(NamedTuple):
    """One line of a forest plot; `value` may be missing."""

    label: str
    value: float | None
    low: float
    high: float
    colour: str = CN_COLOUR
    heading: bool = False
    note: str = ""


@styled
def baselines_figure(metrics: Mapping[str, Any]) -> "Figure":
    """Draw AUCs of network and baselines, and their differences."""
    names = [name for name in BASELINES if name in metrics["baselines"]]
    rows = [
        Row("Network", **metrics["subject"]["auc"], colour=AD_COLOUR),
        *(Row(humanize(BASELINES[name]), **metrics["baselines"][name]["auc"]) for name in names),
    ]
    leads = [Row("", None, 0, 0), *(Row("", **metrics["differences"][name]["auc"]) for name in names)]
    figure = new_figure(7.6, FRAME_HEIGHT + ROW_HEIGHT * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    _area_forest(left, rows)
    _forest(right, leads, reference=0)
    right.set(xlabel=f"Network {MINUS} baseline, AUC (95 % CI)")
    return figure


@styled
def subgroups_figure(table: pd.DataFrame) -> "Figure":
    """Draw AUC and balanced accuracy of `comparison.subgroup_table`."""
    panels = {"auc": "AUC (95 % CI)", "balanced_accuracy": "Balanced accuracy (95 % CI)"}
    figure = new_figure(7.6, FRAME_HEIGHT + ROW_HEIGHT * (len(table) + table["fact"].nunique() - 1))
    both = figure.subplots(1, 2, sharey=True)
    for axes, (name, label) in zip(both, panels.items(), strict=True):
        rows = _subgroup_rows(table, name)
        _forest(axes, rows, reference=CHANCE)
        axes.axvline(float(table[name].iloc[0]), color=AD_COLOUR, linewidth=0.8, zorder=0)
        axes.set(xlabel=label, xlim=(-0.02, 1.02))
    _labelled(both[0], rows)
    return figure


@styled
def folds_figure(summary: Mapping[str, Any]) -> "Figure":
    """Draw the AUC of all subjects and of each fold."""
    counts = summary["counts"]
    rows = [Row(f"All subjects  ({counts['subjects']})", **summary["pooled"]["auc"], colour=AD_COLOUR)]
    for name, fold in summary["fold"].items():
        groups, title = counts["fold"][name], fold_title(summary, name)
        rows.append(Row(f"{title}  ({groups['ad']} AD, {groups['cn']} CN)", **fold["auc"]))
    figure = new_figure(7.6, FRAME_HEIGHT + ROW_HEIGHT * len(rows))
    _area_forest(figure.subplots(), rows)
    return figure


def _subgroup_rows(table: pd.DataFrame, name: str) -> list[Row]:
    rows: list[Row] = []
    for fact, groups in table.groupby("fact", sort=False):
        if fact != "all":
            rows.append(Row(str(fact).capitalize(), None, 0, 0, heading=True))
        for group in groups.to_dict("records"):
            value = None if np.isnan(group[name]) else group[name]
            note = "" if value is not None else "one diagnosis only"
            title, colour = ("All subjects", AD_COLOUR) if fact == "all" else (group["group"], CN_COLOUR)
            label = f"{title}  ({group['n_ad']} AD, {group['n_cn']} CN)"
            rows.append(Row(label, value, group[f"{name}_low"], group[f"{name}_high"], colour, note=note))
    return rows


def _area_forest(axes: "Axes", rows: Sequence[Row]) -> None:
    _forest(axes, rows, reference=CHANCE)
    axes.set(xlabel="AUC per subject (95 % CI)", xlim=(min(0.4, *(row.low - 0.03 for row in rows)), 1.02))
    _labelled(axes, rows)


def _forest(axes: "Axes", rows: Sequence[Row], *, reference: float) -> None:
    """Draw one marker with its interval and numbers a row."""
    for place, row in enumerate(rows):
        if row.value is None:
            _annotate(axes, place, row.note)
            continue
        axes.hlines(place, row.low, row.high, color=row.colour, linewidth=1.4)
        axes.plot(row.value, place, "s", color=row.colour, markersize=5.5, markeredgecolor="white")
        numbers = f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
        _annotate(axes, place, numbers.replace("-", MINUS))
    axes.axvline(reference, **DASHED, zorder=0)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _annotate(axes: "Axes", place: int, text: str) -> None:
    axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=GREY)


def _labelled(axes: "Axes", rows: Sequence[Row]) -> None:
    """Name the rows; shared by all panels."""
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.heading else "normal")


# Horizontal offset of the arms from the middle of their pair.
ARM_OFFSET = 0.2
# Horizontal offset of the gap's arrow, so that its number fits.
GAP_OFFSET = -0.13
TITLES = {"true_labels": "True labels", "shuffled_labels": "Labels shuffled among subjects"}
HONEST = {"colour": CN_COLOUR, "marker": "o", "name": "Subject split: tested on new subjects"}
LEAKY = {"colour": AD_COLOUR, "marker": "s", "name": "Slice split, as in 2019: tested on known subjects"}
NOTES = {
    INVALID: "INVALID: with shuffled labels new subjects are above chance",
    INCONCLUSIVE: "INCONCLUSIVE: this test could not have shown a leak",
}


@styled
def groups_figure(subjects: pd.DataFrame, *, threshold: float) -> "Figure":
    """Draw box plots of the probability by diagnosis."""
    names = ["CN", *sorted(set(subjects["diagnosis"]) - {"AD", "CN"}), "AD"]
    values = [subjects.loc[subjects["diagnosis"] == name, "probability"].to_numpy() for name in names]
    figure = new_figure(5.4, 0.8 + 0.45 * len(names))
    axes = figure.add_subplot()
    labels = [f"{name} ({group.size})" for name, group in zip(names, values, strict=True)]
    axes.boxplot(values, orientation="horizontal", tick_labels=labels, showfliers=False, widths=0.6,
                 medianprops={"color": AD_COLOUR})  # fmt: skip
    for place, group in enumerate(values, start=1):
        spread = np.random.default_rng(place).uniform(-0.2, 0.2, group.size)
        axes.plot(group, place + spread, ".", color=GREY, markersize=3, alpha=0.5)
    axes.axvline(threshold, color="black", linewidth=1, linestyle="--")
    axes.set(xlim=(-0.02, 1.02), xlabel="Probability of AD, per subject")
    return figure


@styled
def conversion_figure(groups: Mapping[str, Any], *, years: float) -> "Figure":
    """Draw the Kaplan-Meier curves of groups that have them."""
    shown = {name: group for name, group in groups.items() if group["conversion"]["curves"]}
    figure = new_figure(0.6 + 4.2 * len(shown), 3.8)
    for axes, (name, group) in zip(
        figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True
    ):
        curves = group["conversion"]["curves"]
        for curve, colour in zip(curves, (CN_COLOUR, GREY, AD_COLOUR), strict=True):
            label = f"{humanize(curve['third'])} ({curve['converters']} of {curve['subjects']})"
            axes.step(curve["years"], curve["without_ad"], where="post", color=colour, label=label)
        axes.set(xlim=(0, years), ylim=(0, 1.03), title=name)
        axes.set(xlabel="Years from the first scan", ylabel="Share without AD")
        axes.legend(loc="lower left", title="Probability of AD (converters)")
    return figure


@styled
def leakage_figure(test: Mapping[str, Any]) -> "Figure":
    """Draw accuracy per slice of the four arms, with gaps."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    axes.axhline(CHANCE, **DASHED | {"color": GREY})
    axes.annotate(
        "Chance", (1, CHANCE), xycoords=("axes fraction", "data"), xytext=(-2, 3),
        textcoords="offset points", ha="right", color=GREY,
    )  # fmt: skip
    for middle, (labels, (leaky, honest)) in enumerate(GAPS.items()):
        arms = test["arms"]
        _point(axes, middle - ARM_OFFSET, arms[honest], **HONEST)
        _point(axes, middle + ARM_OFFSET, arms[leaky], **LEAKY)
        _gap(axes, middle, arms[honest], arms[leaky], test["gap"][labels])
    axes.set(xlim=(-0.55, 1.6), ylim=(0, 1.04), xticks=[0, 1], ylabel="Accuracy per test slice")
    axes.set_xticklabels([TITLES[labels] for labels in GAPS])
    axes.tick_params(axis="x", length=0)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[:2], names[:2], loc="outside upper center", ncols=2)
    if test["verdict"] in NOTES:
        axes.set_title(NOTES[test["verdict"]], color=AD_COLOUR)
    return figure


def _point(axes: "Axes", x: float, arm: Mapping[str, Any], *, colour: str, marker: str, name: str) -> None:
    accuracy, auc = arm["slice"]["accuracy"], arm["slice"]["auc"]
    value = accuracy["value"]
    reach = [[value - accuracy["low"]], [accuracy["high"] - value]]
    axes.errorbar(x, value, yerr=reach, fmt=marker, color=colour, markersize=7, capsize=4, label=name)
    text = (
        f"{value:.2f} ({accuracy['low']:.2f}{EN_DASH}{accuracy['high']:.2f})\n"
        f"AUC {auc['value']:.2f}\n{arm['test_subjects']} subjects"
    )
    axes.annotate(text, (x, 0.03), ha="center", va="bottom", fontsize=7.5, color=colour)


def _gap(
    axes: "Axes", middle: float, honest: Mapping[str, Any], leaky: Mapping[str, Any], gap: Mapping[str, float]
) -> None:
    """Draw an arrow from honest to leaky accuracy."""
    ends = [arm["slice"]["accuracy"]["value"] for arm in (honest, leaky)]
    x = middle + GAP_OFFSET
    for end, side in zip(ends, (-1, 1), strict=True):
        axes.plot([middle + side * ARM_OFFSET, x], [end, end], color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate(
        "", (x, ends[1]), xytext=(x, ends[0]),
        arrowprops={"arrowstyle": "->", "color": "black", "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
    text = f"{100 * gap['value']:+.0f} points".replace("-", MINUS)
    axes.annotate(
        text, (x, sum(ends) / 2), xytext=(5, 0), textcoords="offset points", va="center",
        ha="left", fontsize=8.5, fontweight="bold",
    )  # fmt: skip
