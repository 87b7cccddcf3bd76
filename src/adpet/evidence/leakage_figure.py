"""Figure of the leakage audit, drawn from its document alone."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adpet.evidence.drawing import AD_COLOUR, CN_COLOUR, EN_DASH, GREY, MINUS, new_figure, styled
from adpet.evidence.leakage import GAPS, INCONCLUSIVE, INVALID

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE = 0.5
# Where the arms of a pair stand beside the middle of the pair.
BESIDE = 0.2
# Where their gap stands, so that its number fits before the second arm.
GAP_BESIDE = -0.13
TITLES = {"true_labels": "True labels", "shuffled_labels": "Labels shuffled among subjects"}
HONEST = {"colour": CN_COLOUR, "marker": "o", "name": "Subject split: tested on new subjects"}
LEAKY = {"colour": AD_COLOUR, "marker": "s", "name": "Slice split, as in 2019: tested on known subjects"}
NOTES = {
    INVALID: "INVALID: with shuffled labels new subjects are above chance",
    INCONCLUSIVE: "INCONCLUSIVE: this audit could not have shown a leak",
}


@styled
def leakage_figure(audit: Mapping[str, Any]) -> "Figure":
    """Draw the accuracy per slice of the four arms with their intervals, chance, and the leak as the gap.

    Parameters
    ----------
    audit : mapping
        The document of `leakage.leakage_audit`.
    """
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    axes.axhline(CHANCE, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        "Chance", (1, CHANCE), xycoords=("axes fraction", "data"), xytext=(-2, 3),
        textcoords="offset points", ha="right", color=GREY,
    )  # fmt: skip
    for middle, (labels, (leaky, honest)) in enumerate(GAPS.items()):
        arms = audit["arms"]
        _point(axes, middle - BESIDE, arms[honest], **HONEST)
        _point(axes, middle + BESIDE, arms[leaky], **LEAKY)
        _gap(axes, middle, arms[honest], arms[leaky], audit["gap"][labels])
    axes.set(xlim=(-0.55, 1.6), ylim=(0, 1.04), xticks=[0, 1], ylabel="Accuracy per test slice")
    axes.set_xticklabels([TITLES[labels] for labels in GAPS])
    axes.tick_params(axis="x", length=0)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[:2], names[:2], loc="outside upper center", ncols=2)
    if audit["verdict"] in NOTES:
        axes.set_title(NOTES[audit["verdict"]], color=AD_COLOUR)
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
    """Draw an arrow from the honest accuracy to the leaky one, with what lies between."""
    ends = [arm["slice"]["accuracy"]["value"] for arm in (honest, leaky)]
    x = middle + GAP_BESIDE
    for end, side in zip(ends, (-1, 1), strict=True):
        axes.plot([middle + side * BESIDE, x], [end, end], color=GREY, linewidth=0.8, linestyle=":")
    axes.annotate(
        "", (x, ends[1]), xytext=(x, ends[0]),
        arrowprops={"arrowstyle": "->", "color": "black", "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip
    points = 100 * gap["value"]
    sign = "+" if points >= 0 else MINUS
    text = f"{sign}{abs(points):.0f} points"
    axes.annotate(
        text, (x, sum(ends) / 2), xytext=(5, 0), textcoords="offset points", va="center",
        ha="left", fontsize=8.5, fontweight="bold",
    )  # fmt: skip
