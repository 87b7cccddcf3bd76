"""Style and output of figures, without pyplot's shared state."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, ParamSpec

from adpet.storage import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Options = ParamSpec("Options")

# Okabe and Ito's colours, distinct with every common form of colour blindness (jfly.uni-koeln.de/color).
AD_COLOUR = "#D55E00"
CN_COLOUR = "#0072B2"
HIGHLIGHT_COLOUR = "#009E73"
GREY = "#6E6E6E"
LIGHT_GREY = "#C8C8C8"

# Named, since they look like a hyphen in the source.
MINUS, EN_DASH = "\N{MINUS SIGN}", "\N{EN DASH}"

DPI = 150
UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
STYLE: dict[str, object] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": "white",
    "axes.unicode_minus": True,
}


def styled(draw: Callable[Options, "Figure"]) -> Callable[Options, "Figure"]:
    """Draw in the project's style, whatever the user's matplotlibrc."""

    @functools.wraps(draw)
    def drawn(*args: Options.args, **kwargs: Options.kwargs) -> "Figure":
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(
    width: float, height: float, *, layout: Literal["constrained", "compressed"] | None = "constrained"
) -> "Figure":
    """Return an empty figure of `width` x `height` inches.

    A compressed layout brings images of fixed shape close together.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG with deterministic bytes."""
    with atomic_write(path) as aside:
        save_as(figure, aside, "png")


def save_as(figure: "Figure", target: Path | BinaryIO, kind: Literal["svg", "png"]) -> None:
    """Write a figure without dates and with fixed ids."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with mpl.rc_context({**STYLE, "svg.hashsalt": "adpet", "svg.fonttype": "path"}):
        figure.savefig(target, format=kind, dpi=DPI, metadata=UNDATED[kind])
