"""Cut coronal planes, and project their maps back.

Planes run from posterior to anterior; in a plane, row 0 is superior and column 0 the patient's left.
A pixel's value belongs to its centre. World coordinates are RAS+ mm.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.imaging.nifti import Affine, Array

# Height of the square field's centre, MNI z in mm: midway between the lowest cerebellum (-72) and the
# vertex (+82), so that 192 mm holds the brain with a margin on all sides.
CENTRE_Z_MM = 5.0
# Voxel and pixel indices are rounded to this many digits, so that a point meant to lie on a plane, or on
# the last plane of all, is not thrown off it by the last bits of an affine.
INDEX_DIGITS = 9


@dataclass(frozen=True)
class CoronalGrid:
    """Square coronal planes at equal steps.

    A plane has `size` pixels and `field_mm` along each side, and is centred on x = 0 and z = `CENTRE_Z_MM`;
    `y_mm` are the world y of the planes, ascending. With `neighbours_mm`, a network sees each plane between
    its neighbours at that distance (2.5D).
    """

    size: int
    field_mm: float
    y_mm: tuple[float, ...]
    neighbours_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 1 or not self.field_mm > 0:
            raise ValueError(
                f"a plane needs pixels and an extent. Received: size={self.size}, field_mm={self.field_mm}"
            )
        steps = np.diff(self.y_mm)
        if not self.y_mm or (steps <= 0).any() or not np.allclose(steps, steps[:1], rtol=0, atol=1e-6):
            raise ValueError(f"planes must ascend at equal steps. Received: y_mm={self.y_mm}")

    @classmethod
    def spanning(
        cls,
        *,
        range_mm: tuple[float, float],
        step_mm: float,
        size: int,
        field_mm: float,
        neighbours_mm: float = 0.0,
    ) -> Self:
        """Return planes every `step_mm`, the last y included if met."""
        first, last = range_mm
        if not step_mm > 0 or last < first:
            raise ValueError(f"planes must ascend. Received: range_mm={range_mm}, step_mm={step_mm}")
        count = int(np.floor((last - first) / step_mm + 1e-6)) + 1
        y_mm = tuple(float(first + step_mm * index) for index in range(count))
        return cls(size, field_mm, y_mm, neighbours_mm)

    @property
    def pixel_mm(self) -> float:
        """Edge of a pixel in mm."""
        return self.field_mm / self.size

    @property
    def step_mm(self) -> float:
        """Distance between planes in mm; a pixel for one plane."""
        if len(self.y_mm) == 1:
            return self.pixel_mm
        return (self.y_mm[-1] - self.y_mm[0]) / (len(self.y_mm) - 1)

    @property
    def affine(self) -> Affine:
        """(4, 4) affine: row, column, plane -> RAS+ mm."""
        pixel = self.pixel_mm
        edge = self.field_mm / 2 - pixel / 2
        return np.array(
            [
                [0, pixel, 0, -edge],
                [0, 0, self.step_mm, self.y_mm[0]],
                [-pixel, 0, 0, CENTRE_Z_MM + edge],
                [0, 0, 0, 1],
            ],
            dtype=np.float64,
        )


def coronal_slices(data: Array, affine: Affine, grid: CoronalGrid) -> Array:
    """Cut coronal planes, (n, size, size) float32, by linear interpolation.

    They are 0 where they leave the volume.
    """
    shape = (grid.size, grid.size, len(grid.y_mm))
    planes = _sampled(data, np.linalg.inv(affine) @ grid.affine, shape)
    return np.ascontiguousarray(np.moveaxis(planes, 2, 0))


def channel_offsets(neighbours_mm: float) -> tuple[float, ...]:
    """Return where a slice's channels lie along y, in mm."""
    return (-neighbours_mm, 0.0, neighbours_mm) if neighbours_mm else (0.0,)


def network_slices(data: Array, affine: Affine, grid: CoronalGrid) -> Array:
    """Cut a network's input, (n, size, size, channels).

    The channels are the plane alone, or the plane behind, the plane, and the one in front of it.
    """
    offsets = channel_offsets(grid.neighbours_mm)
    grids = [replace(grid, y_mm=tuple(y + offset for y in grid.y_mm)) for offset in offsets]
    return np.stack([coronal_slices(data, affine, shifted) for shifted in grids], axis=-1)


def own_planes(slices: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a network's input without neighbours, (n, height, width)."""
    return slices[..., slices.shape[-1] // 2]


def back_project(maps: Array, grid: CoronalGrid, *, shape: tuple[int, int, int], affine: Affine) -> Array:
    """Project maps of planes back into a volume.

    Parameters
    ----------
    maps : (n, h, w) float32 ndarray
        One map a plane over the plane's whole field, of any resolution.
    shape, affine : (int, int, int), (4, 4) float64 ndarray
        Grid of the volume; voxel indices -> RAS+ mm.

    Returns
    -------
    (i, j, k) float32 ndarray
        Linear within and between planes; 0 outside the planes' field and span.
    """
    if maps.shape[:-2] != (len(grid.y_mm),):
        raise ValueError(f"expected one map for each of {len(grid.y_mm)} planes. Received: {maps.shape}")
    planes = np.moveaxis(resize_maps(maps, grid.size), 0, 2)
    return _sampled(planes, np.linalg.inv(grid.affine) @ affine, shape)


def resize_maps(maps: Array, size: int) -> Array:
    """Resize maps bilinearly, (n, h, w) to (n, size, size).

    Both cover the same field (half-pixel rule); beyond the outermost pixel centres the edge value continues.
    """
    if maps.shape[1:] == (size, size):
        return maps
    rows, columns = (_bilinear_weights(size, source) for source in maps.shape[1:])
    return np.asarray(rows @ maps @ columns.T, dtype=np.float32)


def _bilinear_weights(target: int, source: int) -> npt.NDArray[np.float64]:
    """Return (target, source) weights of bilinear interpolation."""
    centres = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    distance = np.abs(centres[:, None] - np.arange(source))
    return np.asarray(np.clip(1 - distance, 0, None))


def _sampled(data: Array, matrix: Affine, shape: tuple[int, int, int]) -> Array:
    """Sample linearly at `matrix` times each index, 0 outside."""
    indices = np.indices(shape, dtype=np.float64, sparse=True)
    where = np.empty((3, *shape))
    for axis in range(3):
        row = matrix[axis]
        where[axis] = row[0] * indices[0] + row[1] * indices[1] + row[2] * indices[2] + row[3]
    np.round(where, INDEX_DIGITS, out=where)
    sampled = ndimage.map_coordinates(data, where, output=np.float32, order=1, mode="constant", cval=0)
    return np.asarray(sampled, dtype=np.float32)
