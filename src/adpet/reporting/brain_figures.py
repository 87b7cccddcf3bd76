"""Figures of brains: saliency montages, group maps, sanity checks."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.reporting.style import AD_COLOUR, CN_COLOUR, GREY, LIGHT_GREY, MINUS, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.floating]

# More panels would be too small to read.
MAX_PANELS = 12
# More panels than these stand in 6 columns instead of 4.
FEW_PANELS = 8
# Coronal planes of a group map, evenly over those with activation.
SECTIONS = 8
# Share of the largest absolute value below which a map is transparent, as in the 2019 work.
HIDE_BELOW = 0.2
# Opacity of the weakest visible and of the strongest values.
FAINTEST, STRONGEST = 0.35, 0.85
UNIT = "Class activation (logit)"
SIGNED_UNIT = f"Class activation (logit; + for AD, {MINUS} for CN)"
REFERENCED_UNIT = "Attribution (SD from healthy training scans; + towards AD)"
# Quantile of the underlay that is white, and the share of it that delimits the head.
WHITE_QUANTILE, HEAD_SHARE = 0.995, 0.15


class _Overlay(NamedTuple):
    """Colours, scale and transparency of a map."""

    colours: "Colormap"
    norm: "Normalize"
    hide_below: float


@styled
def cam_montage(
    slices: npt.NDArray[np.uint8],
    maps: Floats,
    *,
    y_mm: Floats,
    title: str,
    hide_below: float = HIDE_BELOW,
    unit: str | None = None,
) -> "Figure":
    """Overlay saliency maps on up to 12 coronal slices.

    With negative values the scale diverges: warm colours for AD, cold ones for CN.

    Parameters
    ----------
    slices, maps : (n, h, w) ndarray
    y_mm : (n,) float ndarray
        MNI y of each slice.
    hide_below : float
        Share of the largest absolute value below which the map is transparent.
    """
    shown = _evenly(0, len(slices) - 1, MAX_PANELS)
    overlay = _overlay(maps, hide_below=hide_below)
    columns = min(6 if len(shown) > FEW_PANELS else 4, len(shown))
    rows = -(-len(shown) // columns)
    panel = 1.44 * slices.shape[1] / slices.shape[2] + 0.22
    width, height = max(1.5 * columns, 4.6), panel * rows + 0.9
    # Placed by hand, in inches: a layout that matplotlib works out takes most of the time of a montage.
    figure = new_figure(width, height, layout=None)
    for place, index in enumerate(shown):
        row, column = divmod(place, columns)
        left, bottom = (width - 1.5 * columns) / 2 + 1.5 * column + 0.03, 0.64 + panel * (rows - 1 - row)
        axes = figure.add_axes((left / width, bottom / height, 1.44 / width, (panel - 0.22) / height))
        axes.set_axis_off()
        axes.imshow(slices[index], cmap="gray", vmin=0, vmax=255, interpolation="bilinear")
        axes.imshow(_painted(maps[index], overlay), interpolation="bilinear")
        axes.set_title(f"y = {_millimetres(y_mm[index])}", fontsize=9, pad=3)
        _mark_sides(axes)
    figure.suptitle(title, fontsize=11, y=1 - 0.08 / height, va="top")
    label = SIGNED_UNIT if overlay.norm(0.0) > 0 else UNIT
    below = figure.add_axes((0.25, 0.46 / height, 0.5, 0.08 / height))
    bar = figure.colorbar(_legend(overlay), cax=below, orientation="horizontal")
    bar.set_label(unit or label)
    return figure


@styled
def group_map_figure(
    mean_ad: Floats,
    mean_cn: Floats,
    difference: Floats,
    underlay: Floats,
    affine: npt.NDArray[np.float64],
    *,
    n_ad: int,
    n_cn: int,
    hide_below: float = HIDE_BELOW,
    unit: str = "logit",
) -> "Figure":
    """Overlay group mean maps and their difference on coronal sections.

    Parameters
    ----------
    mean_ad, mean_cn, difference, underlay : (i, j, k) float ndarray
        On the template grid; both means have the same colour scale.
    affine : (4, 4) float64 ndarray
        Voxel indices -> RAS+ mm, axis-aligned.
    n_ad, n_cn : int
        Scans of each mean.
    """
    if not np.allclose(affine[:3, :3], np.diag(np.abs(np.diag(affine)[:3]))):
        raise ValueError(f"`affine` must be axis-aligned RAS+. Received: affine={affine.tolist()}")
    active = np.flatnonzero((np.abs(mean_ad) + np.abs(mean_cn)).any(axis=(0, 2)))
    first, last = (active[0], active[-1]) if active.size else (0, underlay.shape[1] - 1)
    planes = _evenly(int(first), int(last), SECTIONS)
    crop = _head(underlay)
    means = _overlay(np.stack([mean_ad, mean_cn]), hide_below=hide_below)
    contrast = _overlay(difference, hide_below=hide_below, signed=True)
    rows = [
        (f"AD (n = {n_ad})", mean_ad, means),
        (f"CN (n = {n_cn})", mean_cn, means),
        (f"AD {MINUS} CN", difference, contrast),
    ]
    zooms = np.diag(affine)[:3]
    height, width = _plane(underlay, planes[0], crop).shape
    ratio = height * zooms[2] / (width * zooms[0])
    figure = new_figure(1.3 * len(planes) + 1.4, 3 * 1.3 * ratio + 0.4, layout="compressed")
    panels = figure.subplots(3, len(planes), squeeze=False)
    pixels: dict[str, Any] = {"interpolation": "bilinear", "aspect": zooms[2] / zooms[0]}
    white = float(np.quantile(underlay[underlay > 0], WHITE_QUANTILE))
    for row, (name, volume, overlay) in enumerate(rows):
        for axes, plane in zip(panels[row], planes, strict=True):
            axes.imshow(_plane(underlay, plane, crop), cmap="gray", vmin=0, vmax=white, **pixels)
            axes.imshow(_painted(_plane(volume, plane, crop), overlay), **pixels)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            _mark_sides(axes)
            if row == 0:
                axes.set_title(f"y = {_millimetres(affine[1, 1] * plane + affine[1, 3])}", fontsize=9, pad=3)
        panels[row, 0].set_ylabel(name, fontsize=10)
    bars = ((panels[:2], means, "Mean"), (panels[2:], contrast, "Difference"))
    for where, overlay, name in bars:
        bar = figure.colorbar(_legend(overlay), ax=where, location="right", shrink=0.9, pad=0.01)
        bar.set_label(f"{name} ({unit})")
    return figure


@styled
def glass_brain_figure(
    data: npt.NDArray[np.float32], affine: npt.NDArray[np.float64], *, hide_below: float
) -> "Figure":
    """Draw a signed map in a glass brain."""
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


def _overlay(maps: Floats, *, hide_below: float, signed: bool = False) -> _Overlay:
    """Choose a perceptually uniform colour map, diverging for signed maps."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, Normalize

    # A map of zeros still needs a scale.
    end = float(np.abs(maps).max()) or 1.0
    if signed or (maps < 0).any():
        # The middle third is as grey as the slice below it; values that small are mostly hidden anyway.
        ends = np.r_[np.linspace(0, 0.34, 128), np.linspace(0.66, 1, 128)]
        return _Overlay(ListedColormap(mpl.colormaps["coolwarm"](ends)), Normalize(-end, end), hide_below)
    # The darkest third could not be distinguished from the slice either.
    bright = mpl.colormaps["inferno"](np.linspace(0.33, 1, 256))
    return _Overlay(ListedColormap(bright), Normalize(0, end), hide_below)


def _painted(plane: Floats, overlay: _Overlay) -> Floats:
    """Return (h, w, 4) colours, more opaque away from zero."""
    painted = overlay.colours(overlay.norm(plane))
    painted[..., 3] = _opacity(np.abs(plane) / overlay.norm.vmax, overlay.hide_below)
    return np.asarray(painted)


def _opacity(strength: Floats, hide_below: float) -> Floats:
    """Return the opacity of a share of the scale's end."""
    ramp = np.clip((strength - hide_below) / max(1 - hide_below, 1e-6), 0, 1)
    return np.where(strength < hide_below, 0, FAINTEST + (STRONGEST - FAINTEST) * ramp)


def _legend(overlay: _Overlay) -> "ScalarMappable":
    """Return the colour bar's colours, blended over mid grey."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    high = float(overlay.norm.vmax or 1)
    values = np.linspace(float(overlay.norm.vmin or 0), high, 256)
    colours = overlay.colours(overlay.norm(values))
    opacity = _opacity(np.abs(values) / high, overlay.hide_below)[:, None]
    colours[:, :3] = colours[:, :3] * opacity + 0.5 * (1 - opacity)
    return ScalarMappable(norm=overlay.norm, cmap=ListedColormap(colours))


def _mark_sides(axes: "Axes") -> None:
    look: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "fontsize": 8, "color": "white"}
    axes.text(0.03, 0.97, "L", ha="left", **look)
    axes.text(0.97, 0.97, "R", ha="right", **look)


def _millimetres(value: float) -> str:
    return f"{value:+.0f} mm".replace("-", MINUS) if round(value) else "0 mm"


def _plane(volume: Floats, index: int, crop: tuple[slice, slice]) -> Floats:
    """Return a coronal plane: row 0 superior, column 0 left."""
    return volume[crop[0], index, crop[1]].T[::-1]


def _evenly(first: int, last: int, most: int) -> list[int]:
    """Return at most `most` indices at equal steps, centred."""
    step = max(1, -(-(last - first + 1) // most))
    return list(range(first + (last - first) % step // 2, last + 1, step))


def _head(underlay: Floats) -> tuple[slice, slice]:
    """Return the head's extent along x and z, with margin."""
    inside = underlay > HEAD_SHARE * np.quantile(underlay, WHITE_QUANTILE)
    extents = []
    for axis in (0, 2):
        held = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        extents.append(slice(max(held[0] - 2, 0), held[-1] + 3) if held.size else slice(None))
    return extents[0], extents[1]


STYLES = {
    "referenced": (AD_COLOUR, "-", "Z-scored map"),
    "exact": (CN_COLOUR, "--", "CAM"),
    "random": (GREY, ":", "Random"),
}


@styled
def sanity_figure(cascade: pd.DataFrame, curves: pd.DataFrame) -> "Figure":
    """Draw weight randomization, deletion and insertion.

    Parameters
    ----------
    cascade : DataFrame
        `layer`, `similarity`, `lowest`, `highest`, of `cascade_rows`.
    curves : DataFrame
        `scan`, `map`, `share`, `deletion`, `insertion`; the mean over scans is drawn.
    """
    figure = new_figure(11, 3.6)
    left, *others = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    places = range(len(cascade))
    left.axhline(0, color=LIGHT_GREY, linewidth=0.8, zorder=0)
    left.fill_between(places, cascade["lowest"], cascade["highest"], color=CN_COLOUR, alpha=0.2, linewidth=0)
    left.plot(places, cascade["similarity"], "o-", color=CN_COLOUR, markersize=4)
    left.set_xticks(list(places), cascade["layer"], rotation=60, ha="right", rotation_mode="anchor")
    left.set(
        title="Weights randomized from the head down to ...",
        ylabel="Similarity (Spearman)",
        ylim=(min(-0.5, float(cascade["lowest"].min()) - 0.05), 1.05),
    )
    titles = {"deletion": "Deletion: healthy tissue inserted", "insertion": "Insertion into a healthy scan"}
    for axes, (name, title) in zip(others, titles.items(), strict=True):
        means = curves.groupby(["map", "share"], sort=True)[name].mean()
        for order, (colour, dashes, label) in STYLES.items():
            line = means[order]
            axes.plot(100 * line.index.to_numpy(), line.to_numpy(), dashes, color=colour, label=label)
        axes.set(title=title, xlabel="Brain replaced (%)", ylabel="Log-odds of AD")
        axes.legend(title="Highest first by")
    return figure
