"""Figures of a model's performance on its test subjects, drawn from tables."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.evidence.drawing import (
    AD_COLOUR,
    CN_COLOUR,
    EN_DASH,
    GREY,
    LIGHT_GREY,
    MINUS,
    new_figure,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# From this share on a cell is so dark that its text is white.
DARK_SHARE = 0.55
# A dot's size in probability and in places across, how far dots may spread from their place, and the largest
# group that is drawn with dots of full size.
DOT_HEIGHT, DOT_WIDTH, DOT_SPREAD, DOT_CROWD = 0.024, 0.045, 0.42, 60
DOT_POINTS = 26.0


@styled
def roc_figure(curves: pd.DataFrame, band: pd.DataFrame, *, metrics: Mapping[str, Any]) -> "Figure":
    """Draw the ROC curve per subject with its bootstrap band, and the slices' curve thin behind it.

    Parameters
    ----------
    curves, band : DataFrame
        As `curves.roc_curves` and `curves.roc_band` return them.
    metrics : mapping
        The document of `metrics.evaluation`.
    """
    figure = new_figure(4.6, 4.6)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=LIGHT_GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.fill_between(
        band["false_positive_rate"],
        band["low"],
        band["high"],
        color=CN_COLOUR,
        alpha=0.18,
        linewidth=0,
        label="95 % band over subjects",
    )
    looks = {"slice": (GREY, 0.9, "Per slice"), "subject": (CN_COLOUR, 2.0, "Per subject")}
    for level, (colour, width, name) in looks.items():
        curve = curves[curves["level"] == level]
        label = f"{name}: AUC {_with_interval(metrics[level]['auc'])}"
        axes.plot(
            curve["false_positive_rate"], curve["sensitivity"], color=colour, linewidth=width, label=label
        )
    subject = metrics["subject"]
    axes.plot(
        1 - subject["specificity"]["value"],
        subject["sensitivity"]["value"],
        "o",
        color=AD_COLOUR,
        markersize=7,
        markeredgecolor="white",
        label=f"Operating point (threshold {metrics['threshold']:.2f})",
        clip_on=False,
        zorder=5,
    )
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel=f"False positive rate (1 {MINUS} specificity)",
        ylabel="Sensitivity to AD",
    )
    handles, labels = axes.get_legend_handles_labels()
    order = [2, 0, 3, 1]
    axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="lower right", borderaxespad=0.8)
    return figure


@styled
def precision_recall_figure(curves: pd.DataFrame, *, metrics: Mapping[str, Any]) -> "Figure":
    """Draw precision over recall per subject, the slices' thin behind it, and what chance would give.

    Parameters
    ----------
    curves : DataFrame
        As `curves.precision_recall_curves` returns them.
    metrics : mapping
        The document of `metrics.evaluation`.
    """
    figure = new_figure(4.6, 4.6)
    axes = figure.add_subplot()
    share = metrics["counts"]["subjects_ad"] / metrics["counts"]["subjects"]
    looks = {"subject": (CN_COLOUR, 2.0, "Per subject", 3), "slice": (GREY, 0.9, "Per slice", 2)}
    for level, (colour, width, name, order) in looks.items():
        curve = curves[curves["level"] == level]
        label = f"{name}: AP {_with_interval(metrics[level]['average_precision'])}"
        # A precision holds from the recall before it: areas are then average precisions.
        axes.plot(
            curve["recall"],
            curve["precision"],
            color=colour,
            linewidth=width,
            label=label,
            drawstyle="steps-pre",
            zorder=order,
        )
    axes.axhline(
        share,
        color=LIGHT_GREY,
        linewidth=1,
        linestyle=(0, (4, 3)),
        label=f"Chance: {share:.2f}, the share of AD subjects",
    )
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel="Recall (sensitivity to AD)",
        ylabel="Precision (positive predictive value)",
    )
    axes.legend(loc="lower left", borderaxespad=0.8)
    return figure


@styled
def calibration_figure(points: pd.DataFrame, *, metrics: Mapping[str, Any]) -> "Figure":
    """Draw the reliability diagram: how many have AD among those with like probabilities.

    Parameters
    ----------
    points : DataFrame
        As `curves.calibration_points` returns them.
    metrics : mapping
        The document of `metrics.evaluation`.
    """
    figure = new_figure(4.6, 4.6)
    axes = figure.add_subplot()
    axes.plot(
        [0, 1], [0, 1], color=LIGHT_GREY, linewidth=1, linestyle=(0, (4, 3)), label="True probabilities"
    )
    looks = {"slice": (GREY, "s", 4, "Per slice"), "subject": (CN_COLOUR, "o", 7, "Per subject")}
    for level, (colour, marker, size, name) in looks.items():
        rows = points[points["level"] == level]
        error = _with_interval(metrics[level]["calibration_error"])
        if level == "subject":
            axes.vlines(rows["probability"], rows["low"], rows["high"], color=colour, linewidth=1.4)
        axes.plot(
            rows["probability"],
            rows["observed"],
            marker,
            linestyle="-",
            linewidth=0.8,
            color=colour,
            markersize=size,
            markeredgecolor="white",
            label=f"{name}: error {error}",
            clip_on=False,
        )
    subjects = points.loc[points["level"] == "subject", "n"]
    each = f"{subjects.min()} to {subjects.max()}" if subjects.min() < subjects.max() else f"{subjects.max()}"
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
        xlabel=f"Mean probability of AD, in {len(subjects)} bins of {each} subjects",
        ylabel="Share with AD (bars: exact 95 % CI)",
    )
    figure.legend(loc="outside upper center", ncols=1)
    return figure


@styled
def confusion_figure(metrics: Mapping[str, Any]) -> "Figure":
    """Draw the confusion matrices per subject and per slice: counts, and their share of the diagnosis.

    Parameters
    ----------
    metrics : mapping
        The document of `metrics.evaluation`.
    """
    figure = new_figure(6.4, 3.1)
    for axes, level in zip(figure.subplots(1, 2), ("subject", "slice"), strict=True):
        cells = metrics[level]["confusion"]
        counts = np.array(
            [
                [cells["true_positive"], cells["false_negative"]],
                [cells["false_positive"], cells["true_negative"]],
            ]
        )
        shares = counts / counts.sum(axis=1, keepdims=True)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(2, 2):
            axes.text(
                column,
                row,
                f"{counts[row, column]:,}\n{shares[row, column]:.0%}",
                ha="center",
                va="center",
                fontsize=11,
                color="white" if shares[row, column] > DARK_SHARE else "black",
            )
        axes.set(
            title=f"Per {level} (n = {counts.sum():,})",
            xticks=[0, 1],
            xticklabels=["AD", "CN"],
            yticks=[0, 1],
            yticklabels=["AD", "CN"],
            xlabel="Called",
            ylabel="Diagnosis",
        )
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@styled
def probability_figure(subjects: pd.DataFrame, *, threshold: float) -> "Figure":
    """Draw one dot a subject by diagnosis, with the threshold; the wrongly called ones are ringed.

    Parameters
    ----------
    subjects : DataFrame
        `diagnosis` and `probability`, as `metrics.subject_probabilities` returns them.
    threshold : float
    """
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
            axes.scatter(
                across[wrong],
                values[wrong],
                s=95,
                facecolors="none",
                edgecolors="black",
                linewidths=1.0,
                label=None if wrong_drawn else "Wrongly called",
            )
            wrong_drawn = True
        names.append(f"{diagnosis}\n{(~wrong).sum()} of {values.size} right")
    axes.axhline(
        threshold, color="black", linewidth=1, linestyle=(0, (4, 3)), label=f"Threshold {threshold:.2f}"
    )
    axes.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.03), xticks=[0, 1], ylabel="Probability of AD, per subject")
    axes.set_xticklabels(names)
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _with_interval(metric: Mapping[str, float]) -> str:
    """Return the value and its interval, as papers print them."""
    return f"{metric['value']:.2f} (95 % CI {metric['low']:.2f}{EN_DASH}{metric['high']:.2f})"


def _side_by_side(values: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float64]:
    """Return horizontal offsets that keep dots apart: each takes the free place nearest to the middle.

    Where none is free, dots lie on one another.
    """
    steps = int(DOT_SPREAD / (DOT_WIDTH * scale))
    places = np.array(sorted(range(-steps, steps + 1), key=lambda step: (abs(step), -step)))
    taken = np.full(values.size, steps + 1)
    for dot in np.argsort(values, kind="stable"):
        near = taken[np.abs(values - values[dot]) < DOT_HEIGHT * scale]
        free = places[~np.isin(places, near)]
        taken[dot] = free[0] if free.size else 0
    return taken * (DOT_WIDTH * scale)
