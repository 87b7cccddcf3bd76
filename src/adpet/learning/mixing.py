"""Slices mixed cell by cell from two subjects, so that each place of the map learns to answer for itself.

A network that is only asked about whole slices may answer at any place for all others within its reach:
its map is then high everywhere in an ill brain. In a mixed slice each cell is one subject's or another's, and
each place is asked for the diagnosis of its cell. Parts of images mixed with parts of their labels: CutMix
(Yun et al. 2019); evidence by place from small receptive fields: BagNet (Brendel and Bethge 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Cells: TypeAlias = npt.NDArray[np.bool_]
Labels: TypeAlias = npt.NDArray[np.float32]
Slices: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Mixing:
    """How slices are mixed.

    Attributes
    ----------
    share : float
        Of the training slices; the others stay whole.
    places : int
        Cells along each side: the places of the class activation map.
    """

    share: float
    places: int


class Partners:
    """Finds slices of the same plane to mix with, whosever they are.

    Parameters
    ----------
    planes : sequence of int
        The plane of each slice.
    """

    def __init__(self, planes: Sequence[int]) -> None:
        self._planes = np.asarray(planes)
        self._of_plane = {plane: np.flatnonzero(self._planes == plane) for plane in set(planes)}

    def draw(self, chosen: npt.NDArray[np.intp], rng: np.random.Generator) -> npt.NDArray[np.intp]:
        """Return one partner for each of the `chosen` slices, by number."""
        partners = [rng.choice(self._of_plane[plane]) for plane in self._planes[chosen].tolist()]
        return np.array(partners, dtype=np.intp)


def draw_cells(mixing: Mixing, n: int, rng: np.random.Generator) -> Cells:
    """Draw which cells of `n` slices stay their own, bool (n, places, places).

    How many are kept in a mixed slice is drawn evenly; slices that are not mixed keep all.
    """
    kept = rng.random((n, 1, 1))
    cells = rng.random((n, mixing.places, mixing.places)) < kept
    whole = rng.random(n) >= mixing.share
    return np.asarray(cells | whole[:, None, None])


def mixed(own: Slices, other: Slices, cells: Cells) -> Slices:
    """Put two batches of slices together, (n, height, width, 1); their sides are multiples of the places."""
    places = cells.shape[1]
    kept = np.repeat(np.repeat(cells, own.shape[1] // places, axis=1), own.shape[2] // places, axis=2)
    return np.where(kept[..., np.newaxis], own, other)


def moved_cells(cells: Cells, transforms: npt.NDArray[np.float32], size: int) -> Cells:
    """Return the cell that each place shows after augmentation: the one its centre is read from.

    Parameters
    ----------
    cells : (n, places, places) bool ndarray
    transforms : (n, 8) float32 ndarray
        As `augment.draw` gives them for slices of `size` pixels: from the output to the input.
    """
    places = cells.shape[1]
    stride = size / places
    centres = (np.arange(places) + 0.5) * stride - 0.5
    y, x = np.meshgrid(centres, centres, indexing="ij")
    from_x, from_y = (
        row[:, 0, None, None] * x + row[:, 1, None, None] * y + row[:, 2, None, None]
        for row in (transforms[:, :3], transforms[:, 3:6])
    )
    column, line = (
        np.clip(np.floor((at + 0.5) / stride), 0, places - 1).astype(np.intp) for at in (from_x, from_y)
    )
    return np.asarray(cells[np.arange(len(cells))[:, None, None], line, column])


def place_labels(cells: Cells, own: Labels, other: Labels) -> Labels:
    """Return the label of each place, float32 (n, places, places, classes), from those of the two slices."""
    return np.where(cells[..., np.newaxis], own[:, None, None, :], other[:, None, None, :])
