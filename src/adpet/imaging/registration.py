"""Affine registration to a template by Gauss-Newton on the correlation.

Rigid first, then affine, over a pyramid of blurred and subsampled grids. Matrices map template RAS+ mm to
scan RAS+ mm.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import MAX_VOXELS, Affine, Array, Volume

Vectors: TypeAlias = npt.NDArray[np.float64]

# A climb ends where a step moves the points by less than this, root mean square, or after so many steps.
SHORTEST_STEP_MM = 0.01
MOST_STEPS = 40
# The damping of the first step, by how much it falls after a step up and grows after one down, and its ends.
DAMPING, EASED, TIGHTENED = 1e-2, 0.25, 4.0
DAMPING_RANGE = (1e-6, 1e6)
# Share of the points that must lie in the scanner's view; two images that hardly overlap say nothing.
FEWEST_SEEN = 0.3


@dataclass(frozen=True, eq=False)
class Target:
    """What a scan is compared with: `points_mm`, (n, 3) in standard world mm, and `values`, (n,), there."""

    points_mm: Vectors
    values: Vectors


@dataclass(frozen=True, eq=False)
class _Look:
    """How alike the images are at one place, and where it goes up: residuals, (m,), and slopes, (m, p)."""

    correlation: float
    residuals: Vectors
    slopes: Vectors


def climb(
    scan: Volume, seen: npt.NDArray[np.bool_], target: Target, start: Affine, *, stretches: bool
) -> Affine:
    """Return the matrix near `start` at which the scan correlates best with the target.

    Parameters
    ----------
    scan : Volume
        Smooth enough that its slopes mean something at the distance still to go.
    seen : (i, j, k) bool ndarray
        Which of the scan's voxels count.
    target : Target
    start : (4, 4) float64 ndarray
        Standard world mm -> the scan's world mm.
    stretches : bool
        Whether lengths and angles may change (12 unknowns), or the head only turns and shifts (6).

    Raises
    ------
    InputError
        Where hardly any of the target lies in the scan's view, or all is constant there.
    """
    centre = target.points_mm.mean(axis=0)
    matrix, damping = start, DAMPING
    here = _look(scan, seen, target, matrix, centre, stretches=stretches)
    if here is None:
        share = float(_inside(seen, _indices(scan, matrix, target.points_mm)).mean())
        raise InputError(
            f"{share:.0%} of the brain lies in the scanner's view, {FEWEST_SEEN:.0%} must, with uptake that "
            "is not the same everywhere: look at the scan"
        )
    for _ in range(MOST_STEPS):
        step = _step(here, damping)
        there = _moved(matrix, centre, step)
        look = _look(scan, seen, target, there, centre, stretches=stretches)
        length_mm = _distance_mm(matrix, there, target.points_mm)
        if look is not None and look.correlation > here.correlation:
            matrix, here = there, look
            damping = max(damping * EASED, DAMPING_RANGE[0])
        else:
            damping *= TIGHTENED
        if length_mm < SHORTEST_STEP_MM or damping > DAMPING_RANGE[1]:
            break
    return matrix


def _look(
    scan: Volume,
    seen: npt.NDArray[np.bool_],
    target: Target,
    matrix: Affine,
    centre: Vectors,
    *,
    stretches: bool,
) -> _Look | None:
    """Compare the images under a matrix; None where there is too little to compare."""
    index = _indices(scan, matrix, target.points_mm)
    inside = _inside(seen, index)
    if inside.sum() < FEWEST_SEEN * len(inside):
        return None
    values, slopes = sampled_with_slopes(scan.data, index[inside])
    slopes = slopes @ np.linalg.inv(scan.affine[:3, :3])  # per mm of the scan's world
    about = target.points_mm[inside] - centre
    if stretches:
        turning = (slopes[:, :, None] * about[:, None, :]).reshape(-1, 9)
    else:
        turning = np.cross(about @ matrix[:3, :3].T, slopes)
    changes = np.concatenate([turning, slopes], axis=1)
    wanted = target.values[inside] - target.values[inside].mean()
    values = values - values.mean()
    length, other = np.sqrt(np.sum(values**2)), np.sqrt(np.sum(wanted**2))
    if not (length > 0 and other > 0):
        return None
    values, wanted = values / length, wanted / other
    changes -= changes.mean(axis=0)
    changes = (changes - values[:, None] * np.einsum("n,np->p", values, changes)) / length
    return _Look(float(np.sum(values * wanted)), wanted - values, changes)


def _step(look: _Look, damping: float) -> Vectors:
    """Return the damped least squares step: turns and shifts, (6,), or entries of the matrix and shifts."""
    # `einsum`, not BLAS, whose last digits change with the number of threads.
    normal = np.einsum("np,nq->pq", look.slopes, look.slopes)
    towards = np.einsum("np,n->p", look.slopes, look.residuals)
    scale = np.diag(normal)
    damped = normal + np.diag(damping * scale + 1e-12 * scale.max())
    return np.asarray(np.linalg.solve(damped, towards))


def _moved(matrix: Affine, centre: Vectors, step: Vectors) -> Affine:
    """Apply a step about the centre."""
    turned = matrix[:3, :3]
    if len(step) == 6:
        turned = Rotation.from_rotvec(step[:3]).as_matrix() @ turned
    else:
        turned = turned + step[:9].reshape(3, 3)
    moved = np.eye(4)
    moved[:3, :3] = turned
    moved[:3, 3] = matrix[:3, :3] @ centre + matrix[:3, 3] + step[-3:] - turned @ centre
    return moved


def _distance_mm(a: Affine, b: Affine, points_mm: Vectors) -> float:
    """Return the root mean square distance between where two matrices put the points."""
    apart = points_mm @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.sqrt(np.sum(apart**2) / len(apart)))


def _indices(scan: Volume, matrix: Affine, points_mm: Vectors) -> Vectors:
    """Return where points in standard world mm lie in the scan, (n, 3), in voxel indices."""
    to_index = np.linalg.inv(scan.affine) @ matrix
    return points_mm @ to_index[:3, :3].T + to_index[:3, 3]


def _inside(seen: npt.NDArray[np.bool_], index: Vectors) -> npt.NDArray[np.bool_]:
    """Say which points, in voxel indices, lie between voxel centres and nearest to a voxel that counts."""
    last = np.array(seen.shape) - 1
    within = ((index >= 0) & (index < last)).all(axis=1)
    nearest = np.floor(np.clip(index, 0, last) + 0.5).astype(np.intp)
    return np.asarray(within & seen[tuple(nearest.T)])


def sampled_with_slopes(data: Array, index: Vectors) -> tuple[Vectors, Vectors]:
    """Sample a volume linearly, and tell its slopes.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
    index : (n, 3) float64 ndarray
        Voxel indices, at least 0 and below the last one of each axis.

    Returns
    -------
    values : (n,) float64 ndarray
    slopes : (n, 3) float64 ndarray
        Change of the value by voxel along each axis, exactly that of the linear interpolation.
    """
    low = np.floor(index).astype(np.intp)
    (u, v, w) = (index - low).T
    rows, columns = data.shape[1:]
    first = (low[:, 0] * rows + low[:, 1]) * columns + low[:, 2]
    flat = data.ravel()

    def corner(i: int, j: int, k: int) -> Vectors:
        return np.asarray(flat[first + (i * rows + j) * columns + k], dtype=np.float64)

    # Along the last axis first, each with its slope.
    edges = {}
    for i in (0, 1):
        for j in (0, 1):
            near, far = corner(i, j, 0), corner(i, j, 1)
            edges[i, j] = (near + w * (far - near), far - near)
    faces = []
    for i in (0, 1):
        (near, near_w), (far, far_w) = edges[i, 0], edges[i, 1]
        faces.append((near + v * (far - near), far - near, near_w + v * (far_w - near_w)))
    (near, near_v, near_w), (far, far_v, far_w) = faces
    slopes = np.stack([far - near, near_v + u * (far_v - near_v), near_w + u * (far_w - near_w)], axis=1)
    return near + u * (far - near), slopes


Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Level:
    """A resolution that images are compared at: every so many voxels of the grid, blurred by so many.

    `every` takes one in so many of these, in the order of the grid.
    """

    step: int
    blur: float
    every: int = 1


IDENTITY: Affine = np.eye(4)
IDENTITY.setflags(write=False)

# The scan is blurred by this much before registration: noise and fine detail that no template has go.
BLUR_FWHM_MM = 6.0
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
# Images are divided by their local mean before they are compared, so that only edges count: a dim cerebellum
# or a hypometabolic lobe would pull the scan out of place otherwise (by 2 mm and 0.4 mm on a made-up head).
# The blur that makes the local mean, and the share of its maximum below which uptake is taken for air.
LOCAL_SIGMA_MM = 12.0
AIR = 0.15
# The template is compared this far around the brain, so that the brain's outline counts.
MARGIN_MM = 12.0
# First guesses: rotations about the three axes, and the shift along the scanner's axis that a cut-off or
# a long neck puts into the centre of mass.
GUESS_DEGREES = (-24.0, 0.0, 24.0)
GUESS_SHIFTS_MM = (-36.0, -18.0, 0.0, 18.0, 36.0)
GUESS_SPACING_MM = 9.0
# The finest level has seventy thousand voxels around the brain on a 3 mm grid, for twelve unknowns.
LEVELS = (
    Level(step=4, blur=2.0),
    Level(step=2, blur=1.0, every=4),
    Level(step=1, blur=0.5, every=10),
)
# Rigid steps leave the finest level to the affine ones, which begin at the coarsest again.
RIGID_LEVELS, AFFINE_LEVELS = LEVELS[:2], LEVELS
# Share of a voxel that must come from inside the scanner's view for the voxel to count.
WHOLLY_SEEN = 0.99
# Share of the brain and its margin that a scan must show, well inside its view.
MIN_SEEN = 0.3
# Images are compared after this blur, in voxels: noise says nothing about alignment.
SIMILARITY_SIGMA = 1.0
# An alignment that is less alike than this is tried again by another view of the images. Right alignments of
# a real mean image reach 0.53 to 0.65; scalps taken for brains, in phantoms, 0.43 to 0.50.
CONVINCING = 0.5
# A head that would have to be stretched more than this is not one, or the registration ran away.
STRETCH = (0.6, 1.6)


@dataclass(frozen=True, eq=False)
class Alignment:
    """`matrix`, (4, 4) float64, maps standard world mm to the scan's world mm (RAS+).

    `similarity` is the correlation of scan and template inside the brain, from -1 to 1.
    """

    matrix: Affine
    similarity: float


def register(moving: Volume, template: Volume, mask: Mask) -> Alignment:
    """Register a scan to the template, rigidly and then affinely; the same input gives the same result.

    Parameters
    ----------
    moving : Volume
        The scan, with any affine and unit.
    template : Volume
        On the standard grid.
    mask : (i, j, k) bool ndarray
        The brain on the standard grid.

    Returns
    -------
    Alignment

    Raises
    ------
    InputError
        If scan and template do not overlap or no plausible alignment is found.
    """
    scan, seen = _prepared(moving, float(voxel_sizes(template.affine).min()))
    guess = _best_guess(scan, template, mask)
    around = _grown(mask, template.affine, MARGIN_MM)
    # By edges first: a dim lobe does not pull. Where the scalp is bright, its edge can be taken for the
    # brain's; the intensities themselves then tell the two apart.
    views = ((_evened(scan), _evened(template)), (scan, template))
    found: list[Alignment] = []
    for images in views:
        try:
            matrix = _registered(*images, seen, around, guess)
        except InputError as error:
            failure = error
            continue
        aligned = resample(moving, shape=template.data.shape, affine=template.affine, matrix=matrix)
        found.append(Alignment(matrix, similarity(aligned, template.data, mask)))
        if found[-1].similarity >= CONVINCING:
            break
    if not found:
        raise InputError(f"registration failed: {failure}") from failure
    return max(found, key=lambda alignment: alignment.similarity)


def resample(volume: Volume, *, shape: Sequence[int], affine: Affine, matrix: Affine = IDENTITY) -> Array:
    """Sample a volume linearly on another grid.

    Parameters
    ----------
    volume : Volume
    shape, affine : (int, int, int), (4, 4) float64 ndarray
        The grid; voxel indices -> RAS+ mm.
    matrix : (4, 4) float64 ndarray
        The grid's world mm -> the volume's world mm.

    Returns
    -------
    (i, j, k) float32 ndarray
        0 outside the volume.
    """
    indices = np.linalg.inv(volume.affine) @ matrix @ affine
    # Rounded so that a grid that coincides with the volume's own is not thrown off its edge by the last bits.
    indices = np.round(indices, 9)
    sampled = ndimage.affine_transform(
        volume.data, indices[:3, :3], indices[:3, 3], output_shape=tuple(shape), output=np.float32, order=1
    )
    return np.asarray(sampled)


def similarity(data: Array, template: Array, mask: Mask) -> float:
    """Return how alike two images of one grid are: Pearson correlation in a mask, after one voxel of blur.

    The blur keeps a noisy scan from being taken for a badly aligned one. 0 where an image is constant.
    """
    a, b = (_blurred(image, SIMILARITY_SIGMA)[mask].astype(np.float64) for image in (data, template))
    a, b = a - a.mean(), b - b.mean()
    # Sums, not dot products: those of BLAS change in the last digits with the number of threads.
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0 else 0.0


def brain_points(mask: Mask, affine: Affine) -> npt.NDArray[np.float64]:
    """Return the world coordinates in mm, (n, 3), of a mask's voxels."""
    return np.asarray(apply_affine(affine, np.argwhere(mask)), dtype=np.float64)


def rms_displacement(a: Affine, b: Affine, points_mm: npt.NDArray[np.float64]) -> float:
    """Root mean square distance in mm between where two (4, 4) matrices put (n, 3) points."""
    difference = apply_affine(a, points_mm) - apply_affine(b, points_mm)
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def _registered(scan: Volume, template: Volume, seen: Volume, around: Mask, guess: Affine) -> Affine:
    """Return the matrix that rigid and affine steps lead to from `guess`."""
    rigid = _optimised(scan, seen, template, around, guess, affine=False)
    near = _well_seen(seen, template, around, rigid)
    matrix = _optimised(scan, seen, template, near, rigid, affine=True)
    stretch = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if not STRETCH[0] <= stretch.min() <= stretch.max() <= STRETCH[1]:
        raise InputError(
            f"the head would have to be {stretch.min():.2f} to {stretch.max():.2f} times the standard's "
            f"size, {STRETCH[0]:g} to {STRETCH[1]:g} are allowed: look at the scan"
        )
    return matrix


def _prepared(moving: Volume, spacing: float) -> tuple[Volume, Volume]:
    """Return the scan, blurred, on an axis-aligned grid of `spacing` mm, and how much of a voxel was seen."""
    zooms = voxel_sizes(moving.affine)
    sigma = BLUR_FWHM_MM / FWHM_PER_SIGMA / zooms
    blurred = _blurred(np.clip(moving.data, 0, None), sigma)
    if not blurred.max() > 0:
        raise InputError("registration failed: the scan has no positive uptake: look at the scan")
    corners = apply_affine(
        moving.affine, list(itertools.product(*((-0.5, n - 0.5) for n in moving.data.shape)))
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing))
    if math.prod(shape) > MAX_VOXELS:
        sides = " x ".join(f"{n * spacing:g}" for n in shape)
        raise InputError(
            f"registration failed: the field of view is {sides} mm, far more than a head's: export the scan "
            "again"
        )
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low + spacing / 2
    data = resample(Volume(blurred, moving.affine), shape=shape, affine=affine)
    inside = resample(Volume(np.ones_like(blurred), moving.affine), shape=shape, affine=affine)
    return Volume(data, affine), Volume(inside, affine)


def _blurred(data: Array, sigma: float | npt.NDArray[np.float64]) -> Array:
    return np.asarray(ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=2.5))


def _evened(volume: Volume) -> Volume:
    """Divide an axis-aligned volume by its local mean, air apart."""
    local = _blurred(volume.data, LOCAL_SIGMA_MM / voxel_sizes(volume.affine))
    return Volume(volume.data / (local + np.float32(AIR) * local.max()), volume.affine)


def _best_guess(scan: Volume, template: Volume, mask: Mask) -> Affine:
    """Try rotations and shifts about the centres of mass on coarse points; return the most similar."""
    step = max(1, round(GUESS_SPACING_MM / template.affine[0, 0]))
    coarse = (slice(None, None, step),) * 3
    around = _grown(mask, template.affine, 2 * MARGIN_MM)[coarse]
    values = ndimage.uniform_filter(template.data, step)[coarse][around]
    points = brain_points(around, template.affine @ np.diag([step, step, step, 1.0]))
    image = ndimage.uniform_filter(scan.data, step)
    to_index = np.linalg.inv(scan.affine)

    def likeness(matrix: Affine) -> float:
        where = apply_affine(to_index @ matrix, points).T
        found = ndimage.map_coordinates(image, where, order=1, output=np.float64)
        scale = float(found.std() * values.std())
        if not scale > 0:
            return -1.0
        return float(np.mean((found - found.mean()) * (values - values.mean()))) / scale

    return max(_guesses(_centre_of_mass(template), _centre_of_mass(scan)), key=likeness)


def _guesses(centre: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> Iterator[Affine]:
    """Yield rigid matrices that bring `centre` near `target`."""
    for degrees in itertools.product(GUESS_DEGREES, repeat=3):
        for shift in GUESS_SHIFTS_MM:
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
            matrix[:3, 3] = target + np.array([0, 0, shift]) - matrix[:3, :3] @ centre
            yield matrix


def _well_seen(seen: Volume, template: Volume, around: Mask, matrix: Affine) -> Mask:
    """Return the part of `around` that lies inside the scanner's view, a margin apart.

    Voxels at the view's edge would drop out when stretched over it, and what drops out cannot disagree: the
    affine step would stretch a head whose vertex was cut off until all that disagrees had left the view.
    """
    inside = resample(seen, shape=template.data.shape, affine=template.affine, matrix=matrix) > WHOLLY_SEEN
    steps = max(1, round(MARGIN_MM / template.affine[0, 0]))
    well_seen = around & ndimage.binary_erosion(inside, iterations=steps, border_value=1)
    share = float(well_seen.sum() / around.sum())
    if share < MIN_SEEN:
        raise InputError(
            f"{share:.0%} of the brain lies in the scanner's view, {MIN_SEEN:.0%} must: look at the scan"
        )
    return np.asarray(well_seen)


def _optimised(
    scan: Volume, seen: Volume, template: Volume, around: Mask, start: Affine, *, affine: bool
) -> Affine:
    """Climb from `start` through the levels of resolution."""
    matrix = start
    counts = seen.data > WHOLLY_SEEN
    for level in AFFINE_LEVELS if affine else RIGID_LEVELS:
        target = _target(template, around, level)
        blurred = Volume(_blurred(scan.data, level.blur), scan.affine)
        matrix = climb(blurred, counts, target, matrix, stretches=affine)
    return matrix


def _target(template: Volume, around: Mask, level: Level) -> Target:
    """Return the points of a level, and the blurred template there."""
    coarse = (slice(None, None, level.step),) * 3
    indices = np.argwhere(around[coarse])[:: level.every] * level.step
    values = _blurred(template.data, level.blur)[tuple(indices.T)]
    return Target(apply_affine(template.affine, indices), values.astype(np.float64))


def _grown(mask: Mask, affine: Affine, margin_mm: float) -> Mask:
    grown = ndimage.binary_dilation(mask, iterations=max(1, round(margin_mm / affine[0, 0])))
    return np.asarray(grown, dtype=bool)


def _centre_of_mass(volume: Volume) -> npt.NDArray[np.float64]:
    """World coordinates, (3,), of the centre of what is bright."""
    bright = np.where(volume.data > 0.3 * np.percentile(volume.data, 99), volume.data, 0)
    return np.asarray(apply_affine(volume.affine, ndimage.center_of_mass(bright)))
