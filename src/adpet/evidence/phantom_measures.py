"""What is measured of a phantom scan: regions in the person's own anatomy, and what the pipeline makes of it.

Regions are carried into the scan by the simulation itself, as an expert's drawing or a nonlinear registration
would: the published figures were taken so. Everything else is measured after the pipeline's standardization.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.cohort.phantom import PhantomRecipe, Row, simulate_scan
from adpet.cohort.uptake import Anatomy, region_masks
from adpet.evidence.baselines import voxel_features
from adpet.imaging.standard import Standard, standardize
from adpet.imaging.template import reference_mask
from adpet.imaging.volume import to_ras

# Noise is what a blur of one voxel takes away.
NOISE_SIGMA_VOXELS = 1.0
# Voxels are averaged in blocks of this edge before a linear model reads them: 6 mm, as scanners resolve.
BLOCK_VOXELS = 2


@dataclass(frozen=True, eq=False)
class ScanMeasures:
    """One scan, measured.

    Attributes
    ----------
    left, right : dict of str to float
        Mean of each region of `adpet.cohort.uptake.REGIONS`, Bq/mL.
    brain : float
        Mean of the whole brain, Bq/mL.
    volume : (i, j, k) float16 ndarray
        The standard volume: ratio to the brain's mean on the MNI grid.
    blocks : (n,) float32 ndarray
        The same, averaged over blocks of the brain.
    pose : (12,) float64 ndarray
        The alignment that was found: the first three rows of its matrix.
    noise : float
        Relative standard deviation of what is finer than a voxel's blur, in the cerebellum.
    """

    left: dict[str, float]
    right: dict[str, float]
    brain: float
    volume: npt.NDArray[np.float16]
    blocks: npt.NDArray[np.float32]
    pose: npt.NDArray[np.float64]
    noise: float


def measure_scan(row: Row, recipe: PhantomRecipe, *, anatomy: Anatomy, standard: Standard) -> ScanMeasures:
    """Simulate the scan of one row of `draw_cohort`, standardize and measure it; about 1.5 s.

    Raises
    ------
    InputError
        Where the scan cannot be aligned.
    """
    scan = simulate_scan(row, recipe, anatomy)
    data = scan.volume.data if scan.volume.data.ndim == 3 else scan.volume.data.mean(axis=-1)
    left, right, brain = region_means(data, scan.points, anatomy)
    found, alignment = standardize(to_ras(data, scan.volume.affine), standard)
    blocks = voxel_features([found.data], standard.brain, block=BLOCK_VOXELS)[0]
    return ScanMeasures(
        left=left,
        right=right,
        brain=brain,
        volume=found.data.astype(np.float16),
        blocks=blocks,
        pose=alignment.matrix[:3].ravel(),
        noise=_noise(found.data, reference_mask("cerebellum", float(found.affine[0, 0]))),
    )


def region_means(
    data: npt.NDArray[np.float32], points: npt.NDArray[np.float32], anatomy: Anatomy
) -> tuple[dict[str, float], dict[str, float], float]:
    """Take each region's mean in a person's own anatomy.

    Parameters
    ----------
    data : (i, j, k) float32 ndarray
        A scan.
    points : (3, i, j, k) float32 ndarray
        Where each voxel comes from, as `simulate_scan` gives it.
    anatomy : Anatomy

    Returns
    -------
    left, right : dict of str to float
        By region of `adpet.cohort.uptake.REGIONS`, in the scan's unit.
    brain : float
        Mean of all its tissue.
    """
    i, j, k = np.round(points).astype(np.intp)
    shape = anatomy.tissue.shape
    inside = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1]) & (k >= 0) & (k < shape[2])
    voxels, i, j, k = data[inside], i[inside], j[inside], k[inside]
    middle = (shape[0] - 1) // 2
    left, right = {}, {}
    for name, mask in region_masks(anatomy).items():
        members = mask[i, j, k]
        values, side = voxels[members], i[members] - middle
        left[name], right[name] = float(values[side < 0].mean()), float(values[side > 0].mean())
    return left, right, float(voxels[anatomy.tissue[i, j, k]].mean())


def _noise(data: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> float:
    fine = data - ndimage.gaussian_filter(data, NOISE_SIGMA_VOXELS)
    return float(fine[mask].std() / data[mask].mean())
