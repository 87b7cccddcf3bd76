"""One figure of the sanity checks of maps: weights drawn anew, and tissue replaced."""

from typing import TYPE_CHECKING

import pandas as pd

from adpet.evidence.drawing import AD_COLOUR, CN_COLOUR, GREY, LIGHT_GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES = {"referenced": (AD_COLOUR, "-"), "exact": (CN_COLOUR, "--"), "random": (GREY, ":")}


@styled
def sanity_figure(cascade: pd.DataFrame, curves: pd.DataFrame) -> "Figure":
    """Draw how maps change when weights are drawn anew, and how the answer changes with the tissue.

    Parameters
    ----------
    cascade : DataFrame
        `layer`, `similarity`, `lowest`, `highest`, as `cascade_rows` gives them.
    curves : DataFrame
        `scan`, `map`, `share`, `deletion`, `insertion`; the mean over scans is drawn.
    """
    figure = new_figure(11, 3.6)
    left, *others = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    _draw_cascade(left, cascade)
    for axes, (name, title) in zip(
        others,
        (("deletion", "Deletion: healthy tissue put in"), ("insertion", "Insertion: into a healthy scan")),
        strict=True,
    ):
        means = curves.groupby(["map", "share"], sort=True)[name].mean()
        for order, (colour, dashes) in STYLES.items():
            line = means[order]
            axes.plot(100 * line.index.to_numpy(), line.to_numpy(), dashes, color=colour, label=order)
        axes.set(title=title, xlabel="Brain replaced (%)", ylabel="Log-odds of AD")
        axes.legend(title="highest first by")
    return figure


def _draw_cascade(axes: "Axes", cascade: pd.DataFrame) -> None:
    places = range(len(cascade))
    axes.axhline(0, color=LIGHT_GREY, linewidth=0.8, zorder=0)
    axes.fill_between(places, cascade["lowest"], cascade["highest"], color=CN_COLOUR, alpha=0.2, linewidth=0)
    axes.plot(places, cascade["similarity"], "o-", color=CN_COLOUR, markersize=4)
    axes.set_xticks(list(places), cascade["layer"], rotation=60, ha="right", rotation_mode="anchor")
    axes.set(
        title="Weights permuted from the head down to ...",
        ylabel="Similarity (Spearman)",
        ylim=(min(-0.5, float(cascade["lowest"].min()) - 0.05), 1.05),
    )
