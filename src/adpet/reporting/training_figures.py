"""Figures of training curves and hyperparameter search."""

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from adpet.reporting.components import humanize
from adpet.reporting.style import AD_COLOUR, CN_COLOUR, GREY, HIGHLIGHT_COLOUR, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Columns of a training history that are no metrics.
NOT_CURVES = ("epoch", "step", "seconds")
# Prefix of a parameter's column in Optuna's table of trials.
PARAMETER_PREFIX = "params_"
# Inches of a bar, and of the axes.
BAR_HEIGHT, FRAME_HEIGHT = 0.3, 0.8


@styled
def learning_curves_figure(history: pd.DataFrame | list[dict[str, Any]], *, best_epoch: int) -> "Figure":
    """Draw training and validation curves, one panel a metric.

    Parameters
    ----------
    history : DataFrame or list of dict
        One row an epoch; `val_loss` is the validation's `loss`.
    best_epoch : int
        The epoch that was kept; of several networks, the median.
    """
    table = pd.DataFrame(history)
    curves = [name for name in table.columns if name not in NOT_CURVES and table[name].dtype.kind in "fiu"]
    names = sorted(
        {name.removeprefix("val_") for name in curves},
        key=lambda name: (name != "loss", name == "learning_rate", name),
    )
    columns = 2 if len(names) in (2, 4) else min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = new_figure(0.6 + 2.9 * columns, 0.5 + 2.4 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    looks = (("", "Training", CN_COLOUR, "-"), ("val_", "Validation", AD_COLOUR, "--"))
    labelled: dict[str, Any] = {}
    for axes, name in zip(panels, names, strict=False):
        for prefix, label, colour, line in looks:
            if prefix + name in curves:
                marker = "o" if len(table) == 1 else ""
                look = {"color": colour, "linestyle": line, "marker": marker}
                (drawn,) = axes.plot(table["epoch"], table[prefix + name], **look)
                labelled.setdefault(label, drawn)
        labelled["Epoch kept"] = axes.axvline(best_epoch, color=GREY, linewidth=0.9, linestyle=":")
        axes.set(title=humanize(name), xlabel="Epoch")
        _whole_ticks(axes)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.legend(list(labelled.values()), list(labelled), loc="outside upper center", ncols=len(labelled))
    return figure


@styled
def search_figure(
    trials: pd.DataFrame,
    *,
    direction: Literal["minimize", "maximize"],
    value_name: str = "Value",
    logarithmic: Collection[str] = (),
) -> "Figure":
    """Draw the trials' history, and each parameter against the value.

    Parameters
    ----------
    trials : DataFrame
        As Optuna's ``Study.trials_dataframe``.
    logarithmic : collection of str
        The parameters that are searched on a logarithmic scale.
    """
    trials = trials.astype({"value": np.float64})
    shown = trials[np.isfinite(trials["value"])].sort_values("number")
    complete = shown[shown["state"] == "COMPLETE"]
    parameters = [name for name in trials.columns if name.startswith(PARAMETER_PREFIX)]
    columns = min(4, max(1, len(parameters)))
    rows = math.ceil(len(parameters) / columns)
    figure = new_figure(max(5.0, 2.35 * columns), 2.7 + 2.1 * rows)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[1.25] + [1] * rows)
    top = figure.add_subplot(grid[0, :])
    value = complete["value"]
    so_far = value.cummin() if direction == "minimize" else value.cummax()
    best = complete[value == so_far.iloc[-1]].head(1) if len(complete) else complete
    _trial_dots(top, shown["number"], shown, best["number"], best)
    if len(complete):
        look = {"color": HIGHLIGHT_COLOUR, "linewidth": 1.4, "label": "Best so far", "zorder": 1}
        top.step(complete["number"], so_far, where="post", **look)
    top.set(xlabel="Trial", ylabel=humanize(value_name))
    _whole_ticks(top)
    for position, name in enumerate(parameters):
        axes = figure.add_subplot(grid[1 + position // columns, position % columns])
        _parameter_panel(axes, name, shown, best)
        if name.removeprefix(PARAMETER_PREFIX) in logarithmic and len(shown):
            axes.set_xscale("log")
        if position % columns == 0:
            axes.set_ylabel(humanize(value_name))
        else:
            axes.tick_params(labelleft=False)
        axes.set_ylim(top.get_ylim())
    figure.align_xlabels()
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def importance_figure(importance: Mapping[str, float]) -> "Figure":
    """Draw the importance of each parameter, largest at the top."""
    names = sorted(importance, key=importance.__getitem__)
    figure = new_figure(4.6, FRAME_HEIGHT + BAR_HEIGHT * len(names))
    axes = figure.add_subplot()
    values = [importance[name] for name in names]
    labels = [name.rpartition(".")[2].replace("_", " ") for name in names]
    bars = axes.barh(labels, values, color=CN_COLOUR, height=0.65)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
    axes.set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 5), xlabel="Share of the variance explained (fANOVA)")
    axes.tick_params(axis="y", length=0)
    return figure


def _whole_ticks(axes: "Axes") -> None:
    """Set integer ticks for epochs and trials."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    low, high = axes.dataLim.intervalx
    if np.isfinite([low, high]).all():
        margin = max(0.5, 0.03 * (high - low))
        axes.set_xlim(low - margin, high + margin)


def _trial_dots(
    axes: "Axes", across: pd.Series, trials: pd.DataFrame, at: pd.Series, best: pd.DataFrame
) -> None:
    """Draw complete trials filled, others hollow, the best starred."""
    complete = (trials["state"] == "COMPLETE").to_numpy()
    value = trials["value"].to_numpy(np.float64)
    place = across.to_numpy()
    axes.scatter(place[complete], value[complete], s=22, color=CN_COLOUR, linewidths=0, label="Complete")
    if not complete.all():
        hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": GREY, "linewidths": 0.9}
        axes.scatter(place[~complete], value[~complete], s=20, label="Stopped early", **hollow)
    axes.scatter(
        at, best["value"], s=110, marker="*", color=AD_COLOUR, edgecolors="white", linewidths=0.6,
        zorder=5, label="Best",
    )  # fmt: skip


def _parameter_panel(axes: "Axes", name: str, trials: pd.DataFrame, best: pd.DataFrame) -> None:
    """Draw one parameter against the value."""
    column = trials[name].dropna()
    trials = trials.loc[column.index]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        _trial_dots(axes, column, trials, best[name], best)
    else:
        levels = sorted({str(value) for value in column})
        places = {level: place for place, level in enumerate(levels)}
        _trial_dots(axes, column.astype(str).map(places), trials, best[name].astype(str).map(places), best)
        axes.set_xticks(range(len(levels)), levels)
        axes.set_xlim(-0.6, len(levels) - 0.4)
    for collection in axes.collections:
        collection.set_label("")
    axes.set_xlabel(humanize(name.removeprefix(PARAMETER_PREFIX).rpartition(".")[2]))
