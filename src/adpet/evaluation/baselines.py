"""Baselines: classical models on the same subjects and metrics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from adpet.errors import InputError, LeakageError
from adpet.imaging.atlas import BUILT_IN, DESIKAN_KILLIANY, Atlas, load_atlas, regional_means
from adpet.imaging.template import brain_mask, reference_mask

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from adpet.evaluation.adjustment import Adjustment

BoolArray = npt.NDArray[np.bool_]
FeatureArray = npt.NDArray[np.float32]

# A block of voxels is kept if at least this share of it is brain.
MIN_BRAIN_IN_BLOCK = 0.5
# Inverse of the ridge penalty for feature vectors of mean squared length 1. On 168 simulated subjects with
# 7,000 voxels, AUC on 300 others at 10 / 1,000 / 10,000: 0.983 / 0.983 / 0.983 with a strong deficit, 0.904 /
# 0.916 / 0.914 with a weak one. At 10 a large global scale may hide the rest: 0.75 against 0.96 at 1,000.
INVERSE_PENALTY = 1_000.0
# The same for a few dozen standardised, correlated regional means.
REGION_INVERSE_PENALTY = 0.1
# Regions of the Desikan-Killiany atlas for the five of the FDG meta-ROI (Landau et al. 2011, Neurobiol Aging
# 32:1207-1218), which weigh the same: two angular gyri, posterior cingulate, two inferior temporal gyri.
META_ROI = {"inferiorparietal": 2, "isthmuscingulate": 1, "inferiortemporal": 2}
# Columns of the scans table that may separate the groups without an image.
FACTS: dict[str, tuple[str, ...]] = {"age_sex": ("age", "sex"), "scanner": ("scanner",), "site": ("site",)}
NUMERIC_FACTS = ("age",)
# Folds of training subjects for out-of-fold predictions.
OUT_OF_FOLD = 5
# Edge of the cubes, in mm, that the voxel baseline averages over.
BLOCK_MM = 9.0


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Fitted baseline of images.

    The log-odds of AD are linear in its features. `median` stands for those that a scan does not show; a
    probability at or above `threshold` is AD.
    """

    median: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    intercept: float
    threshold: float

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "LinearModel":
        """Return what `document` described."""
        arrays = {name: np.array(document[name], np.float64) for name in ("median", "weights")}
        return cls(**arrays, intercept=document["intercept"], threshold=document["threshold"])

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            name: _rounded(value) if isinstance(value, float) else [_rounded(number) for number in value]
            for name, value in vars(self).items()
        }

    def probability(self, features: FeatureArray) -> npt.NDArray[np.float64]:
        """Return the probability of AD, (scans,), from (scans, features)."""
        shown = np.where(np.isnan(features), self.median, features)
        return np.asarray(expit(shown @ self.weights + self.intercept), dtype=np.float64)


def linear_model(fitted: "Pipeline", training: FeatureArray, *, threshold: float) -> LinearModel:
    """Return a fitted pipeline as a linear model.

    `training`, (scans, features), are what it was fitted on.
    """
    hidden = np.isnan(training).all(axis=0)
    median = np.nanmedian(np.where(hidden, 0, training), axis=0).astype(np.float64)
    # An affine function is known by its values at the origin and at one point along each axis.
    at_origin, *at_axes = fitted.decision_function(np.vstack([0 * median, np.eye(median.size)]))
    return LinearModel(median, np.array(at_axes) - at_origin, float(at_origin), threshold)


def image_features(volume: npt.NDArray[np.float32], grid_mm: float) -> dict[str, FeatureArray]:
    """Return a normalized scan's features, (features,), by baseline."""
    atlas = load_atlas(DESIKAN_KILLIANY, grid_mm)
    pons = Atlas(reference_mask("pons", grid_mm).astype(np.int16), {1: "pons"})
    anatomical = region_means(volume, atlas)
    block = max(1, round(BLOCK_MM / grid_mm))
    return {
        "atlas": anatomical,
        "meta_roi": meta_roi(anatomical[None], atlas, region_means(volume, pons)[None])[0],
        "regions": region_means(volume, load_atlas(BUILT_IN, grid_mm)),
        "voxels": voxel_features([volume], brain_mask(grid_mm), block=block)[0],
    }


def voxel_features(
    volumes: Iterable[npt.NDArray[np.float32]], mask: BoolArray, *, block: int
) -> FeatureArray:
    """Average volumes over cubic blocks of brain voxels.

    One volume is in memory at a time. At 2 mm with `block` 3 a scan has about 8,500 features (34 kB);
    scanners resolve 4 to 7 mm, so little is lost.

    Parameters
    ----------
    volumes : iterable of (i, j, k) float32 ndarray
        SUVR, on the grid of `mask`, the brain.
    block : int
        Edge of a block in voxels.

    Returns
    -------
    (scans, blocks) float32 ndarray
        Mean over the brain voxels of each block that is at least half brain.
    """
    inside = _block_sums(mask.astype(np.float32), block)
    kept = inside >= MIN_BRAIN_IN_BLOCK * block**3
    if not kept.any():
        raise InputError(
            f"a brain mask must fill blocks of {block} voxels; this one fills none: use smaller blocks"
        )
    rows = []
    for number, volume in enumerate(volumes):
        if volume.shape != mask.shape:
            raise InputError(
                f"volumes must have the mask's shape {mask.shape}; volume {number} has {volume.shape}: "
                "run normalize again"
            )
        rows.append(_block_sums(np.where(mask, volume, 0), block)[kept] / inside[kept])
    if not rows:
        raise InputError("a baseline needs at least one volume, received none: run normalize again")
    return np.asarray(rows, dtype=np.float32)


def region_means(volume: npt.NDArray[np.float32], atlas: Atlas) -> FeatureArray:
    """Return mean SUVR by region, in the atlas's order.

    A region that lies outside the field of view is NaN.
    """
    return regional_means(volume, atlas.labels, list(atlas.names)).astype(np.float32)


def meta_roi(regions: FeatureArray, atlas: Atlas, pons: FeatureArray) -> FeatureArray:
    """Return the FDG meta-ROI over pons, (scans, 1).

    `regions`, (scans, regions), and `pons`, (scans, 1), are mean SUVR; `atlas` is the Desikan-Killiany atlas.
    """
    names = list(atlas.names.values())
    chosen = regions[:, [names.index(name) for name in META_ROI]]
    means = np.average(chosen, axis=1, weights=list(META_ROI.values()), keepdims=True)
    return np.asarray(means / pons, dtype=np.float32)


def region_model(adjustment: "Adjustment | None" = None) -> "Pipeline":
    """Return the unfitted logistic regression on regional means.

    A region outside of the field of view becomes the training scans' median. With an adjustment, it takes
    that one's table.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        *([adjustment] if adjustment else []),
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=REGION_INVERSE_PENALTY, class_weight="balanced", max_iter=1_000),
    )


def voxel_model() -> "Pipeline":
    """Return the unfitted ridge logistic regression on principal components.

    With many more voxels than subjects a linear model lies in the span of the training subjects: keeping
    every component loses nothing and makes the fit small. It is deterministic, and classes weigh the same.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(
        StandardScaler(),
        # After it the penalty means the same for any number of features.
        FunctionTransformer(lambda features: features / np.sqrt(features.shape[1])),
        PCA(svd_solver="full"),
        LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1_000),
    )


def fact_model(facts: Sequence[str]) -> "Pipeline":
    """Return the unfitted logistic regression on scans-table columns.

    Missing may be informative: a missing age becomes the median plus an indicator, a missing word a category.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name in facts if name in NUMERIC_FACTS]
    words = [name for name in facts if name not in NUMERIC_FACTS]
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(imputer, StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore"), words),
        ),
        LogisticRegression(class_weight="balanced", max_iter=1_000),
    )


def is_known(scans: pd.DataFrame, facts: Sequence[str]) -> bool:
    """True if any scan has one of the values."""
    return any((scans[name].notna() & (scans[name] != "")).any() for name in facts)


def baseline_predictions(
    features: npt.NDArray[np.floating] | pd.DataFrame,
    scans: pd.DataFrame,
    *,
    training: BoolArray,
    model: "Pipeline",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fit a baseline on training scans and predict the others.

    Parameters
    ----------
    features : (scans, features) ndarray or DataFrame
    scans : DataFrame
        A row for each row of `features`: `scan`, `subject`, `session`, `diagnosis`, `part`.
    training : (scans,) bool ndarray
        Rows to fit on; a subject on both sides is a LeakageError.
    model : Pipeline
        Is fitted to the training scans.

    Returns
    -------
    test, out_of_fold : DataFrame
        Predictions with one row a scan (`index` 0); those of training scans choose the baseline's threshold.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    fitted, tested = scans[training], scans[~training]
    shared = sorted(set(fitted["subject"]) & set(tested["subject"]))
    if shared:
        raise LeakageError(
            f"a baseline must be tested on other subjects than it was fitted on; {len(shared)} are on both "
            f"sides, the first is {shared[0]}: run the split again"
        )
    labels = (fitted["diagnosis"] == "AD").to_numpy()
    # Where a diagnosis has fewer than five subjects, as many folds as it has.
    smallest = int(fitted.groupby("diagnosis", observed=True)["subject"].nunique().min())
    held_out = cross_val_predict(
        model,
        features[training],
        labels,
        groups=fitted["subject"].to_numpy(),
        cv=StratifiedGroupKFold(max(2, min(OUT_OF_FOLD, smallest))),
        method="predict_proba",
    )[:, 1]
    probability = model.fit(features[training], labels).predict_proba(features[~training])[:, 1]
    return _as_predictions(tested, probability), _as_predictions(fitted, held_out)


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def _block_sums(volume: npt.NDArray[np.float32], block: int) -> npt.NDArray[np.float32]:
    """Sum over cubic blocks, zero-padded at the far ends."""
    padded = np.pad(volume, [(0, -size % block) for size in volume.shape])
    i, j, k = (size // block for size in padded.shape)
    return np.asarray(padded.reshape(i, block, j, block, k, block).sum(axis=(1, 3, 5)), dtype=np.float32)


def _as_predictions(scans: pd.DataFrame, probability: npt.NDArray[np.floating]) -> pd.DataFrame:
    columns = ["scan", "subject", "session", "diagnosis", "part"]
    table = scans[columns].reset_index(drop=True).assign(probability=probability)
    table.insert(1, "index", 0)
    return table
