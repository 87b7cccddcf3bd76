"""Scanner of the simulated cohort: pose, resolution, noise, shading, grid.

The scanner's isocentre is the origin and the middle of the field of view, in scanner RAS+ mm. Voxels are
activity in Bq/mL.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage

from adpet.imaging.nifti import Affine, Array
from adpet.imaging.registration import FWHM_PER_SIGMA
from adpet.simulation.anatomy import GRID_MM, Anatomy
from adpet.simulation.subject import LATTICE_MM, Person, on_lattice, unit_noise

# Standard deviations of a head's pose: turns about x (pitch), y (roll) and z (yaw) in degrees, shift in mm.
PITCH_ROLL_YAW_SD = (7.0, 5.0, 4.0)
SHIFT_SD_MM = 8.0
# Point that lies in the middle of the field of view, MNI mm.
HEAD_CENTRE = np.array([0.0, -18.0, 8.0])
# Noise relative to sqrt(uptake + 0.03), uptake of the mean cortex being 1: as counting statistics demand, and
# a floor for scatter and randoms.
NOISE, NOISE_FLOOR, CORTEX_UPTAKE = 0.06, 0.03, 1.3
SHADING_SD, SHADING_FWHM_MM = 0.02, 120.0
# Activity of the pons in Bq/mL, low so that the files compress, and its spread: dose, weight, calibration.
PONS_BQ_ML, SCALE_SPREAD = 2000.0, 0.25
LARGEST_COUNT = 32767
# In voxels squared; see `blur`.
WIDE_VARIANCE = 0.5


@dataclass(frozen=True)
class Scanner:
    """Scanner; `matrix` and `zooms` (mm) are in storage order."""

    manufacturer: str
    model: str
    method: str
    fwhm_mm: float
    matrix: tuple[int, int, int]
    zooms: tuple[float, float, float]
    axes: str

    @property
    def affine(self) -> Affine:
        """(4, 4) affine: voxel indices -> RAS+ mm, centred."""
        turn = nib.orientations.axcodes2ornt(tuple(self.axes))
        affine = np.eye(4)
        affine[:3, :3] = np.diag(np.array(self.zooms) * turn[:, 1])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.matrix) - 1) / 2)
        return affine


# Voxel sizes and resolutions span those of multi-centre studies; matrices are those of a whole head.
SCANNERS = {
    "HRRT": Scanner("Siemens", "ECAT HRRT", "OP-OSEM3D", 4.2, (88, 106, 86), (2.44, 2.44, 2.44), "LAS"),
    "D690": Scanner("GE", "Discovery 690", "VPFX", 5.2, (110, 128, 63), (2.0, 2.0, 3.27), "RAS"),
    "TruePoint": Scanner(
        "Siemens", "Biograph 64 TruePoint", "OSEM3D", 6.2, (84, 96, 104), (2.67, 2.67, 2.03), "LPS"
    ),
    "HRplus": Scanner("Siemens", "ECAT EXACT HR+", "OSEM", 6.8, (84, 100, 84), (2.57, 2.57, 2.43), "LAS"),
}


@dataclass(frozen=True)
class Site:
    """Site: scanner, share of the cohort, axial slices, frames.

    `slices` fill the scanner's own axial field of view (CONTRIBUTING has the sources).
    """

    scanner: str
    share: float
    slices: int
    frames: int = 1


SITES = {
    "S01": Site("HRRT", 0.08, slices=103),
    # Frames of five minutes, as they come from the scanner: a reader has to average them.
    "S02": Site("HRRT", 0.04, slices=103, frames=6),
    "S03": Site("D690", 0.15, slices=47),
    "S04": Site("D690", 0.15, slices=47),
    # With the option TrueV, and without it: four rings of detector blocks, and three.
    "S05": Site("TruePoint", 0.17, slices=109),
    "S06": Site("TruePoint", 0.16, slices=81),
    "S07": Site("HRplus", 0.13, slices=63),
    "S08": Site("HRplus", 0.12, slices=63),
}
# The usual part of each scanner in a cohort.
SCANNER_SHARES = {
    name: round(sum(site.share for site in SITES.values() if site.scanner == name), 2) for name in SCANNERS
}


def site_shares(scanners: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each site, given those of scanners."""
    total = sum(scanners.values())
    return {
        name: scanners.get(site.scanner, 0) / total * site.share / SCANNER_SHARES[site.scanner]
        for name, site in SITES.items()
    }


def draw_pose(rng: np.random.Generator, person: Person, *, scale: float) -> Affine:
    """Draw a head's pose, scanner mm -> MNI mm."""
    degrees = scale * np.array(PITCH_ROLL_YAW_SD) * rng.standard_normal(3)
    shift = scale * SHIFT_SD_MM * rng.standard_normal(3)
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        about_axis = np.eye(3)
        about_axis[[first, second], [first, second]] = np.cos(angle)
        about_axis[second, first] = np.sin(angle)
        about_axis[first, second] = -np.sin(angle)
        turn = turn @ about_axis
    pose = np.eye(4)
    pose[:3, :3] = turn.T / (1 + scale * person.size)
    pose[:3, 3] = HEAD_CENTRE - pose[:3, :3] @ shift
    return pose


def blur(uptake: Array, fwhm_mm: float) -> Array:
    """Blur an image on the 3 mm grid to `fwhm_mm`.

    It has that resolution once it is resampled. Averaging over 3 mm voxels and linear interpolation blur too:
    their variances, h^2 / 12 and on average h^2 / 6 for voxels of h, are left out here.
    """
    variance = max((fwhm_mm / FWHM_PER_SIGMA / GRID_MM) ** 2 - 1 / 4, 0.0)
    if variance > WIDE_VARIANCE:
        return np.asarray(ndimage.gaussian_filter(uptake, np.sqrt(variance), truncate=3.0))
    # Sampled at whole voxels, so narrow a Gaussian lacks variance; three weights have it exactly.
    kernel = np.array([variance / 2, 1 - variance, variance / 2])
    for axis in range(3):
        uptake = ndimage.correlate1d(uptake, kernel, axis=axis, mode="nearest")
    return uptake


def sample_points(
    anatomy: Anatomy, person: Person, pose: Affine, *, affine: Affine, shape: tuple[int, int, int]
) -> Array:
    """Return where voxels lie in the anatomy, voxel indices."""
    to_grid = (np.linalg.inv(anatomy.affine) @ pose @ affine).astype(np.float32)
    stride = 8
    lattice = np.indices([(size - 1) // stride + 2 for size in shape], dtype=np.float32) * stride
    coarse = np.tensordot(to_grid[:3, :3], lattice, 1) + to_grid[:3, 3, None, None, None]
    points = np.empty((3, *shape), dtype=np.float32)
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    for axis in range(3):
        moved = ndimage.map_coordinates(
            person.warp_mm[axis], coarse * np.float32(GRID_MM / LATTICE_MM), order=1, mode="nearest"
        )
        points[axis] = on_lattice(moved / np.float32(GRID_MM), shape, stride)
        for column in range(3):
            points[axis] += to_grid[axis, column] * axes[column].astype(np.float32)
        points[axis] += to_grid[axis, 3]
    return points


def sample(image: Array, points: Array) -> Array:
    """Interpolate an image on the 3 mm grid at `points`."""
    return np.asarray(ndimage.map_coordinates(image, points, order=1, mode="nearest"))


def count(rng: np.random.Generator, uptake: Array, scanner: Scanner, *, noise: float, frames: int) -> Array:
    """Return one scan in whole Bq/mL, not negative.

    A frame of n has n times the noise variance; `uptake` is seen without noise, pons = 1.
    """
    zooms = np.array(scanner.zooms)
    lattice = [int(size * zoom / LATTICE_MM) + 3 for size, zoom in zip(uptake.shape, zooms, strict=True)]
    slow = unit_noise(rng, lattice, [SHADING_FWHM_MM / LATTICE_MM] * 3)
    shading = on_lattice(slow, uptake.shape, LATTICE_MM / zooms)
    shaded = uptake * (1 + np.float32(SHADING_SD) * shading)
    scale = np.float32(PONS_BQ_ML * np.exp(SCALE_SPREAD * rng.standard_normal()))
    spread = np.sqrt(shaded / CORTEX_UPTAKE + np.float32(NOISE_FLOOR))
    spread *= np.float32(noise * NOISE * CORTEX_UPTAKE * np.sqrt(frames))
    fwhm = list(scanner.fwhm_mm / zooms)
    images = []
    for _ in range(frames):
        image = shaded + spread * unit_noise(rng, list(uptake.shape), fwhm)
        images.append(np.clip(np.round(scale * image), 0, LARGEST_COUNT))
    return np.asarray(images[0] if frames == 1 else np.stack(images, axis=-1), dtype=np.float32)
