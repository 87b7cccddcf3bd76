"""Affine registration to a template by Gauss-Newton on the correlation.

Rigid first, then affine, over a pyramid of blurred and subsampled grids. Matrices map template RAS+ mm to
scan RAS+ mm. The constants are part of every exported model, by name.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import MAX_VOXELS, Affine, Array, Volume

Vectors: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Level:
    """Pyramid level: subsampling and blur, in voxels.

    Of the subsampled points one in `every` is compared, in C order.
    """

    step: int
    blur: float
    every: int = 1


# Gauss-Newton ends where a step moves the points by less than this, root mean square, or after this many.
SHORTEST_STEP_MM = 0.01
MOST_STEPS = 40
# Damping (Levenberg-Marquardt): of the first step, factors after a step that gains or loses, and its range.
DAMPING, EASED, TIGHTENED = 1e-2, 0.25, 4.0
DAMPING_RANGE = (1e-6, 1e6)
# Share of the points that must lie in the field of view; less overlap says nothing.
FEWEST_SEEN = 0.3

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
# Share of a voxel that must come from inside the field of view for the voxel to count.
WHOLLY_SEEN = 0.99
# Share of the brain and its margin that a scan must show, well inside its field of view.
MIN_SEEN = 0.3
# Images are compared after this blur, in voxels: noise says nothing about alignment.
SIMILARITY_SIGMA = 1.0
# Below this similarity the registration is tried again on the images themselves. Right alignments of a real
# mean image reach 0.53 to 0.65; scalps taken for brains, in simulated heads, 0.43 to 0.50.
CONVINCING = 0.5
# A head that would have to be stretched more than this is not one, or the registration ran away.
STRETCH = (0.6, 1.6)


@dataclass(frozen=True, eq=False)
class Alignment:
    """Transform from template to scan, and their similarity.

    `matrix` leads from template RAS+ mm to scan RAS+ mm; `similarity` is the correlation inside the brain.
    """

    matrix: Affine
    similarity: float


@dataclass(frozen=True, eq=False)
class Samples:
    """Template values, (n,), at `points_mm`, (n, 3) in template mm."""

    points_mm: Vectors
    values: Vectors


def register(moving: Volume, template: Volume, mask: Mask) -> Alignment:
    """Register a scan to the template, rigidly, then affinely.

    The scan may have any affine and unit; `mask` is the brain on the template's grid. The same input gives
    the same bits. InputError if they do not overlap, or no plausible alignment is found.
    """
    scan, coverage = _prepare(moving, float(voxel_sizes(template.affine).min()))
    start, _ = _best_guess(scan, template, mask)
    around = _dilate(mask, template.affine, MARGIN_MM)
    # By edges first: a dim lobe does not pull. Where the scalp is bright, its edge can be taken for the
    # brain's; the intensities themselves then tell the two apart.
    attempts = ((_divide_by_local_mean(scan), _template_edges(template)), (scan, template))
    found: list[Alignment] = []
    for images in attempts:
        try:
            matrix = _rigid_then_affine(*images, coverage, around, start)
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


def fitting_turn(moving: Volume, template: Volume, mask: Mask) -> tuple[Rotation, Volume]:
    """Turn the scan by quarter turns to fit best."""

    def turned(volume: Volume, turn: Rotation) -> Volume:
        matrix = np.eye(4)
        matrix[:3, :3] = turn.as_matrix().round()
        return Volume(volume.data, matrix @ volume.affine)

    scan, _ = _prepare(moving, GUESS_SPACING_MM)
    turns = list(Rotation.create_group("O"))
    best = max(turns, key=lambda turn: _best_guess(turned(scan, turn), template, mask)[1])
    return best, turned(moving, best)


def resample(volume: Volume, *, shape: Sequence[int], affine: Affine, matrix: Affine = IDENTITY) -> Array:
    """Resample a volume linearly on another grid, 0 outside.

    `matrix` leads from the grid's world mm to the volume's world mm.
    """
    indices = np.linalg.inv(volume.affine) @ matrix @ affine
    # Rounded so that a grid that coincides with the volume's own is not thrown off its edge by the last bits.
    indices = np.round(indices, 9)
    sampled = ndimage.affine_transform(
        volume.data, indices[:3, :3], indices[:3, 3], output_shape=tuple(shape), output=np.float32, order=1
    )
    return np.asarray(sampled)


def similarity(data: Array, template: Array, mask: Mask) -> float:
    """Return the Pearson correlation of two images in a mask.

    Both are blurred by one voxel, which keeps a noisy scan from being taken for a badly aligned one.
    """
    a, b = (_blur(image, SIMILARITY_SIGMA)[mask].astype(np.float64) for image in (data, template))
    a, b = a - a.mean(), b - b.mean()
    # Sums, not dot products: those of BLAS change in the last digits with the number of threads.
    scale = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / scale if scale > 0 else 0.0


def brain_points(mask: Mask, affine: Affine) -> Vectors:
    """Return the world mm, (n, 3), of a mask's voxels."""
    return np.asarray(apply_affine(affine, np.argwhere(mask)), dtype=np.float64)


def rms_displacement(a: Affine, b: Affine, points_mm: Vectors) -> float:
    """Return the RMS distance, mm, of points under two matrices."""
    apart = points_mm @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.sqrt(np.sum(apart**2) / len(apart)))


def maximize_correlation(
    scan: Volume, view: Mask, samples: Samples, start: Affine, *, affine: bool
) -> Affine:
    """Maximize the correlation by damped Gauss-Newton steps from `start`.

    Parameters
    ----------
    scan : Volume
        Smooth enough that its gradient means something at the distance still to go.
    view : (i, j, k) bool ndarray
        Which of the scan's voxels count.
    affine : bool
        12 unknowns; without it the transform stays rigid, 6 unknowns.
    """
    centre = samples.points_mm.mean(axis=0)
    matrix, damping = start, DAMPING
    current = _linearize(scan, view, samples, matrix, centre, affine=affine)
    if current is None:
        index = apply_affine(np.linalg.inv(scan.affine) @ matrix, samples.points_mm)
        raise InputError(
            f"{_in_view(view, index).mean():.0%} of the brain lies in the scanner's view, {FEWEST_SEEN:.0%} "
            "must, with uptake that is not the same everywhere: look at the scan"
        )
    for _ in range(MOST_STEPS):
        candidate = _apply_step(matrix, centre, _gauss_newton_step(current, damping))
        there = _linearize(scan, view, samples, candidate, centre, affine=affine)
        length_mm = rms_displacement(matrix, candidate, samples.points_mm)
        if there is not None and there.correlation > current.correlation:
            matrix, current = candidate, there
            damping = max(damping * EASED, DAMPING_RANGE[0])
        else:
            damping *= TIGHTENED
        if length_mm < SHORTEST_STEP_MM or damping > DAMPING_RANGE[1]:
            break
    return matrix


def interpolate_with_gradient(data: Array, index: Vectors) -> tuple[Vectors, Vectors]:
    """Interpolate a volume linearly; return values and gradient by voxel.

    `index`, (n, 3), is at least 0 and below the last voxel of each axis.
    """
    low = np.floor(index).astype(np.intp)
    (u, v, w) = (index - low).T
    rows, columns = data.shape[1:]
    first = (low[:, 0] * rows + low[:, 1]) * columns + low[:, 2]
    flat = data.ravel()

    def corner(i: int, j: int, k: int) -> Vectors:
        return np.asarray(flat[first + (i * rows + j) * columns + k], dtype=np.float64)

    # Along the last axis first, each with its derivative.
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
    gradient = np.stack([far - near, near_v + u * (far_v - near_v), near_w + u * (far_w - near_w)], axis=1)
    return near + u * (far - near), gradient


@dataclass(frozen=True, eq=False)
class _Linearization:
    """Correlation, its residuals, (m,), and their Jacobian, (m, p)."""

    correlation: float
    residuals: Vectors
    jacobian: Vectors


def _linearize(
    scan: Volume, view: Mask, samples: Samples, matrix: Affine, centre: Vectors, *, affine: bool
) -> _Linearization | None:
    """Linearize the correlation; None without overlap or contrast."""
    index = apply_affine(np.linalg.inv(scan.affine) @ matrix, samples.points_mm)
    inside = _in_view(view, index)
    if inside.sum() < FEWEST_SEEN * len(inside):
        return None
    values, gradient = interpolate_with_gradient(scan.data, index[inside])
    gradient = gradient @ np.linalg.inv(scan.affine[:3, :3])  # per mm of the scan's world
    about = samples.points_mm[inside] - centre
    if affine:
        linear = (gradient[:, :, None] * about[:, None, :]).reshape(-1, 9)
    else:
        linear = np.cross(about @ matrix[:3, :3].T, gradient)
    jacobian = np.concatenate([linear, gradient], axis=1)
    wanted = samples.values[inside] - samples.values[inside].mean()
    values = values - values.mean()
    length, other = np.sqrt(np.sum(values**2)), np.sqrt(np.sum(wanted**2))
    if not (length > 0 and other > 0):
        return None
    values, wanted = values / length, wanted / other
    jacobian -= jacobian.mean(axis=0)
    jacobian = (jacobian - values[:, None] * np.einsum("n,np->p", values, jacobian)) / length
    return _Linearization(float(np.sum(values * wanted)), wanted - values, jacobian)


def _gauss_newton_step(at: _Linearization, damping: float) -> Vectors:
    """Return the damped step: rotation or 9 entries, then shift."""
    # `einsum`, not BLAS, whose last digits change with the number of threads.
    normal = np.einsum("np,nq->pq", at.jacobian, at.jacobian)
    towards = np.einsum("np,n->p", at.jacobian, at.residuals)
    scale = np.diag(normal)
    damped = normal + np.diag(damping * scale + 1e-12 * scale.max())
    return np.asarray(np.linalg.solve(damped, towards))


def _apply_step(matrix: Affine, centre: Vectors, step: Vectors) -> Affine:
    """Apply a step about the centre."""
    linear = matrix[:3, :3]
    if len(step) == 6:
        linear = Rotation.from_rotvec(step[:3]).as_matrix() @ linear
    else:
        linear = linear + step[:9].reshape(3, 3)
    moved = np.eye(4)
    moved[:3, :3] = linear
    moved[:3, 3] = matrix[:3, :3] @ centre + matrix[:3, 3] + step[-3:] - linear @ centre
    return moved


def _in_view(view: Mask, index: Vectors) -> Mask:
    """True for points between voxel centres, nearest to `view`."""
    last = np.array(view.shape) - 1
    within = ((index >= 0) & (index < last)).all(axis=1)
    nearest = np.floor(np.clip(index, 0, last) + 0.5).astype(np.intp)
    return np.asarray(within & view[tuple(nearest.T)])


def _rigid_then_affine(
    scan: Volume, template: Volume, coverage: Volume, around: Mask, start: Affine
) -> Affine:
    """Register rigidly and then affinely, from `start`."""
    pyramid = {level: Volume(_blur(scan.data, level.blur), scan.affine) for level in LEVELS}
    view = coverage.data > WHOLLY_SEEN
    rigid = _over_pyramid(pyramid, view, template, around, start, affine=False)
    well_inside = _well_inside_view(coverage, template, around, rigid)
    matrix = _over_pyramid(pyramid, view, template, well_inside, rigid, affine=True)
    stretch = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    if not STRETCH[0] <= stretch.min() <= stretch.max() <= STRETCH[1]:
        raise InputError(
            f"the head would have to be {stretch.min():.2f} to {stretch.max():.2f} times the standard's "
            f"size, {STRETCH[0]:g} to {STRETCH[1]:g} are allowed: look at the scan"
        )
    return matrix


def _over_pyramid(
    pyramid: dict[Level, Volume], view: Mask, template: Volume, around: Mask, matrix: Affine, *, affine: bool
) -> Affine:
    """Maximize the correlation level by level, from coarse to fine."""
    for level in AFFINE_LEVELS if affine else RIGID_LEVELS:
        coarse = (slice(None, None, level.step),) * 3
        indices = np.argwhere(around[coarse])[:: level.every] * level.step
        values = _template_blurred(template, level.blur)[tuple(indices.T)]
        samples = Samples(apply_affine(template.affine, indices), values.astype(np.float64))
        matrix = maximize_correlation(pyramid[level], view, samples, matrix, affine=affine)
    return matrix


def _well_inside_view(coverage: Volume, template: Volume, around: Mask, matrix: Affine) -> Mask:
    """Return the part of `around` well inside the view.

    Voxels at the view's edge would drop out when stretched over it, and what drops out cannot disagree: the
    affine step would stretch a head whose vertex was cut off until all that disagrees had left the view.
    """
    shape, affine = template.data.shape, template.affine
    inside = resample(coverage, shape=shape, affine=affine, matrix=matrix) > WHOLLY_SEEN
    steps = max(1, round(MARGIN_MM / affine[0, 0]))
    well_inside = around & ndimage.binary_erosion(inside, iterations=steps, border_value=1)
    share = float(well_inside.sum() / around.sum())
    if share < MIN_SEEN:
        raise InputError(
            f"{share:.0%} of the brain lies in the scanner's view, {MIN_SEEN:.0%} must: look at the scan"
        )
    return np.asarray(well_inside)


def _prepare(moving: Volume, spacing: float) -> tuple[Volume, Volume]:
    """Blur the scan on an axis-aligned grid; return its coverage."""
    blurred = _blur(np.clip(moving.data, 0, None), BLUR_FWHM_MM / FWHM_PER_SIGMA / voxel_sizes(moving.affine))
    if not blurred.max() > np.finfo(np.float32).tiny:
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


def _best_guess(scan: Volume, template: Volume, mask: Mask) -> tuple[Affine, float]:
    """Return the best coarse guess, and its correlation."""
    step = max(1, round(GUESS_SPACING_MM / template.affine[0, 0]))
    coarse = (slice(None, None, step),) * 3
    around = _dilate(mask, template.affine, 2 * MARGIN_MM)[coarse]
    values = ndimage.uniform_filter(template.data, step)[coarse][around]
    points = brain_points(around, template.affine @ np.diag([step, step, step, 1.0]))
    image = ndimage.uniform_filter(scan.data, max(1, round(GUESS_SPACING_MM / voxel_sizes(scan.affine)[0])))
    to_index = np.linalg.inv(scan.affine)

    def correlation(matrix: Affine) -> float:
        where = apply_affine(to_index @ matrix, points).T
        found = ndimage.map_coordinates(image, where, order=1, output=np.float64)
        scale = float(found.std() * values.std())
        if not scale > 0:
            return -1.0
        return float(np.mean((found - found.mean()) * (values - values.mean()))) / scale

    best = max(_guesses(_centre_of_mass(template), _centre_of_mass(scan)), key=correlation)
    return best, correlation(best)


def _guesses(centre: Vectors, target: Vectors) -> Iterator[Affine]:
    """Yield rigid matrices that bring `centre` near `target`."""
    for degrees in itertools.product(GUESS_DEGREES, repeat=3):
        for shift in GUESS_SHIFTS_MM:
            matrix = np.eye(4)
            matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
            matrix[:3, 3] = target + np.array([0, 0, shift]) - matrix[:3, :3] @ centre
            yield matrix


def _centre_of_mass(volume: Volume) -> Vectors:
    """Return the centre of bright voxels, world mm."""
    bright = np.where(volume.data > 0.3 * np.percentile(volume.data, 99), volume.data, 0)
    return np.asarray(apply_affine(volume.affine, ndimage.center_of_mass(bright)))


def _blur(data: Array, sigma: float | npt.NDArray[np.float64]) -> Array:
    return np.asarray(ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=2.5))


def _divide_by_local_mean(volume: Volume) -> Volume:
    """Divide an axis-aligned volume by its local mean, except air."""
    local = _blur(volume.data, LOCAL_SIGMA_MM / voxel_sizes(volume.affine))
    return Volume(volume.data / (local + np.float32(AIR) * local.max()), volume.affine)


# Scan after scan is registered to one template.
_template_edges = lru_cache(maxsize=1)(_divide_by_local_mean)
_template_blurred = lru_cache(maxsize=8)(lambda template, sigma: _blur(template.data, sigma))


def _dilate(mask: Mask, affine: Affine, margin_mm: float) -> Mask:
    iterations = max(1, round(margin_mm / affine[0, 0]))
    return np.asarray(ndimage.binary_dilation(mask, iterations=iterations), dtype=bool)
