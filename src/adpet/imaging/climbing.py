"""Turn, shift and stretch one image until it correlates best with another: damped Gauss-Newton steps.

Two images scaled to mean 0 and length 1 differ by twice (1 - their correlation) in squares, so that least
squares of the difference are the highest correlation (Evangelidis and Psarakis 2008,
doi:10.1109/TPAMI.2008.113); the damping is Marquardt's (1963, doi:10.1137/0111030). All of it is a few sums
over some thousand points, so that the browser does the same, in `web/src/imaging/climbing.ts`.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.volume import Affine, Array, Volume

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
