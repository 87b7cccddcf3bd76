"""Training batches of packed slices, with augmentation and CutMix.

Slices are uint8 (n, height, width, channels). A draw depends on the seed, the epoch and the batch alone, so
that any epoch can be repeated.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning import keras
from adpet.learning.model import CLASSES

# Slice, height, width, channel.
PACKED_AXES = 4

# Slices on a device are filled up to a multiple, so that folds of nearly one size share what is compiled.
DEVICE_MULTIPLE = 4096

Array: TypeAlias = npt.NDArray[np.float64]
Cells: TypeAlias = npt.NDArray[np.bool_]
Fill: TypeAlias = Literal["nearest", "constant"]
Indices: TypeAlias = npt.NDArray[np.intp]
Labels: TypeAlias = npt.NDArray[np.float32]
Slices: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SliceRef:
    """One slice: its packed file, plane, diagnosis and subject."""

    path: Path
    index: int
    label: str
    subject: str


@dataclass(frozen=True)
class Augmentation:
    """Largest random changes, drawn uniformly around no change.

    Zoom, shear, shift (of the slice's width) and intensity (of gain and exponent) are fractions; `fill` is
    what comes in from outside: the pixel at the edge, or 0.
    """

    rotation_degrees: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    flip: bool = False
    intensity: float = 0.0
    fill: Fill = "nearest"


@dataclass(frozen=True)
class CutMix:
    """CutMix of two slices of one plane (Yun, ICCV 2019).

    A `share` of the slices is mixed; `places` of the class activation map lie along each side.
    """

    share: float
    places: int


class SliceDataset(keras.utils.PyDataset):  # type: ignore[misc]
    """Training batches: ``{"slice", "transform", "gain"}``, one-hot labels, weights.

    With `cutmix`, labels and weights are those of two outputs, ``whole`` and ``places``: a whole slice counts
    as a whole, a mixed one place by place. With `balance`, slices weigh as `balanced_weights` says, else all
    alike. An incomplete batch is left out, if it is not the only one. `epoch` is to be set before each epoch.
    Once the slices are `held` on a device, a batch has the arguments of `DeviceSlices` in their place.
    """

    def __init__(
        self,
        refs: Sequence[SliceRef],
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        cutmix: CutMix | None = None,
        balance: bool = False,
    ) -> None:
        # One worker: more would begin before the epoch is set. TensorFlow reads ahead in a thread of its own,
        # and JAX computes while the next batch is read.
        super().__init__(workers=1)
        if not refs:
            raise InputError("training: required at least one slice; received none")
        self._reader = SliceReader(refs)
        self._labels = one_hot(refs)
        self._weights = balanced_weights(refs) if balance else np.ones(len(refs), np.float32)
        self.batch_size = min(batch_size, len(refs))
        self._augmentation = augmentation
        self._seed = seed
        self._cutmix = cutmix
        self._planes = np.array([ref.index for ref in refs])
        self._of_plane = {
            plane: np.flatnonzero(self._planes == plane) for plane in set(self._planes.tolist())
        }
        self.epoch = 0
        self.held: DeviceSlices | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._labels) // self.batch_size

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """Return a batch: inputs, labels and weights."""
        order = _shuffled(len(self._labels), self._seed, self.epoch)
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        transforms, gains = draw_augmentation(
            self._augmentation, len(chosen), self.shape[0], _rng(self._seed, self.epoch, 1 + step)
        )
        inputs = {"transform": transforms, "gain": gains}
        if not self._cutmix:
            return inputs | self._slices(chosen), self._labels[chosen], self._weights[chosen]
        return self._mixed(inputs, chosen, self._cutmix, _rng(self._seed, self.epoch, 1 + step, 1))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of a slice."""
        return self._reader.read([0]).shape[1:]

    def device_shape(self) -> tuple[int, ...]:
        """Return the shape of what `read_all` reads."""
        return (-(-len(self._labels) // DEVICE_MULTIPLE) * DEVICE_MULTIPLE, *self.shape)

    def read_all(self) -> Slices:
        """Return all slices by number, and empty ones after them."""
        slices, n = np.zeros(self.device_shape(), np.uint8), len(self._labels)
        for start in range(0, n, DEVICE_MULTIPLE):
            numbers = range(start, min(start + DEVICE_MULTIPLE, n))
            slices[numbers.start : numbers.stop] = self._reader.read(numbers)
        return slices

    def _slices(
        self, chosen: Indices, partners: Indices | None = None, cells: Cells | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return a batch's slices, or what `DeviceSlices` makes them of."""
        if self.held:
            numbers = {"number": chosen, "partner": partners, "cells": cells}
            return {name: np.asarray(each) for name, each in numbers.items() if each is not None}
        slices = self._reader.read(chosen)
        if partners is not None and cells is not None:
            slices = mix_slices(slices, self._reader.read(partners), cells)
        return {"slice": slices}

    def _mixed(
        self, inputs: dict[str, Any], chosen: Indices, cutmix: CutMix, rng: np.random.Generator
    ) -> tuple[Any, ...]:
        partners = np.array([rng.choice(self._of_plane[plane]) for plane in self._planes[chosen].tolist()])
        cells = draw_cells(cutmix, len(chosen), rng)
        shown = transform_cells(cells, inputs["transform"], self.shape[0])
        own, other = self._labels[chosen], self._labels[partners]
        is_whole, weights = cells.all(axis=(1, 2)), self._weights[chosen]
        mixed = np.where(is_whole, np.float32(0), weights)
        return (
            inputs | self._slices(chosen, partners, cells),
            {"whole": own, "places": mix_labels(own, other, shown)},
            {"whole": weights - mixed, "places": np.ones(shown.shape, np.float32) * mixed[:, None, None]},
        )


class DeviceSlices(keras.layers.Layer):  # type: ignore[misc]
    """All slices of a training in the device's memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(name="slices")
        self.slices = self.add_weight(shape=shape, dtype="uint8", initializer="zeros", trainable=False)

    def call(self, number: Any, partner: Any = None, cells: Any = None) -> Any:
        """Gather a batch of slices, and mix it by cells."""
        own = keras.ops.take(self.slices, number, axis=0)
        return own if cells is None else mix_slices(own, keras.ops.take(self.slices, partner, axis=0), cells)


class SliceReader:
    """Reader of slices by number; no file stays open."""

    def __init__(self, refs: Sequence[SliceRef]) -> None:
        self._refs = refs
        self._form = cache(_packed_form)

    def read(self, numbers: Indices | Sequence[int]) -> Slices:
        """Return slices, (n, height, width, channels) uint8."""
        planes = []
        for number in numbers:
            ref = self._refs[number]
            offset, length, shape = self._form(ref.path)
            if not 0 <= ref.index < length:
                raise InputError(
                    f"{ref.path}: required more than {ref.index} slices; received {length}; "
                    "run the slice stage again"
                )
            size = math.prod(shape)
            with ref.path.open("rb", buffering=0) as file:
                file.seek(offset + ref.index * size)
                planes.append(np.frombuffer(file.read(size), np.uint8).reshape(shape))
        if len({plane.shape for plane in planes}) > 1:
            raise InputError(
                f"{self._refs[numbers[0]].path}: required slices of one size; received also another; "
                "run the slice stage again"
            )
        return np.stack(planes)


def one_hot(refs: Sequence[SliceRef]) -> Labels:
    """Return one-hot labels, float32 (n, 2), by `CLASSES`."""
    return np.eye(len(CLASSES), dtype=np.float32)[[CLASSES.index(ref.label) for ref in refs]]


def balanced_weights(refs: Sequence[SliceRef]) -> Labels:
    """Return each slice's weight, float32 (n,), of mean 1.

    Subjects of one diagnosis weigh alike, with however many visits, and each diagnosis as the other. A
    subject whose diagnosis changed counts once for each.
    """
    subjects = [(ref.label, ref.subject) for ref in refs]
    slices, of_diagnosis = Counter(subjects), Counter(label for label, _ in set(subjects))
    weights = np.array([1 / (slices[each] * of_diagnosis[each[0]]) for each in subjects])
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def draw_augmentation(
    augmentation: Augmentation, n: int, size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw the augmentation of `n` square slices of `size` pixels.

    Returns
    -------
    transforms : (n, 8) float32 ndarray
        Output pixel -> input pixel, about the centre of the image: zoom and flip, then shear, then rotation,
        then shift.
    gains : (n, 2) float32 ndarray
        Gain and exponent of the intensities, unitless.
    """
    angle = np.deg2rad(rng.uniform(-1, 1, n) * augmentation.rotation_degrees)
    zoom = 1 + rng.uniform(-1, 1, (n, 2)) * augmentation.zoom
    slant = rng.uniform(-1, 1, n) * augmentation.shear
    shift = rng.uniform(-1, 1, (n, 2)) * augmentation.shift * size
    mirror = rng.choice([-1.0, 1.0], n) if augmentation.flip else np.ones(n)
    gains = 1 + rng.uniform(-1, 1, (n, 2)) * augmentation.intensity
    rotation = _matrices(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    shear = _matrices(np.ones(n), slant, np.zeros(n), np.ones(n))
    scale = _matrices(mirror * zoom[:, 0], np.zeros(n), np.zeros(n), zoom[:, 1])
    return _about_centre(rotation @ shear @ scale, shift, size), gains.astype(np.float32)


def augment(images: Any, transforms: Any, gains: Any, *, fill: Fill) -> Any:
    """Augment a batch of slices, in the backend's graph.

    Images, (n, height, width, channels) uint8, change as `draw_augmentation` drew it: bilinear, rounded, and
    clipped to 0 and 255 as the slices of a scan are.
    """
    moved = keras.ops.image.affine_transform(
        keras.ops.cast(images, "float32"),
        transforms,
        interpolation="bilinear",
        fill_mode=fill,
        fill_value=0,
        data_format="channels_last",
    )
    gain = keras.ops.reshape(gains[:, 0], (-1, 1, 1, 1))
    exponent = keras.ops.reshape(gains[:, 1], (-1, 1, 1, 1))
    # A power keeps the background at 0, which a linear change of contrast would not.
    changed = 255.0 * gain * keras.ops.power(keras.ops.maximum(moved, 0.0) / 255.0, exponent)
    return keras.ops.cast(keras.ops.clip(keras.ops.round(changed), 0.0, 255.0), "uint8")


def draw_cells(cutmix: CutMix, n: int, rng: np.random.Generator) -> Cells:
    """Draw the cells that slices keep, (n, places, places) bool.

    The share of cells that a mixed slice keeps is drawn uniformly; slices that are not mixed keep all.
    """
    kept = rng.random((n, 1, 1))
    cells = rng.random((n, cutmix.places, cutmix.places)) < kept
    whole = rng.random(n) >= cutmix.share
    return np.asarray(cells | whole[:, None, None])


def mix_slices(own: Any, other: Any, cells: Any) -> Any:
    """Mix two batches of slices by cells, on any backend."""
    ops, places = np if isinstance(own, np.ndarray) else keras.ops, cells.shape[1]
    kept = ops.repeat(ops.repeat(cells, own.shape[1] // places, axis=1), own.shape[2] // places, axis=2)
    return ops.where(kept[..., None], own, other)


def mix_labels(own: Labels, other: Labels, cells: Cells) -> Labels:
    """Return each place's label, float32 (n, places, places, classes)."""
    return np.where(cells[..., np.newaxis], own[:, None, None, :], other[:, None, None, :])


def transform_cells(cells: Cells, transforms: npt.NDArray[np.float32], size: int) -> Cells:
    """Return the cell at each place's centre after augmentation.

    `transforms`, (n, 8), are those of slices of `size` pixels.
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


def _rng(seed: int, epoch: int, *streams: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, *streams)))


@lru_cache(maxsize=1)
def _shuffled(n: int, seed: int, epoch: int) -> Indices:
    """Return the order of an epoch's slices."""
    return _rng(seed, epoch, 0).permutation(n)


def _matrices(xx: Array, xy: Array, yx: Array, yy: Array) -> Array:
    return np.stack([np.stack([xx, xy], axis=-1), np.stack([yx, yy], axis=-1)], axis=-2)


def _about_centre(matrices: Array, shift: Array, size: int) -> npt.NDArray[np.float32]:
    """Return (n, 8) transforms about the image's centre, plus `shift`."""
    centre = np.full(2, (size - 1) / 2)
    offset = centre + shift - matrices @ centre
    rows = np.concatenate([matrices, offset[:, :, None]], axis=2).reshape(-1, 6)
    return np.pad(rows, ((0, 0), (0, 2))).astype(np.float32)


def _packed_form(path: Path) -> tuple[int, int, tuple[int, ...]]:
    """Return a packed file's offset, length and slice shape."""
    try:
        packed = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: required a packed file of slices (.npy); it cannot be read "
            f"({' '.join(str(error).split())}); run the slice stage again"
        ) from error
    if packed.dtype != np.uint8 or packed.ndim != PACKED_AXES or not packed.flags.c_contiguous:
        raise InputError(
            f"{path}: required uint8 (n, height, width, channels) in C order; received {packed.dtype} "
            f"{packed.shape}{'' if packed.flags.c_contiguous else ' in Fortran order'}; "
            "run the slice stage again"
        )
    return packed.offset, len(packed), packed.shape[1:]
