"""Random changes of training slices: one affine resampling and one change of intensity a batch.

The draws are NumPy's, so that they repeat on every backend; the work is Keras', in the graph.
A transform is eight numbers as `keras.ops.image.affine_transform` takes them: it maps a pixel
(x, y) = (column, row) of the output to the place in the input that it is read from.
"""

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Augmentation:
    """How far slices are changed; everything is drawn evenly, both ways of no change.

    Attributes
    ----------
    rotation_degrees : float
        Largest rotation.
    zoom, shear : float
        Largest change of size, drawn for each axis, and largest slant, as fractions.
    shift : float
        Largest shift, drawn for each axis, as a fraction of the slice's width.
    flip : bool
        Whether every other slice, on average, has its left and right exchanged.
    intensity : float
        Largest change, as a fraction, of the gain and of the exponent of the intensities.
    fill : {"nearest", "constant"}
        What comes in from outside: the pixel at the edge, or 0.
    """

    rotation_degrees: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    flip: bool = False
    intensity: float = 0.0
    fill: Literal["nearest", "constant"] = "nearest"


def draw(
    augmentation: Augmentation, n: int, size: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Draw the changes of `n` slices of `size` by `size` pixels.

    Returns
    -------
    transforms : (n, 8) float32 ndarray
        About the centre of the image: zoom and flip, then shear, then rotation, then shift.
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


def identity(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the transforms and gains that change nothing."""
    transforms = np.tile(np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=np.float32), (n, 1))
    return transforms, np.ones((n, 2), dtype=np.float32)


def apply(images: Any, transforms: Any, gains: Any, *, fill: Literal["nearest", "constant"]) -> Any:
    """Change a batch of slices, in the graph of whatever backend Keras runs on.

    Parameters
    ----------
    images : (n, height, width, 1) uint8 tensor
    transforms : (n, 8) float32 tensor
    gains : (n, 2) float32 tensor
    fill : {"nearest", "constant"}
        What comes in from outside: the pixel at the edge, or 0.

    Returns
    -------
    changed : (n, height, width, 1) uint8 tensor
        Bilinear; rounded and held within 0 and 255, as the slices of a scan are.
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


def _matrices(
    xx: npt.NDArray[np.float64],
    xy: npt.NDArray[np.float64],
    yx: npt.NDArray[np.float64],
    yy: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return (n, 2, 2) matrices from their four elements, (n,) each."""
    return np.stack([np.stack([xx, xy], axis=-1), np.stack([yx, yy], axis=-1)], axis=-2)


def _about_centre(
    matrices: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float32]:
    """Return (n, 8) transforms that leave the centre of the image in place, but for `shift`."""
    n = len(matrices)
    centre = np.full(2, (size - 1) / 2)
    offset = centre + shift - matrices @ centre
    rows = np.concatenate([matrices, offset[:, :, None]], axis=2).reshape(n, 6)
    return np.concatenate([rows, np.zeros((n, 2))], axis=1).astype(np.float32)
