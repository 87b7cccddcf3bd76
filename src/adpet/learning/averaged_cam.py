"""Activation maps finer than the feature layer's stride: averaged over small shifts and the mirror image.

A place of the feature layer stands for a square of `stride` pixels. The same slice, moved by a part of the
stride, is cut into other squares; moved back and averaged, the maps keep what all of them say of a place.
A mirrored slice adds what the network would say if left were right, which takes out its own lopsidedness.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from adpet.imaging.coronal import resize_maps
from adpet.learning.cam import Method, class_activation_maps
from adpet.learning.grad_cam import feature_layer

Slices = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.float32]


def averaged_activation_maps(
    model: keras.Model,
    slices: Slices,
    *,
    shifts: int,
    mirror: bool,
    method: Method = "auto",
    batch_size: int = 48,
) -> Maps:
    """Return where each slice speaks for AD rather than for CN, pixel by pixel.

    Parameters
    ----------
    model : keras.Model
        As `class_activation_maps` takes it.
    slices : (n, size, size) uint8 ndarray
    shifts : int
        Shifts along each axis, spread evenly over one stride around 0; 1 leaves the slices in place.
    mirror : bool
        Whether mirrored slices are averaged in.
    method : {"auto", "cam", "grad-cam"}

    Returns
    -------
    maps : (n, size, size) float32 ndarray
        AD minus CN, in units of the logit.
    """
    n, size = slices.shape[:2]
    stride = size // feature_layer(model).output.shape[1]
    views = list(_views(stride, shifts, mirror=mirror))
    seen = np.concatenate([_moved(slices, *view) for view in views])
    found, _ = class_activation_maps(model, seen, batch_size, method=method)
    total = np.zeros(slices.shape, dtype=np.float64)
    for number, view in enumerate(views):
        total += _moved_back(resize_maps(found[number * n : (number + 1) * n], size), *view)
    return (total / len(views)).astype(np.float32)


def _views(stride: int, shifts: int, *, mirror: bool) -> Iterator[tuple[int, int, bool]]:
    """Yield how far slices move down and to the right, in pixels, and whether they are mirrored."""
    steps = np.arange(shifts) - (shifts - 1) / 2
    offsets = [int(offset) for offset in np.trunc(steps * stride / shifts)]
    for down in offsets:
        for right in offsets:
            yield down, right, False
            if mirror:
                yield down, right, True


def _moved(images: npt.NDArray[np.uint8], down: int, right: int, mirrored: bool) -> Slices:  # noqa: FBT001
    seen = images[:, :, ::-1] if mirrored else images
    return _shifted(seen, down, right)


def _moved_back(maps: Maps, down: int, right: int, mirrored: bool) -> Maps:  # noqa: FBT001
    back = _shifted(maps, -down, -right)
    return back[:, :, ::-1] if mirrored else back


def _shifted(images: npt.NDArray[Any], down: int, right: int) -> npt.NDArray[Any]:
    """Move images; what comes in from outside is 0, as the air around the head is."""
    moved = np.zeros_like(images)
    height, width = images.shape[1:]
    to_rows, to_columns = (
        slice(max(down, 0), height + min(down, 0)),
        slice(max(right, 0), width + min(right, 0)),
    )
    rows, columns = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
    moved[:, to_rows, to_columns] = images[:, rows, columns]
    return moved
