"""Subject of the simulated cohort: physiology, ageing, Alzheimer's disease.

Uptake is relative to the pons of the average healthy brain, on the anatomy's 3 mm MNI grid, before blur.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.imaging.nifti import Array
from adpet.imaging.registration import FWHM_PER_SIGMA
from adpet.simulation.anatomy import (
    BRAIN_STEM,
    GRID_MM,
    NOT_CORTEX,
    REGIONS,
    WHITE_UPTAKE,
    Anatomy,
    Region,
    Vector,
    brain_uptake,
    grey_matter,
    load_anatomy,
    near,
)

# Centre (right side) and radii in MNI mm, and the share of grey uptake lost at severity 1, so that blurred
# means of a group look like Alzheimer's disease (PMC4539420: precuneus -19 %, posterior cingulate -21 %;
# sensorimotor and primary visual cortex, cerebellum, pons and basal ganglia spared).
LESIONS: dict[str, tuple[Vector, Vector, float]] = {
    "posterior cingulate": ((0, -45, 24), (11, 12, 13), 0.30),
    "precuneus": ((0, -60, 44), (15, 15, 16), 0.33),
    "angular": ((46, -61, 36), (14, 14, 15), 0.20),
    "inferior parietal": ((52, -42, 40), (13, 13, 14), 0.12),
    "middle temporal": ((58, -42, -3), (13, 24, 13), 0.14),
    "inferior temporal": ((52, -36, -22), (13, 24, 11), 0.13),
    "medial temporal": ((25, -21, -15), (11, 18, 10), 0.12),
    "temporal pole": ((40, 10, -32), (14, 14, 12), 0.08),
    "dorsolateral prefrontal": ((38, 33, 30), (15, 22, 18), 0.09),
    "medial prefrontal": ((0, 48, 30), (13, 18, 20), 0.06),
    "lateral occipital": ((38, -82, 4), (15, 14, 18), 0.04),
    "orbitofrontal": ((24, 36, -14), (18, 18, 9), 0.04),
    "thalamus": ((11, -18, 8), (9, 13, 9), 0.03),
    "anterior cingulate": ((5, 34, 16), (8, 14, 14), 0.02),
    "occipital": ((9, -84, 14), (11, 14, 18), 0.01),
    "insula": ((38, 4, 2), (7, 18, 14), 0.02),
}
# Centre (right side) and radii of old infarcts, within the territories of the three cerebral arteries.
INFARCTS: dict[str, tuple[Vector, Vector]] = {
    "ACA": ((8, 34, 36), (9, 24, 20)),
    "MCA": ((50, -8, 22), (16, 26, 22)),
    "PCA": ((16, -80, 2), (14, 20, 16)),
}
MOST_LOST = 0.6
LESION_SPREAD, LESION_SIDE_SD = 0.4, 0.25

# Standard deviations between people.
COMMON_SPREAD, REGIONAL_SPREAD, ASYMMETRY_SD = 0.06, 0.045, 0.0125
WHITE_SPREAD, SCALP_SPREAD = 0.06, 0.3
FIELD_SD, FIELD_FWHM_MM = 0.02, 30.0
WARP_SD_MM, WARP_FWHM_MM = 2.0, 40.0
THINNING_SD, SIZE_SD = 0.05, 0.05

# Loss a decade after the age that the table is for.
TABLE_AGE = 75.0
CORTEX_DECADE = 0.03
REGION_DECADE = {"anterior cingulate": 0.03, "medial frontal": 0.025, "dorsolateral prefrontal": 0.015}

# Thinning, in units of grey probability, that a severity of 1 adds in the medial temporal lobe. None is added
# elsewhere: it would take uptake from regions that the disease spares.
DISEASE_THINNING = 0.045
# Tissue around the ventricles that gives way: a decade, a severity of 1, between people.
VENTRICLE_DECADE, VENTRICLE_DISEASE, VENTRICLE_SD = 0.12, 0.15, 0.1

# Smooth fields are drawn on a lattice this coarse.
LATTICE_MM = 12.0


@dataclass(frozen=True, eq=False)
class Person:
    """Traits of a person that do not change between visits."""

    left: npt.NDArray[np.float64]  # (regions,): factors on the healthy uptake
    right: npt.NDArray[np.float64]
    # (lesions,) or (lesions + infarcts,): share of grey uptake lost at severity 1
    lost_left: npt.NDArray[np.float64]
    lost_right: npt.NDArray[np.float64]
    field: Array  # (n,): smooth factor around 1 over the tissue
    warp_mm: Array  # (3, a, b, c): displacement on a 12 mm lattice that covers the anatomy's grid
    white: float = 1.0  # factors on the uptake of white matter and scalp
    scalp: float = 1.0
    thinning: float = 0.0  # cortical thinning, ventricular enlargement, deviation of head size from 1
    ventricles: float = 0.0
    size: float = 0.0
    medial_thinning: float = 1.0  # factor on `DISEASE_THINNING`
    most_lost: float = MOST_LOST


def draw_person(rng: np.random.Generator, anatomy: Anatomy) -> Person:
    """Draw a person, the same for the same generator."""
    regional = np.exp(REGIONAL_SPREAD * rng.standard_normal(len(REGIONS)))
    stem = np.isin(list(REGIONS), BRAIN_STEM)
    common = np.exp(COMMON_SPREAD * rng.standard_normal())
    regional *= np.where(stem, 1.0, common)
    asymmetry = ASYMMETRY_SD * rng.standard_normal(len(REGIONS))
    lost = np.array([lesion[2] for lesion in LESIONS.values()])
    lost *= np.exp(LESION_SPREAD * rng.standard_normal(len(LESIONS)))
    side = LESION_SIDE_SD * rng.standard_normal(len(LESIONS))
    white, scalp, thinning, ventricles, size = rng.standard_normal(5)
    shape = anatomy.tissue.shape
    field = on_lattice(smooth_lattice(rng, shape, FIELD_FWHM_MM), anatomy.tissue.shape)[anatomy.tissue]
    warp = np.stack([smooth_lattice(rng, shape, WARP_FWHM_MM) for _ in range(3)])
    return Person(
        left=regional * (1 + asymmetry),
        right=regional * (1 - asymmetry),
        lost_left=np.clip(lost * (1 + side), 0, None),
        lost_right=np.clip(lost * (1 - side), 0, None),
        white=float(common * np.exp(WHITE_SPREAD * white)),
        scalp=float(np.exp(SCALP_SPREAD * scalp)),
        field=np.exp(np.float32(FIELD_SD) * field),
        thinning=float(THINNING_SD * thinning),
        ventricles=float(VENTRICLE_SD * ventricles),
        size=float(SIZE_SD * size),
        warp_mm=np.float32(WARP_SD_MM) * warp,
    )


def average_person(anatomy: Anatomy) -> Person:
    """Return the average of the people of `draw_person`."""
    regions, lesions = np.ones(len(REGIONS)), np.array([lesion[2] for lesion in LESIONS.values()])
    return Person(
        left=regions,
        right=regions,
        lost_left=lesions,
        lost_right=lesions,
        field=np.ones_like(anatomy.right),
        warp_mm=np.zeros((3, 2, 2, 2), dtype=np.float32),
    )


def person_uptake(person: Person, anatomy: Anatomy, *, age: float, severity: float) -> tuple[Array, Array]:
    """Return a person's uptake and the same at severity 0."""
    decades = (age - TABLE_AGE) / 10
    ageing = _ageing(decades)
    opened = person.ventricles + VENTRICLE_DECADE * decades + VENTRICLE_DISEASE * severity
    tissue = person.field * np.clip(1 - np.float32(opened) * anatomy.ventricles, 0, 1.1)
    values = {"left": anatomy.values * person.left * ageing, "right": anatomy.values * person.right * ageing}

    def uptake(thinning: float | Array, spared: float | Array) -> Array:
        grey = grey_matter(anatomy, thinning)
        parts = brain_uptake(anatomy, grey, **values, white=WHITE_UPTAKE * person.white)
        brain = (parts[0] * spared + parts[1]) * tissue
        return np.asarray(anatomy.on_grid(brain) + np.float32(person.scalp) * anatomy.scalp)

    healthy = uptake(person.thinning, 1.0)
    if severity == 0:
        return healthy, healthy
    shapes = _lesion_shapes()
    medial = shapes[list(LESIONS).index("medial temporal")]
    thinning = severity * DISEASE_THINNING * person.medial_thinning * medial
    return uptake(person.thinning + thinning, _spared(person, anatomy, severity)), healthy


def smooth_lattice(rng: np.random.Generator, shape: tuple[int, ...], fwhm_mm: float) -> Array:
    """Draw a smooth field of unit variance on a lattice."""
    step = LATTICE_MM / GRID_MM
    lattice = [int(np.ceil((size - 1) / step)) + 2 for size in shape]
    return unit_noise(rng, lattice, [fwhm_mm / LATTICE_MM] * 3)


def unit_noise(rng: np.random.Generator, shape: list[int], fwhm_voxels: list[float]) -> Array:
    """Draw noise of unit variance, correlated over `fwhm_voxels`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis, fwhm in enumerate(fwhm_voxels):
        sigma = fwhm / FWHM_PER_SIGMA
        peak = np.zeros(2 * int(4 * sigma + 1) + 1)
        peak[len(peak) // 2] = 1
        # White noise through a kernel keeps the sum of the kernel's squares of its variance.
        kept = np.sqrt((ndimage.gaussian_filter1d(peak, sigma, mode="constant") ** 2).sum())
        noise = ndimage.gaussian_filter1d(noise, sigma, axis=axis, mode="wrap") / np.float32(kept)
    return np.asarray(noise, dtype=np.float32)


def on_lattice(lattice: Array, shape: tuple[int, ...], step: npt.ArrayLike = LATTICE_MM / GRID_MM) -> Array:
    """Interpolate a lattice linearly at every voxel of `shape`."""
    for axis, (size, length) in enumerate(zip(shape, np.broadcast_to(step, 3), strict=True)):
        last = lattice.shape[axis] - 1
        at = np.minimum(np.arange(size) / length, last)
        below = np.minimum(at.astype(np.intp), last - 1)
        share = (at - below).astype(np.float32).reshape([-1 if axis == other else 1 for other in range(3)])
        low, high = lattice.take(below, axis), lattice.take(below + 1, axis)
        lattice = low + share * (high - low)
    return lattice


def _ageing(decades: float) -> npt.NDArray[np.float64]:
    cortex = np.array([0.0 if name in NOT_CORTEX else CORTEX_DECADE for name in REGIONS])
    extra = np.array([REGION_DECADE.get(name, 0.0) for name in REGIONS])
    return (1 - cortex * decades) * (1 - extra * decades)


def _spared(person: Person, anatomy: Anatomy, severity: float) -> Array:
    spared = []
    for lost in (person.lost_left, person.lost_right):
        share = np.ones_like(anatomy.right)
        for amount, shape in zip(
            np.minimum(severity * lost, person.most_lost), _lesion_shapes(), strict=False
        ):
            share *= 1 - np.float32(amount) * shape
        spared.append(np.maximum(share, np.float32(1 - person.most_lost)))
    return np.asarray(spared[0] + (spared[1] - spared[0]) * anatomy.right)


@cache
def _lesion_shapes() -> Array:
    position = load_anatomy().position
    places = [*((centre, radii) for centre, radii, _ in LESIONS.values()), *INFARCTS.values()]
    return np.stack([near(position, [Region(centre, radii, 0)]) for centre, radii in places])
