"""Coronal sections of an answer with the map over them, as PNG: grey for uptake, warm for AD, cold for CN."""

import base64
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt

from adpet.imaging.coronal import resize_maps

Array = npt.NDArray[np.float32]

# Screen pixels along a section's edge.
SIDE: Final = 192
# Below this share of the largest value of all sections, the map is not drawn; from it on it gets opaque.
HIDE_BELOW: Final = 0.2
OPACITY: Final = 0.7
# Towards AD from orange to yellow, towards CN from blue to cyan: apart also for the colour-blind.
TOWARDS_AD: Final = ((214, 69, 0), (255, 225, 60))
TOWARDS_CN: Final = ((24, 90, 200), (110, 225, 255))


def section_pictures(slices: npt.NDArray[np.uint8], maps: Array) -> list[str]:
    """Draw each slice with its map, all on one scale.

    Parameters
    ----------
    slices : (n, size, size) uint8 ndarray
    maps : (n, h, w) float32 ndarray
        AD minus CN.

    Returns
    -------
    list of str
        PNG as data addresses.
    """
    scale = float(np.abs(maps).max()) or 1.0
    large = resize_maps(maps, SIDE) / scale
    return [_png(_section(one, over)) for one, over in zip(slices, large, strict=True)]


def _section(plane: npt.NDArray[np.uint8], over: Array) -> npt.NDArray[np.uint8]:
    """Lay a map from -1 to 1 over a slice; return (side, side, 3) bytes."""
    from PIL import Image

    grey = np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    strength = np.asarray(
        np.clip((np.abs(over) - HIDE_BELOW) / (1 - HIDE_BELOW), 0, 1)[..., None], dtype=np.float32
    )
    colours = np.where((over > 0)[..., None], _ramp(TOWARDS_AD, strength), _ramp(TOWARDS_CN, strength))
    opacity = OPACITY * np.minimum(1, 3 * strength)
    return np.asarray(np.round(grey[..., None] * (1 - opacity) + colours * opacity), dtype=np.uint8)


def _ramp(ends: tuple[tuple[int, ...], ...], strength: Array) -> Array:
    low, high = (np.array(end, dtype=np.float32) for end in ends)
    return np.asarray(low + (high - low) * strength, dtype=np.float32)


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
