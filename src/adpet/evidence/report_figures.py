"""Figures that the report alone has, and how any figure goes into a page: as text, inside the page itself."""

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from adpet.evidence.drawing import CN_COLOUR, DPI, STYLE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Names of SVG's parts are drawn from this instead of from chance.
SVG_SALT = "adpet"
# Inches a bar, and for axes.
BAR_HEIGHT, FRAME_HEIGHT = 0.3, 0.8


def svg_uri(figure: "Figure") -> str:
    """Return a figure as a data URI of SVG; equal figures give equal text, letters are drawn as paths."""
    return _uri(figure, "svg", {"Date": None, "Creator": None})


def png_uri(figure: "Figure") -> str:
    """Return a figure of images as a data URI of PNG at 150 dpi."""
    return _uri(figure, "png", {"Software": None})


@styled
def importance_figure(importance: Mapping[str, float]) -> "Figure":
    """Draw the share of the trials' variance that each parameter explains, the largest at the top."""
    names = sorted(importance, key=lambda name: importance[name])
    figure = new_figure(4.6, FRAME_HEIGHT + BAR_HEIGHT * len(names))
    axes = figure.add_subplot()
    values = [importance[name] for name in names]
    labels = [name.rpartition(".")[2].replace("_", " ") for name in names]
    bars = axes.barh(labels, values, color=CN_COLOUR, height=0.65)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=3, fontsize=8)
    axes.set(xlim=(0, 1.12), xticks=np.linspace(0, 1, 5), xlabel="Share of the variance explained (fANOVA)")
    axes.tick_params(axis="y", length=0)
    return figure


@styled
def glass_brain_figure(
    data: npt.NDArray[np.float32],
    affine: npt.NDArray[np.float64],
    *,
    hide_below: float,
) -> "Figure":
    """Draw a signed map through a brain of glass: the strongest value along each line of sight.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
    affine : (4, 4) float64 ndarray
        Voxel indices -> MNI mm.
    hide_below : float
        Share of the largest absolute value below which nothing is drawn.
    """
    import nibabel as nib
    from nilearn.plotting import plot_glass_brain

    end = float(np.abs(data).max()) or 1.0
    figure = new_figure(7.6, 2.6, layout=None)
    plot_glass_brain(
        nib.Nifti1Image(data, affine),
        display_mode="lyrz",
        figure=figure,
        colorbar=True,
        cmap="coolwarm",
        plot_abs=False,
        symmetric_cbar=True,
        threshold=hide_below * end,
        vmax=end,
        annotate=True,
    )
    return figure


def _uri(figure: "Figure", kind: str, metadata: dict[str, None]) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    content = io.BytesIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": SVG_SALT, "svg.fonttype": "path"}):
        figure.savefig(content, format=kind, dpi=DPI, metadata=metadata)
    media = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{media};base64,{base64.b64encode(content.getvalue()).decode()}"
