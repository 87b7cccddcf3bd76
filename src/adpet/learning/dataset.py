"""Batches of slices out of packed files, one uint8 ``.npy`` (n, height, width) a scan.

Every batch is a function of (seed, epoch, step) alone: any epoch can be replayed exactly,
whatever came before it. Memory does not grow with the number of scans.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning.augment import Augmentation, draw
from adpet.learning.mixing import Mixing, Partners, draw_cells, mixed, moved_cells, place_labels
from adpet.learning.model import CLASSES

# Packed files that a data set keeps open; each takes one file handle of the 1024 a process has.
OPEN_FILES = 128

# Slice, height, width.
PACKED_AXES = 3


@dataclass(frozen=True)
class SliceRef:
    """One slice: which packed file, which plane of it, its diagnosis and whose it is."""

    path: Path
    index: int
    label: str
    subject: str


class SliceDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches for the training graph: ``{"slice", "transform", "gain"}`` and one-hot labels.

    With `mixing` labels and their weights are those of two outputs, ``whole`` and ``places``: whole slices
    are judged as a whole, mixed ones place by place.

    Parameters
    ----------
    refs : sequence of SliceRef
    batch_size : int
        Slices in a batch. What is left over after the last full batch of an epoch is left out:
        the order differs from epoch to epoch. Fewer slices than that make one smaller batch.
    augmentation : Augmentation
    seed : int
    mixing : Mixing, optional

    Attributes
    ----------
    epoch : int
        The epoch that the batches are drawn for; to be set before each epoch.

    Raises
    ------
    InputError
        Where there are no slices, a label is not in `CLASSES`, or a packed file is unusable.
    """

    def __init__(
        self,
        refs: Sequence[SliceRef],
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        mixing: Mixing | None = None,
    ) -> None:
        super().__init__()
        if not refs:
            raise InputError("training: required at least one slice; received none")
        self._reader = SliceReader(refs)
        self._labels = one_hot(refs)
        self.batch_size = min(batch_size, len(refs))
        self._augmentation = augmentation
        self._seed = seed
        self._mixing = mixing
        self._partners = Partners([ref.index for ref in refs])
        self._shuffled: tuple[int, npt.NDArray[np.intp]] | None = None
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._labels) // self.batch_size

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """Return the inputs and labels of batch `step` of the present epoch, with mixing also the weights."""
        chosen = self._order()[step * self.batch_size : (step + 1) * self.batch_size]
        slices = self._reader.read(chosen)
        transforms, gains = draw(self._augmentation, len(chosen), slices.shape[1], self._rng(1 + step))
        inputs: dict[str, npt.NDArray[Any]] = {"slice": slices, "transform": transforms, "gain": gains}
        if self._mixing is None:
            return inputs, self._labels[chosen]
        return self._mixed(inputs, chosen, self._mixing, self._rng(1 + step, 1))

    def _mixed(
        self,
        inputs: dict[str, npt.NDArray[Any]],
        chosen: npt.NDArray[np.intp],
        mixing: Mixing,
        rng: np.random.Generator,
    ) -> tuple[Any, ...]:
        partners, cells = self._partners.draw(chosen, rng), draw_cells(mixing, len(chosen), rng)
        slices = mixed(inputs["slice"], self._reader.read(partners), cells)
        shown = moved_cells(cells, inputs["transform"], slices.shape[1])
        own, other = self._labels[chosen], self._labels[partners]
        is_whole = np.asarray(cells.all(axis=(1, 2)), dtype=np.float32)
        return (
            inputs | {"slice": slices},
            {"whole": own, "places": place_labels(shown, own, other)},
            {"whole": is_whole, "places": np.ones(shown.shape, np.float32) - is_whole.reshape(-1, 1, 1)},
        )

    def _order(self) -> npt.NDArray[np.intp]:
        """Return this epoch's order, drawn once an epoch."""
        if self._shuffled is None or self._shuffled[0] != self.epoch:
            self._shuffled = (self.epoch, self._rng(0).permutation(len(self._labels)))
        return self._shuffled[1]

    def _rng(self, *streams: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self.epoch, *streams)))


class SliceReader:
    """Reads slices by their place in a list of references, with few files open at a time."""

    def __init__(self, refs: Sequence[SliceRef]) -> None:
        self._refs = refs
        self._packed = lru_cache(maxsize=OPEN_FILES)(_open_packed)

    def read(self, places: npt.NDArray[np.intp] | Sequence[int]) -> npt.NDArray[np.uint8]:
        """Return the slices at `places`, (n, height, width, 1) uint8.

        Raises
        ------
        InputError
            Where a packed file is missing, is not uint8 (n, height, width) or lacks the plane.
        """
        planes = []
        for place in places:
            ref = self._refs[place]
            packed = self._packed(ref.path)
            if not 0 <= ref.index < len(packed):
                raise InputError(
                    f"{ref.path}: required more than {ref.index} slices; received {len(packed)}; "
                    "run the slice stage again"
                )
            planes.append(packed[ref.index])
        if len({plane.shape for plane in planes}) > 1:
            raise InputError(
                f"{self._refs[places[0]].path}: required slices of one size; received also another; "
                "run the slice stage again"
            )
        return np.stack(planes)[..., np.newaxis]


def one_hot(refs: Sequence[SliceRef]) -> npt.NDArray[np.float32]:
    """Return the labels of `refs`, (n, 2) float32 in the order of `CLASSES`.

    Raises
    ------
    InputError
        Where a label is not one of `CLASSES`.
    """
    for ref in refs:
        if ref.label not in CLASSES:
            raise InputError(f"{ref.path}: required a label of {', '.join(CLASSES)}; received {ref.label}")
    numbers = [CLASSES.index(ref.label) for ref in refs]
    return np.eye(len(CLASSES), dtype=np.float32)[numbers]


def _open_packed(path: Path) -> npt.NDArray[np.uint8]:
    try:
        packed = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: required a packed file of slices (.npy); it cannot be read "
            f"({' '.join(str(error).split())}); run the slice stage again"
        ) from error
    if packed.dtype != np.uint8 or packed.ndim != PACKED_AXES:
        raise InputError(
            f"{path}: required uint8 (n, height, width); received {packed.dtype} {packed.shape}; "
            "run the slice stage again"
        )
    return packed  # type: ignore[no-any-return]
