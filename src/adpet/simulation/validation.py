"""Validate the simulated cohort against published figures and real data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from adpet.evaluation.baselines import voxel_features
from adpet.imaging.nifti import Array, to_ras
from adpet.imaging.normalization import Standard, normalize
from adpet.imaging.registration import FWHM_PER_SIGMA, Mask
from adpet.imaging.template import reference_mask
from adpet.simulation.anatomy import NORMATIVE, REGIONS, Anatomy, region_masks
from adpet.simulation.cohort import Row, SimulationRecipe, simulate_scan

# Noise is what a blur of one voxel takes away.
NOISE_SIGMA_VOXELS = 1.0
# Voxels are averaged in blocks of this edge before a linear model reads them: 6 mm, as scanners resolve.
BLOCK_VOXELS = 2

LIKENESS = 0.90
MEANS_WITHIN = 0.05
# Published: 8 to 9 %, and about 3 %; wider here by what a hundred people leave open.
META_SPREAD_PONS, META_SPREAD_BRAIN = (0.07, 0.10), (0.02, 0.04)
ASYMMETRY = (0.02, 0.04)
# SD of the regions among controls, by the source of `NORMATIVE`, and the limits of the median ratio to it.
NORMATIVE_SD = dict(
    zip(
        (name for name in NORMATIVE if name != "pons"),
        (.17, .14 , .13, .14, .14, .13, .13, .14, .13, .11, .12, .11, .10, .11, .09, .08, .08, .13, .13, .07),
        strict=True,
    )
)  # fmt: skip
SD_RATIO = (0.75, 1.25)
# Change of a group's mean against the cerebellum, and how far from it the simulated cohort's may be.
LOST_IN_AD = {"precuneus": -0.19, "posterior cingulate": -0.21}
SPARED_IN_AD = ("postcentral", "pericalcarine", "pons", "putamen", "caudate")
CHANGE_WITHIN = 0.04
SVM_AUC, META_AUC = (0.93, 0.97), (0.90, 0.96)
# A useless score has a larger AUC in one of 200 cohorts. Smaller ones say nothing: the scores of left-out
# people lean to the other side where there is nothing to learn.
CHANCE_QUANTILE = 2.576

# Posterior cingulate, lateral parietal and lateral temporal cortex: the regions that AD takes most from.
META_REGION = ("posterior cingulate", "lateral parietal", "lateral temporal")
FOLDS = 10
# The real image is a mean of many: the simulated cohort's mean is blurred by as much as makes it most alike.
LIKENESS_FWHM_MM = tuple(np.arange(0.0, 16.5, 0.5).tolist())


@dataclass(frozen=True, eq=False)
class ScanMeasures:
    """Measurements of one scan."""

    left: dict[str, float]  # mean of each of `REGIONS` and of the whole brain, Bq/mL
    right: dict[str, float]
    brain: float
    volume: npt.NDArray[np.float16]  # (i, j, k): SUVR against the whole brain, on the MNI grid
    blocks: npt.NDArray[np.float32]  # (n,): the same, averaged over blocks of the brain
    pose: npt.NDArray[np.float64]  # (12,): the first three rows of the registration's matrix
    noise: float  # relative SD in the cerebellum after a high-pass of a voxel


Basis: TypeAlias = Literal["fitted", "design", "held out"]


@dataclass(frozen=True)
class Target:
    """Required and measured figure; `met` is None if not measured.

    `basis` says whether the simulator was set by this figure, or is so by design (matched groups), or whether
    nothing was set by it.
    """

    name: str
    required: str
    measured: str
    met: bool | None
    basis: Basis = "fitted"


def measure_scan(row: Row, recipe: SimulationRecipe, *, anatomy: Anatomy, standard: Standard) -> ScanMeasures:
    """Simulate, normalize and measure a scan; about 1.5 s."""
    scan = simulate_scan(row, recipe, anatomy)
    data = scan.volume.data if scan.volume.data.ndim == 3 else scan.volume.data.mean(axis=-1)
    left, right, brain = region_means(data, scan.points, anatomy)
    found, alignment = normalize(to_ras(data, scan.volume.affine), standard)
    blocks = voxel_features([found.data], standard.brain, block=BLOCK_VOXELS)[0]
    fine = found.data - ndimage.gaussian_filter(found.data, NOISE_SIGMA_VOXELS)
    cerebellum = reference_mask("cerebellum", float(found.affine[0, 0]))
    return ScanMeasures(
        left=left,
        right=right,
        brain=brain,
        volume=found.data.astype(np.float16),
        blocks=blocks,
        pose=alignment.matrix[:3].ravel(),
        noise=float(fine[cerebellum].std() / found.data[cerebellum].mean()),
    )


def region_means(
    data: npt.NDArray[np.float32], points: npt.NDArray[np.float32], anatomy: Anatomy
) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the means of left regions, right ones, the brain."""
    i, j, k = np.round(points).astype(np.intp)
    shape = anatomy.tissue.shape
    inside = (i >= 0) & (i < shape[0]) & (j >= 0) & (j < shape[1]) & (k >= 0) & (k < shape[2])
    voxels, i, j, k = data[inside], i[inside], j[inside], k[inside]
    middle = (shape[0] - 1) // 2
    left, right = {}, {}

    def mean(found: npt.NDArray[np.float32]) -> float:
        # A short field of view may show nothing of a region.
        return float(found.mean()) if found.size else float("nan")

    for name, mask in region_masks(anatomy).items():
        members = mask[i, j, k]
        values, side = voxels[members], i[members] - middle
        left[name], right[name] = mean(values[side < 0]), mean(values[side > 0])
    return left, right, float(voxels[anatomy.tissue[i, j, k]].mean())


def regional_targets(cohort: pd.DataFrame, measures: Sequence[ScanMeasures]) -> list[Target]:
    """Judge means, spread, asymmetry and loss by region."""
    from sklearn.metrics import roc_auc_score

    regions = pd.DataFrame(
        [{name: (scan.left[name] + scan.right[name]) / 2 for name in REGIONS} for scan in measures]
    )
    patients = (cohort["diagnosis"] == "AD").to_numpy()
    to_pons = regions.div(regions["pons"], axis=0)[~patients]
    error = {name: float(to_pons[name].mean() / region.mean - 1) for name, region in NORMATIVE.items()}
    worst = max(error, key=lambda name: abs(error[name]))
    meta = regions[list(META_REGION)].mean(axis="columns")
    brain = pd.Series([scan.brain for scan in measures])
    return [
        Target(
            f"means of {len(NORMATIVE)} regions in CN against the table, pons = 1",
            f"within {MEANS_WITHIN:.0%}",
            f"worst {error[worst]:+.1%} ({worst})",
            abs(error[worst]) <= MEANS_WITHIN,
        ),
        _between(
            "spread of the meta-region in CN, relative to the pons",
            _spread(meta / regions["pons"], ~patients),
            META_SPREAD_PONS,
        ),
        _between(
            "spread of the meta-region in CN, relative to the brain",
            _spread(meta / brain, ~patients),
            META_SPREAD_BRAIN,
        ),
        _between(
            "left-right asymmetry in CN, SD, median of the regions",
            _asymmetry(measures, ~patients),
            ASYMMETRY,
        ),
        *_losses(regions.div(regions["cerebellar cortex"], axis=0), patients),
        _between(
            "AUC of the meta-region, relative to the cerebellum",
            float(roc_auc_score(patients, -(meta / regions["cerebellar cortex"]))),
            META_AUC,
            percent=False,
            basis="held out",
        ),
        _between(
            f"spread of {len(NORMATIVE_SD)} regions in CN, pons = 1, over the published SD, median",
            float((to_pons.std() / pd.Series(NORMATIVE_SD)).median()),
            SD_RATIO,
            percent=False,
            basis="held out",
        ),
    ]


def likeness(mean: Array, real: Array, brain: Mask, *, grid_mm: float) -> tuple[float, float]:
    """Return the best correlation of two means, and its blur."""
    sigmas = {fwhm_mm: fwhm_mm / FWHM_PER_SIGMA / grid_mm for fwhm_mm in LIKENESS_FWHM_MM}
    blurred = {fwhm_mm: ndimage.gaussian_filter(mean, sigma)[brain] for fwhm_mm, sigma in sigmas.items()}
    return max((float(np.corrcoef(found, real[brain])[0, 1]), fwhm_mm) for fwhm_mm, found in blurred.items())


def likeness_target(correlation: float, fwhm_mm: float) -> Target:
    """Judge `likeness`."""
    return Target(
        "voxel correlation with the real mean image, in the brain",
        f">= {LIKENESS:.2f}",
        f"{correlation:.3f} (blurred by {fwhm_mm:g} mm)",
        correlation >= LIKENESS,
    )


def separability_target(cohort: pd.DataFrame, measures: Sequence[ScanMeasures]) -> Target:
    """Judge a linear SVM's separation of the groups."""
    name = f"AUC of a linear SVM on voxels, {len(cohort)} subjects"
    return _between(name, _svm_auc(cohort, measures), SVM_AUC, percent=False)


def null_target(cohort: pd.DataFrame, measures: Sequence[ScanMeasures]) -> Target:
    """Judge whether the SVM is at chance among healthy people."""
    return _at_chance("AUC of the SVM where both groups are healthy", _svm_auc(cohort, measures), cohort)


def nuisance_targets(cohort: pd.DataFrame, measures: Sequence[ScanMeasures]) -> list[Target]:
    """Judge the separation by factors other than the disease."""
    factors = {
        "scanner": pd.get_dummies(cohort["scanner"]).to_numpy(np.float64),
        "site": pd.get_dummies(cohort["site"]).to_numpy(np.float64),
        "age": cohort[["age"]].to_numpy(np.float64),
        "sex": (cohort[["sex"]] == "F").to_numpy(np.float64),
        "pose and size of the head": np.stack([scan.pose for scan in measures]),
        "noise": np.array([[scan.noise] for scan in measures]),
        "dose and calibration": np.log([[scan.left["pons"] + scan.right["pons"]] for scan in measures]),
    }
    return [
        _at_chance(f"AUC of {name} alone", _cross_validated(cohort, features, linear_svm=False), cohort)
        for name, features in factors.items()
    ]


def _svm_auc(cohort: pd.DataFrame, measures: Sequence[ScanMeasures]) -> float:
    return _cross_validated(cohort, np.stack([scan.blocks for scan in measures]), linear_svm=True)


def _cross_validated(cohort: pd.DataFrame, features: npt.NDArray[np.floating], *, linear_svm: bool) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    truth = (cohort["diagnosis"] == "AD").to_numpy()
    model = (
        SVC(kernel="linear", C=1.0) if linear_svm else make_pipeline(StandardScaler(), LogisticRegression())
    )
    score = cross_val_predict(
        model, features, truth, groups=cohort["pair"], cv=GroupKFold(FOLDS), method="decision_function"
    )
    return float(roc_auc_score(truth, score))


def _at_chance(name: str, area: float, cohort: pd.DataFrame) -> Target:
    ill = int((cohort["diagnosis"] == "AD").sum())
    well = len(cohort) - ill
    # Standard error of the Mann-Whitney statistic where nothing is to be found.
    highest = 0.5 + CHANCE_QUANTILE * float(np.sqrt((ill + well + 1) / (12 * ill * well)))
    return Target(name, f"chance: <= {highest:.2f}", f"{area:.3f}", area <= highest, "design")


def _between(
    name: str, value: float, bounds: tuple[float, float], *, percent: bool = True, basis: Basis = "fitted"
) -> Target:
    low, high = bounds
    if percent:
        return Target(name, f"{low:.0%} to {high:.0%}", f"{value:.1%}", low <= value <= high, basis)
    return Target(name, f"{low:.2f} to {high:.2f}", f"{value:.3f}", low <= value <= high, basis)


def _spread(values: "pd.Series[float]", members: Mask) -> float:
    return float(values[members].std() / values[members].mean())


def _asymmetry(measures: Sequence[ScanMeasures], members: Mask) -> float:
    left, right = (
        pd.DataFrame([getattr(scan, side) for scan in measures])[list(NORMATIVE)][members]
        for side in ("left", "right")
    )
    return float((2 * (left - right) / (left + right)).std().median())


def _losses(to_cerebellum: pd.DataFrame, patients: Mask) -> list[Target]:
    change = {
        name: float(to_cerebellum.loc[patients, name].mean() / to_cerebellum.loc[~patients, name].mean() - 1)
        for name in (*LOST_IN_AD, *SPARED_IN_AD)
    }
    worst = max(SPARED_IN_AD, key=lambda name: abs(change[name]))
    return [
        *(
            _between(f"{name} in AD against CN", change[name], (lost - CHANGE_WITHIN, lost + CHANGE_WITHIN))
            for name, lost in LOST_IN_AD.items()
        ),
        Target(
            f"{len(SPARED_IN_AD)} spared regions in AD against CN",
            f"within {CHANGE_WITHIN:.0%}",
            f"worst {change[worst]:+.1%} ({worst})",
            abs(change[worst]) <= CHANGE_WITHIN,
        ),
    ]
