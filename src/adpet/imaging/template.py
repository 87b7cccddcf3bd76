"""MNI template space: grid, template, FDG mean and masks.

Template and masks are made from nilearn's tissue maps (grey, white, skull-stripped T1; MNI ICBM152 2009a,
1 mm), which come inside nilearn: nothing is downloaded. What is returned is read-only.
"""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.nifti import Affine, Array, Volume, read_volume
from adpet.imaging.registration import FWHM_PER_SIGMA, Mask, resample

Reference: TypeAlias = Literal["global", "cerebellum", "pons"]

# Outermost voxel centres in MNI mm. The brain reaches from (-71, -106, -72) to (71, 73, 82); the edges are
# multiples of 6, so that grids of 1, 1.5, 2, 3 and 6 mm begin and end at the same places.
GRID_BOX_MM = ((-96.0, 96.0), (-126.0, 90.0), (-84.0, 102.0))
GRID_LIMITS_MM = (1.0, 8.0)
# Mean of simulated healthy people's scans, by scripts/fdg_mean.py: an FDG image that no real person is in.
FDG_MEAN = Path(__file__).with_name("fdg_mean.nii.gz")
# Resolution of the template: between a modern brain scanner's and that of scans smoothed for comparison.
TEMPLATE_FWHM_MM = 8.0
# Uptake relative to white matter: cortical grey matter takes up about four times as much.
GREY_UPTAKE, WHITE_UPTAKE = 4.0, 1.0
# Boxes in MNI mm, (x, y, z) lowest and highest, that tissue of the reference regions is taken from.
CEREBELLUM_BOX_MM = ((-48.0, -90.0, -60.0), (48.0, -45.0, -25.0))
PONS_BOX_MM = ((-12.0, -34.0, -42.0), (12.0, -16.0, -22.0))
# Tissue maps, blurred to a scan's resolution, tell the inner part of a region by this much tissue.
REFERENCE_FWHM_MM = 6.0
MIN_CEREBELLAR_GREY, MIN_PONS_TISSUE = 0.65, 0.9
# Tissue, blurred by this much, and the share from which on a voxel is mostly grey or mostly white matter;
# white matter only well away from the cortex, whose uptake a scan's blur mixes in.
GREY_FWHM_MM, WHITE_FWHM_MM = 4.0, 8.0
MIN_GREY, MIN_WHITE = 0.6, 0.8
GREY_LABEL, WHITE_LABEL = 1, 2
# Share of the brain that a template file must cover.
MIN_COVERAGE = 0.9


def template_grid(grid_mm: float) -> tuple[tuple[int, int, int], Affine]:
    """Return shape and affine of an MNI grid."""
    low, high = GRID_LIMITS_MM
    if not low <= grid_mm <= high:
        raise ValueError(f"`grid_mm` must lie between {low:g} and {high:g}. Received: grid_mm={grid_mm}")
    counts = [int(np.floor((last - first) / grid_mm + 1e-6)) + 1 for first, last in GRID_BOX_MM]
    affine = np.diag([grid_mm, grid_mm, grid_mm, 1.0])
    affine[:3, 3] = [first for first, _ in GRID_BOX_MM]
    return (counts[0], counts[1], counts[2]), affine


def grid_axes(grid_mm: float) -> list[npt.NDArray[np.float64]]:
    """Return the MNI mm of voxel centres, by axis."""
    shape, affine = template_grid(grid_mm)
    return [affine[axis, 3] + grid_mm * np.arange(shape[axis]) for axis in range(3)]


@cache
def fdg_template(grid_mm: float) -> Volume:
    """Return the FDG-like template: grey 4, white 1."""
    uptake = GREY_UPTAKE * tissue_map("gm").data + WHITE_UPTAKE * tissue_map("wm").data
    return Volume(_frozen(_on_grid(uptake, grid_mm, TEMPLATE_FWHM_MM)), template_grid(grid_mm)[1])


@cache
def fdg_mean(grid_mm: float) -> Volume:
    """Return the mean FDG image of healthy people."""
    return load_template(FDG_MEAN, grid_mm)


def load_template(path: Path | str, grid_mm: float) -> Volume:
    """Load a template file onto the MNI grid."""
    volume = read_volume(Path(path))
    shape, affine = template_grid(grid_mm)
    data = resample(volume, shape=shape, affine=affine)
    covered = float((data[brain_mask(grid_mm)] > 0).mean())
    if covered < MIN_COVERAGE:
        raise InputError(
            f"{path}: the template must cover the brain in MNI space, {covered:.0%} of it is covered:"
            " give a template in MNI space, or the built-in one"
        )
    return Volume(_frozen(data), affine)


@cache
def brain_mask(grid_mm: float) -> Mask:
    """Return the brain, (i, j, k) bool, ventricles included."""
    # The T1 map is skull-stripped: all that is not 0 is brain, but for the stumps of the optic nerves.
    present = (tissue_map("t1").data > 0).astype(np.float32)
    labels, _ = ndimage.label(np.round(_on_grid(present, grid_mm, grid_mm)))
    return _frozen(labels == np.bincount(labels[labels > 0]).argmax())


@cache
def reference_mask(reference: Reference, grid_mm: float) -> Mask:
    """Return the reference region, (i, j, k) bool.

    ``global`` is the brain, ``cerebellum`` its grey matter, ``pons`` the inner pons; the latter two stay away
    from their surfaces, where a scan's blur mixes in the neighbouring tissue.
    """
    if reference == "global":
        return brain_mask(grid_mm)
    if reference == "cerebellum":
        grey = _on_grid(tissue_map("gm").data, grid_mm, REFERENCE_FWHM_MM) > MIN_CEREBELLAR_GREY
        return _frozen(grey & _box(CEREBELLUM_BOX_MM, grid_mm))
    tissue = tissue_map("gm").data + tissue_map("wm").data
    return _frozen(
        (_on_grid(tissue, grid_mm, REFERENCE_FWHM_MM) > MIN_PONS_TISSUE) & _box(PONS_BOX_MM, grid_mm)
    )


@cache
def tissue_labels(grid_mm: float) -> npt.NDArray[np.uint8]:
    """Return tissue labels, uint8: 1 grey, 2 white."""
    grey = _on_grid(tissue_map("gm").data, grid_mm, GREY_FWHM_MM) > MIN_GREY
    white = _on_grid(tissue_map("wm").data, grid_mm, WHITE_FWHM_MM) > MIN_WHITE
    return _frozen(np.where(white, WHITE_LABEL, np.where(grey, GREY_LABEL, 0)).astype(np.uint8))


@cache
def tissue_map(name: Literal["gm", "wm", "t1"]) -> Volume:
    """Return a tissue map of 1 mm, 0 to 1.

    ``gm`` and ``wm`` are probabilities of grey and white matter, ``t1`` is the skull-stripped T1 image.
    """
    maps = resources.files("nilearn") / "datasets" / "data"
    with resources.as_file(maps / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") as path:
        volume = read_volume(path)
    return Volume(_frozen(volume.data / volume.data.max()), volume.affine)


def _on_grid(image: Array, grid_mm: float, fwhm_mm: float) -> Array:
    """Blur a 1 mm tissue map and resample it."""
    blurred = ndimage.gaussian_filter(image, fwhm_mm / FWHM_PER_SIGMA, mode="constant", truncate=3)
    shape, affine = template_grid(grid_mm)
    return resample(Volume(blurred, tissue_map("t1").affine), shape=shape, affine=affine)


def _box(box: tuple[tuple[float, ...], tuple[float, ...]], grid_mm: float) -> Mask:
    x, y, z = (
        (axis >= low) & (axis <= high) for axis, low, high in zip(grid_axes(grid_mm), *box, strict=True)
    )
    return np.asarray(x[:, None, None] & y[None, :, None] & z[None, None, :])


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array
