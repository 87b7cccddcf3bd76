"""Intensities as ratios to a reference region (unitless), and as bytes through one fixed window."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]


def ratio_to_reference(data: Array, mask: npt.NDArray[np.bool_]) -> Array:
    """Divide by the mean over the reference region, so that the unit and the injected dose fall out.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
        In any unit of activity.
    mask : (i, j, k) bool ndarray
        The reference region. Only its positive finite voxels count: what lies outside the scanner's view is
        0 after resampling, and would lower the mean.

    Returns
    -------
    (i, j, k) float32 ndarray
        Ratio to the reference (unitless).

    Raises
    ------
    ValueError
        If the region holds no positive voxel.
    """
    inside = data[mask]
    inside = inside[np.isfinite(inside) & (inside > 0)]
    if not inside.size:
        raise ValueError(
            f"the reference region ({int(mask.sum())} voxels) must hold positive uptake, received none:"
            " check the registration, or choose another reference"
        )
    return np.asarray(data / inside.mean(dtype=np.float64), dtype=np.float32)


def to_uint8(ratio: Array, *, window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Map ratios linearly to bytes: `window`'s low end to 0, its high end to 255, rounded and clipped.

    The window is the same for every slice of every scan, so that a byte means the same ratio everywhere.
    """
    low, high = window
    if not low < high:
        raise ValueError(f"`window` must ascend. Received: window={window}")
    return np.asarray(np.round(np.clip((ratio - low) / (high - low), 0, 1) * 255), dtype=np.uint8)
