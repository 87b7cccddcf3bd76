"""Anatomy of the simulated cohort: FDG uptake by region.

A region is a soft ellipsoid on both sides; every voxel of grey matter has a weighted mean of the uptake of
the regions around it, whose values are fitted so that the blurred image has the published regional means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.imaging.nifti import Affine, Array, Volume
from adpet.imaging.registration import FWHM_PER_SIGMA, Mask, resample
from adpet.imaging.template import grid_axes, template_grid, tissue_map

Vector: TypeAlias = tuple[float, float, float]

# Fine enough for the 4.2 mm of the best scanner, coarse enough for a third of a second a scan.
GRID_MM = 3.0
# Regional means are fitted at this resolution; a group of scans of 4 to 7 mm then meets them best.
TABLE_FWHM_MM = 5.0
# White matter takes up a third of what cortex does; by the same fit.
WHITE_UPTAKE = 0.61
# Skin, muscle and face, in a layer this thick that begins this far outside the brain (the skull is dark).
SCALP_UPTAKE = 0.33
SCALP_MM = (3.0, 17.0)


@dataclass(frozen=True)
class Region:
    """Soft ellipsoid on both sides, MNI mm; x is right."""

    centre: Vector
    radii: Vector
    mean: float


# Means of published normative FDG quantification (aggregate values by region, pons = 1, controls).
NORMATIVE = {
    "pericalcarine": Region((9, -82, 6), (11, 14, 9), 1.60),
    "cuneus": Region((8, -84, 24), (10, 12, 11), 1.45),
    "lingual": Region((14, -68, -5), (11, 17, 8), 1.43),
    "precuneus": Region((8, -60, 46), (10, 16, 16), 1.49),
    "posterior cingulate": Region((6, -45, 26), (8, 12, 12), 1.40),
    "dorsolateral prefrontal": Region((40, 32, 30), (14, 20, 18), 1.38),
    "superior frontal": Region((14, 32, 48), (13, 26, 15), 1.32),
    "lateral occipital": Region((38, -82, 4), (15, 14, 18), 1.29),
    "lateral parietal": Region((46, -56, 42), (16, 18, 16), 1.29),
    "orbitofrontal": Region((24, 36, -14), (18, 18, 9), 1.27),
    "postcentral": Region((46, -26, 50), (16, 11, 16), 1.25),
    "insula": Region((38, 4, 2), (7, 18, 14), 1.20),
    "lateral temporal": Region((58, -28, -10), (11, 30, 12), 1.18),
    "anterior cingulate": Region((5, 34, 16), (8, 14, 14), 1.17),
    "thalamus": Region((11, -18, 8), (9, 13, 9), 1.17),
    "cerebellar cortex": Region((28, -64, -38), (24, 22, 16), 1.15),
    "mesial temporal": Region((24, -30, -17), (9, 15, 8), 1.14),
    "caudate": Region((13, 12, 10), (6, 12, 10), 1.06),
    "putamen": Region((26, 4, 0), (6, 14, 9), 1.50),
    "hippocampus": Region((27, -22, -13), (8, 13, 7), 0.96),
    "pons": Region((0, -27, -34), (12, 9, 12), 1.00),
}

# Regions that the table does not name, and parts of regions with another uptake. Centres and
# radii follow the anatomy's names; means are fitted by benchmarks/fit_uptake.py (least squares to the voxels
# of a public mean of 100 scans, half of them of patients: Della Rosa et al. 2014, with the table held):
# likeness to that image is a fit, not a validation.
BETWEEN = {
    "precentral": Region((40, -8, 52), (16, 10, 16), 1.42),
    "paracentral": Region((6, -24, 60), (8, 18, 14), 1.30),
    "superior temporal": Region((56, -18, 8), (12, 22, 8), 1.32),
    "inferior temporal": Region((48, -40, -22), (14, 24, 10), 1.13),
    "temporal pole": Region((38, 12, -32), (13, 12, 13), 0.95),
    "medial frontal": Region((7, 52, 14), (9, 14, 22), 1.23),
    "subgenual": Region((6, 20, -14), (9, 14, 9), 0.95),
    "inferior frontal": Region((50, 20, 12), (10, 16, 14), 1.33),
    "vertex": Region((22, -16, 72), (20, 22, 10), 1.30),
    "superior premotor": Region((20, 20, 62), (18, 16, 10), 1.26),
    "superior parietal": Region((22, -50, 68), (18, 16, 10), 1.23),
    "occipital pole": Region((20, -100, 0), (16, 10, 16), 1.56),
    "frontal pole": Region((24, 62, 4), (18, 10, 16), 1.36),
    "vermis": Region((0, -64, -28), (7, 16, 14), 1.12),
    "amygdala": Region((22, -3, -20), (10, 9, 9), 0.81),
    "midbrain": Region((0, -22, -14), (12, 9, 9), 1.10),
    "medulla": Region((0, -40, -54), (9, 9, 12), 0.82),
    "mid cingulate": Region((6, -6, 42), (8, 20, 11), 1.21),
    "supplementary motor": Region((7, 4, 62), (9, 16, 12), 1.26),
    "retrosplenial": Region((8, -52, 8), (8, 9, 9), 1.23),
    "anterior cerebellum": Region((10, -50, -18), (14, 11, 9), 0.98),
    "lateral cerebellum": Region((44, -62, -36), (12, 16, 14), 1.11),
    "inferior cerebellum": Region((22, -58, -54), (18, 18, 9), 1.13),
    "medial thalamus": Region((2, -14, 4), (4, 10, 8), 0.79),
    "hypothalamus": Region((3, -4, -12), (6, 9, 8), 0.84),
    "pallidum": Region((19, -4, -1), (5, 9, 7), 1.03),
    "parietal operculum": Region((56, -16, 20), (12, 14, 9), 1.29),
    "supramarginal": Region((60, -34, 32), (12, 14, 13), 1.21),
    "middle temporal": Region((58, -52, 4), (12, 16, 11), 1.29),
    "superior occipital": Region((26, -84, 28), (13, 12, 13), 1.44),
    "middle frontal": Region((36, 52, 12), (13, 13, 14), 1.42),
    "ventral premotor": Region((54, 4, 32), (11, 12, 14), 1.37),
    "fusiform": Region((36, -54, -18), (12, 18, 9), 1.15),
    "rectus": Region((6, 34, -22), (8, 18, 8), 1.22),
    "parahippocampal": Region((18, -38, -8), (9, 10, 8), 1.00),
}
REGIONS = {**NORMATIVE, **BETWEEN}

# Here the grey map has too little grey matter: at least this share of the tissue is grey.
DEEP_GREY = {"thalamus": 0.8, "putamen": 0.95, "caudate": 0.9, "pons": 0.75, "midbrain": 0.7, "medulla": 0.6}

# Regions that ageing of the cortex and the common physiological factor leave alone.
BRAIN_STEM = ("pons", "midbrain", "medulla")
NOT_CORTEX = (
    *DEEP_GREY, "medial thalamus", "pallidum", "hypothalamus", "cerebellar cortex", "anterior cerebellum",
    "lateral cerebellum", "inferior cerebellum", "vermis",
)  # fmt: skip

# Shares of tissue below which a voxel is not simulated, and from which on it counts as tissue.
LEAST_TISSUE, MOSTLY = 0.02, 0.5
# Fewest voxels of a regional mean.
FEWEST_VOXELS = 60

# How gradually the left hemisphere's values become the right one's.
MIDLINE_MM = np.float32(3)

# How sharply regions part, and the weight and value of cortex far from all of them.
SHARPNESS = 2
FAR_WEIGHT, FAR_VALUE = 0.02, 1.01


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Healthy head of n tissue voxels, 3 mm apart."""

    affine: Affine
    tissue: Mask  # (i, j, k): the n voxels of brain tissue, in C order
    position: Array  # (3, n): their centres in MNI mm
    grey_map: Array  # probability of grey matter, of white matter, and the floor of grey in deep nuclei
    white: Array
    deep_grey: Array
    ventricles: Array  # nearness to the ventricles, 0 to 1
    right: Array  # 0 in the left hemisphere, 1 in the right one
    share: Array  # (regions, n): weight of each of `REGIONS`
    far: Array  # the weight that remains to 1
    scalp: Array  # (i, j, k): uptake outside the brain
    values: npt.NDArray[np.float64]  # (regions,): uptake of pure grey matter, pons = 1 after blur

    def on_grid(self, values: npt.NDArray[np.floating | np.bool_]) -> Array:
        """Put (n,) values on the grid, else 0."""
        volume = np.zeros(self.tissue.shape, dtype=np.float32)
        volume[self.tissue] = values
        return volume


@cache
def load_anatomy() -> Anatomy:
    """Make the anatomy, two seconds, once a process."""
    _, affine = template_grid(GRID_MM)
    grey, white = _coarse("gm"), _coarse("wm")
    tissue = grey + white > LEAST_TISSUE
    position = np.argwhere(tissue).T.astype(np.float32) * np.float32(GRID_MM)
    position += affine[:3, 3:].astype(np.float32)
    weights = np.stack([near(position, [region]) ** SHARPNESS for region in REGIONS.values()])
    total = weights.sum(axis=0) + np.float32(FAR_WEIGHT)
    unfitted = Anatomy(
        affine=affine,
        tissue=tissue,
        position=position,
        grey_map=grey[tissue],
        deep_grey=_deep_grey(position, (grey + white)[tissue]),
        white=white[tissue],
        ventricles=_ventricles(grey + white)[tissue],
        right=1 / (1 + np.exp(-position[0] / MIDLINE_MM)),
        share=weights / total,
        far=FAR_WEIGHT / total,
        scalp=_scalp(grey + white > MOSTLY),
        values=np.ones(len(REGIONS)),
    )
    return Anatomy(**{**vars(unfitted), "values": _fitted_values(unfitted)})


def near(position: Array, regions: Sequence[Region]) -> Array:
    """Return nearness to regions, a union of soft ellipsoids."""
    found = np.zeros(position.shape[1], dtype=np.float32)
    for region in regions:
        np.maximum(found, 1 / (1 + squared_distance(position, region) ** 2), out=found)
    return found


def squared_distance(position: Array, region: Region) -> Array:
    """Return squared distances from a region in radii, (n,)."""
    x, y, z = (
        ((along - np.float32(middle)) / np.float32(radius)) ** 2
        for along, middle, radius in zip(
            (np.abs(position[0]), *position[1:]), region.centre, region.radii, strict=True
        )
    )
    return np.asarray(x + y + z, dtype=np.float32)


def grey_matter(anatomy: Anatomy, thinning: float | Array) -> Array:
    """Return the share of active grey matter, (n,) float32."""
    cortex = np.clip((anatomy.grey_map - 0.08 - thinning) * 1.25, 0, 1.05)
    return np.asarray(np.maximum(cortex, anatomy.deep_grey), dtype=np.float32)


def brain_uptake(
    anatomy: Anatomy,
    grey: Array,
    *,
    left: npt.NDArray[np.float64],
    right: npt.NDArray[np.float64],
    white: float,
) -> tuple[Array, Array]:
    """Return the uptake of grey and white matter, before blur."""
    sides = np.stack([left, right]).astype(np.float32) @ anatomy.share
    regional = sides[0] + (sides[1] - sides[0]) * anatomy.right + np.float32(FAR_VALUE) * anatomy.far
    return grey * regional, np.float32(white) * anatomy.white * np.clip(1.05 - grey, 0, 1)


def region_masks(anatomy: Anatomy) -> dict[str, Mask]:
    """Return mostly grey voxels by region, (i, j, k) bool."""
    masks = {}
    for name, region in REGIONS.items():
        inside = squared_distance(anatomy.position, region) < 1
        solid = anatomy.grey_map + anatomy.white > MOSTLY
        grey = inside & (solid if name in DEEP_GREY else anatomy.grey_map > MOSTLY)
        masks[name] = anatomy.on_grid(grey if grey.sum() >= FEWEST_VOXELS else inside & solid) > 0
    return masks


def _fitted_values(anatomy: Anatomy) -> npt.NDArray[np.float64]:
    masks = region_masks(anatomy)
    wanted = np.array([region.mean for region in REGIONS.values()])
    values = wanted * 1.3
    grey = grey_matter(anatomy, 0.0)
    for _ in range(12):
        parts = brain_uptake(anatomy, grey, left=values, right=values, white=WHITE_UPTAKE)
        image = anatomy.on_grid(parts[0] + parts[1]) + anatomy.scalp
        seen = ndimage.gaussian_filter(image, TABLE_FWHM_MM / FWHM_PER_SIGMA / GRID_MM)
        found = np.array([seen[mask].mean() for mask in masks.values()])
        values = np.clip(values * (wanted / found) ** 0.7, 0.2, 4.0)
    return values


def _coarse(name: Literal["gm", "wm"]) -> Array:
    volume = tissue_map(name)
    shape, affine = template_grid(GRID_MM)
    averaged = ndimage.uniform_filter(volume.data, size=round(GRID_MM), mode="constant")
    # Every third voxel of the 1 mm map, as the grids begin at whole mm.
    return resample(Volume(averaged, volume.affine), shape=shape, affine=affine)


def _deep_grey(position: Array, tissue: Array) -> Array:
    floor = np.zeros(position.shape[1], dtype=np.float32)
    for name, share in DEEP_GREY.items():
        nucleus = np.clip(1.6 * share / (1 + squared_distance(position, REGIONS[name]) ** 4), 0, share)
        np.maximum(floor, nucleus * tissue, out=floor)
    return floor


def _ventricles(tissue: Array) -> Array:
    deep = near(_grid_positions(), [Region((10, -12, 12), (24, 46, 24), 0)]).reshape(tissue.shape)
    empty = np.clip(1 - tissue, 0, 1) * (deep > MOSTLY)
    blurred = ndimage.gaussian_filter(empty, 10 / FWHM_PER_SIGMA / GRID_MM)
    return np.asarray(np.clip(2 * blurred, 0, 1), dtype=np.float32)


def _scalp(brain: Mask) -> Array:
    hull = ndimage.binary_closing(np.pad(brain, 8), iterations=6)[8:-8, 8:-8, 8:-8]
    outside = ndimage.distance_transform_edt(~hull) * GRID_MM
    layer = np.clip((SCALP_MM[1] - outside) / 4, 0, 1) * np.clip((outside - SCALP_MM[0]) / 3, 0, 1)
    position = _grid_positions()
    soft = [Region((0, 42, -62), (56, 42, 44), 0), Region((0, -35, -95), (58, 52, 50), 0)]
    inside = [squared_distance(position, part).reshape(brain.shape) for part in soft]
    below = np.clip((1 - np.minimum(*inside)) * 6, 0, 1) * np.clip((outside - SCALP_MM[0]) / 3, 0, 1)
    return np.asarray(SCALP_UPTAKE * np.maximum(layer, 0.8 * below), dtype=np.float32)


def _grid_positions() -> Array:
    """Return the MNI mm of all voxels, (3, ijk)."""
    axes = [axis.astype(np.float32) for axis in grid_axes(GRID_MM)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
