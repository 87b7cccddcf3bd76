"""Slices mixed cell by cell from two subjects, so that each place of the map learns to answer for itself.

A network that is only asked about whole slices may answer at any place for all others within its reach:
its map is then high everywhere in an ill brain. In a mixed slice each cell is one subject's or another's, and
each place is asked for the diagnosis of its cell. Parts of images mixed with parts of their labels: CutMix
(Yun et al. 2019); evidence by place from small receptive fields: BagNet (Brendel and Bethge 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.float32]
Labels = npt.NDArray[np.float32]


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
    """Draw which cells of `n` slices stay their own, float32 (n, places, places) of 0 and 1.

    How many are kept in a mixed slice is drawn evenly; slices that are not mixed keep all.
    """
    kept = rng.random((n, 1, 1))
    cells = rng.random((n, mixing.places, mixing.places)) < kept
    whole = rng.random(n) >= mixing.share
    return np.asarray(cells | whole[:, None, None], dtype=np.float32)


def place_labels(cells: Cells, own: Labels, other: Labels) -> Labels:
    """Return the label of each place, float32 (n, places, places, classes), from those of the two slices."""
    kept = cells[..., np.newaxis]
    labels = kept * own[:, None, None, :] + (1 - kept) * other[:, None, None, :]
    return np.asarray(labels, dtype=np.float32)


def mixed(own: Any, other: Any, cells: Any) -> Any:
    """Put two batches of slices together, in the graph of whatever backend Keras runs on.

    Parameters
    ----------
    own, other : (n, height, width, 1) uint8 tensor
    cells : (n, places, places) float32 tensor
        1 where a slice keeps its own; `height` and `width` are multiples of `places`.
    """
    rows, columns = own.shape[1] // cells.shape[1], own.shape[2] // cells.shape[2]
    kept = keras.ops.repeat(keras.ops.repeat(cells, rows, axis=1), columns, axis=2)
    return keras.ops.where(keras.ops.expand_dims(kept, -1) > 0, own, other)
