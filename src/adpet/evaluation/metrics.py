"""Metrics, calibration, ROC and precision-recall curves."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.errors import InputError, LeakageError
from adpet.evaluation import bootstrap
from adpet.evaluation.aggregation import (
    NEGATIVE,
    POSITIVE,
    SMALLEST_PROBABILITY,
    Pooling,
    subject_probabilities,
)
from adpet.evaluation.bootstrap import BoolArray, FloatArray, MetricName

Interval = dict[Literal["value", "low", "high"], float]

DEFAULT_RESAMPLES = 2_000
# Used if no validation set can choose a better one.
DEFAULT_THRESHOLD = 0.5


def classification_metrics(
    truth: BoolArray, probability: FloatArray, *, threshold: float | FloatArray, bins: int | None = None
) -> dict[MetricName, float]:
    """Score probabilities of AD with scikit-learn, and their calibration.

    Parameters
    ----------
    truth : (n,) bool ndarray
        True for AD; both classes must occur.
    probability, threshold : (n,) float64 ndarray
        A probability at or above its threshold, which may be one number, is predicted AD.
    bins : int, optional
        Of the calibration error; by default as many as n subjects can fill.
    """
    from sklearn import metrics as sk

    require_both_classes(truth)
    predicted = probability >= threshold
    sensitivity, specificity = (sk.recall_score(truth, predicted, pos_label=label) for label in (True, False))
    return {
        "auc": float(sk.roc_auc_score(truth, probability)),
        "average_precision": float(sk.average_precision_score(truth, probability)),
        "accuracy": float(sk.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, predicted)),
        "sensitivity": float(sensitivity),
        "specificity": float(specificity),
        "brier": float(sk.brier_score_loss(truth, probability)),
        "log_loss": float(
            sk.log_loss(truth, probability.clip(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
        ),
        "calibration_error": calibration_error(
            truth, probability, bins=bootstrap.bins_for(truth.size) if bins is None else bins
        ),
    }


def require_both_classes(truth: BoolArray) -> None:
    """Refuse scores of one diagnosis alone."""
    if truth.all() or not truth.any():
        raise InputError(
            f"metrics need subjects with AD and with CN; received {truth.size} scores of one class: "
            "choose another split or a larger test set"
        )


def choose_threshold(subjects: pd.DataFrame) -> float:
    """Return the threshold with the largest Youden index.

    Sensitivity + specificity - 1 (Youden 1950, Cancer 3:32-35); to be chosen on validation subjects, never on
    the reported ones. It is midway between two neighbouring scores; of ties the one nearest to 0.5; 0.5 if no
    threshold beats chance.
    """
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    probability = subjects["probability"].to_numpy(np.float64)
    n_ad, n_cn = int(truth.sum()), int((~truth).sum())
    scores = np.unique(probability)
    if scores.size <= 1 or n_ad == 0 or n_cn == 0:
        return DEFAULT_THRESHOLD
    middles = (scores[1:] + scores[:-1]) / 2
    hits = n_ad - np.searchsorted(np.sort(probability[truth]), middles)
    false_alarms = n_cn - np.searchsorted(np.sort(probability[~truth]), middles)
    # Youden's index times n_ad n_cn: whole numbers, so that equals are equal.
    index = hits * n_cn - false_alarms * n_ad
    if index.max() <= 0:
        return DEFAULT_THRESHOLD
    best = middles[index == index.max()]
    return float(best[np.argmin(np.abs(best - DEFAULT_THRESHOLD))])


def even_threshold(subjects: pd.DataFrame) -> float | None:
    """Return the share of AD: calibrated evidence is even there.

    None without both diagnoses. `subjects` has one or more rows a subject.
    """
    share = (
        float((subjects.groupby("subject")["diagnosis"].first() == POSITIVE).mean()) if len(subjects) else 0.0
    )
    return share if 0 < share < 1 else None


def level_intervals(
    truth: BoolArray,
    codes: npt.NDArray[np.intp],
    probability: FloatArray,
    *,
    threshold: float | FloatArray,
    counts: FloatArray,
) -> dict[MetricName, Interval]:
    """Every metric with its 95 % interval; arguments as `subject_sums`."""
    sums = bootstrap.subject_sums(truth, codes, probability, threshold=threshold)
    values = bootstrap.metric_values(sums) | classification_metrics(
        truth[codes], probability, threshold=threshold, bins=bootstrap.bins_for(truth.size)
    )
    intervals = bootstrap.metric_intervals(sums, counts)
    # Rounding differs in the last digit, and an interval must hold its value.
    return {
        name: {"value": value, "low": min(intervals[name][0], value), "high": max(intervals[name][1], value)}
        for name, value in values.items()
    }


def bootstrap_intervals(
    predictions: pd.DataFrame,
    *,
    pooling: Pooling,
    threshold: float,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
) -> dict[Literal["subject", "slice"], dict[MetricName, Interval]]:
    """Return all metrics with intervals, per subject and slice.

    Cluster bootstrap: subjects are drawn within each diagnosis with all their scans and slices. Slices of one
    subject are near copies; drawn singly they would make intervals several times too narrow. Both levels use
    the same resamples and threshold.
    """
    subjects = subject_probabilities(predictions, pooling)
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    codes = pd.Index(subjects["subject"]).get_indexer(pd.Index(predictions["subject"]))
    of_subject = subjects["probability"].to_numpy(np.float64)
    of_slice = predictions["probability"].to_numpy(np.float64)
    require_both_classes(truth)
    counts = bootstrap.subject_resamples(truth, resamples=resamples, seed=seed)
    options: dict[str, Any] = {"threshold": threshold, "counts": counts}
    return {
        "subject": level_intervals(truth, np.arange(truth.size), of_subject, **options),
        "slice": level_intervals(truth, codes, of_slice, **options),
    }


def evaluation(
    predictions: pd.DataFrame,
    validation_predictions: pd.DataFrame,
    *,
    pooling: Pooling,
    threshold: float | None = None,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    allow_shared_subjects: bool = False,
) -> dict[str, Any]:
    """Return a test set's metrics, threshold and counts.

    Parameters
    ----------
    validation_predictions : DataFrame
        Of the subjects that `pooling` and threshold follow from; a tested one is a LeakageError, unless
        `allow_shared_subjects`, for the slice split of 2019.
    threshold : float, optional
        By default that of `choose_threshold`, or 0.5 without validation subjects.
    """
    if threshold is None and not validation_predictions.empty:
        threshold = choose_threshold(subject_probabilities(validation_predictions, pooling))
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold
    subjects = subject_probabilities(predictions, pooling)
    shared = sorted(set(subjects["subject"]) & set(validation_predictions["subject"]))
    if shared and not allow_shared_subjects:
        raise LeakageError(
            f"the threshold must be chosen on other subjects than those it is tested on; {len(shared)} are "
            f"in both tables, the first is {shared[0]}: run the split again"
        )
    levels = bootstrap_intervals(
        predictions, pooling=pooling, threshold=threshold, seed=seed, resamples=resamples
    )
    return {
        "subject": {**levels["subject"], "confusion": confusion(subjects, threshold)},
        "slice": {**levels["slice"], "confusion": confusion(predictions, threshold)},
        "threshold": threshold,
        "counts": {
            "subjects": len(subjects),
            "subjects_ad": int((subjects["diagnosis"] == POSITIVE).sum()),
            "subjects_cn": int((subjects["diagnosis"] == NEGATIVE).sum()),
            "scans": int(predictions["scan"].nunique()),
            "slices": len(predictions),
            "validation_subjects": int(validation_predictions["subject"].nunique()),
        },
    }


def oracle_auc(
    subjects: pd.DataFrame, severity: FloatArray, *, seed: int, resamples: int = DEFAULT_RESAMPLES
) -> Interval:
    """Return the AUC of the true severity, (subjects,)."""
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    sums = bootstrap.subject_sums(truth, np.arange(truth.size), severity, threshold=DEFAULT_THRESHOLD)
    low, high = bootstrap.metric_intervals(
        sums, bootstrap.subject_resamples(truth, resamples=resamples, seed=seed)
    )["auc"]
    return {"value": bootstrap.metric_values(sums)["auc"], "low": low, "high": high}


def confusion(table: pd.DataFrame, threshold: float) -> dict[str, int]:
    """Return the confusion matrix's counts; AD is positive."""
    from sklearn.metrics import confusion_matrix

    calls = table["diagnosis"] == POSITIVE, table["probability"] >= threshold
    names = ("true_positive", "false_negative", "false_positive", "true_negative")
    return dict(zip(names, confusion_matrix(*calls, labels=[True, False]).ravel().tolist(), strict=True))


def calibration_error(truth: BoolArray, probability: FloatArray, *, bins: int) -> float:
    """Return the expected calibration error in bins of equal mass.

    Naeini 2015, AAAI: the mean distance of a bin's mean probability from its share of AD. It is biased
    upwards for few subjects, even if probabilities are perfectly calibrated.
    """
    codes = bootstrap.equal_mass_bins(probability, bins=bins)
    gaps = np.bincount(codes, weights=probability - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


# Points of a curve, however many slices it has.
CURVE_POINTS = 500


def roc_curves(subjects: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Return the ROC curves per subject and per slice."""
    from sklearn.metrics import roc_curve

    def curve(table: pd.DataFrame) -> pd.DataFrame:
        rate, sensitivity, _ = roc_curve(table["diagnosis"] == POSITIVE, table["probability"])
        return pd.DataFrame({"false_positive_rate": rate, "sensitivity": sensitivity})

    return _by_level(curve, subjects, slices)


def precision_recall_curves(subjects: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Return precision-recall curves per subject and per slice.

    Drawn in steps, each precision holding from the recall before it, the area is the average precision.
    """
    from sklearn.metrics import precision_recall_curve

    def curve(table: pd.DataFrame) -> pd.DataFrame:
        precision, recall, _ = precision_recall_curve(table["diagnosis"] == POSITIVE, table["probability"])
        points = pd.DataFrame({"recall": recall, "precision": precision})
        # The first of equal recalls counts; scikit-learn's point at recall 0 is artificial.
        points = points[points["recall"] > 0].groupby("recall", sort=True)["precision"].max().reset_index()
        start = pd.DataFrame({"recall": [0.0], "precision": points["precision"].head(1)})
        return pd.concat([start, points], ignore_index=True)

    return _by_level(curve, subjects, slices)


def calibration_points(subjects: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Return the reliability diagrams per subject and per slice.

    A row a `level` and bin of equal mass: `n`, mean `probability`, `observed` share of AD, exact 95 %
    interval `low` and `high`, empty for slices, which are not independent.
    """
    bins = bootstrap.bins_for(len(subjects))

    def points(table: pd.DataFrame) -> pd.DataFrame:
        truth = table["diagnosis"].to_numpy() == POSITIVE
        probability = table["probability"].to_numpy(np.float64)
        codes: npt.NDArray[np.intp] = bootstrap.equal_mass_bins(probability, bins=bins)
        rows = []
        for code in np.unique(codes):
            here = codes == code
            n, observed = int(here.sum()), float(truth[here].mean())
            interval = bootstrap.exact_interval(observed, n=n) if table is subjects else (np.nan, np.nan)
            rows.append((n, float(probability[here].mean()), observed, *interval))
        return pd.DataFrame(rows, columns=["n", "probability", "observed", "low", "high"])

    return _by_level(points, subjects, slices)


def calibration_bins(subjects: pd.DataFrame) -> dict[str, Any]:
    """Return the calibration of subjects in bins of equal mass.

    `subjects` has a row each: `probability` and `diagnosis`. A bin has its ends `low` and `high`, `subjects`,
    `ad_share` and the ends of its exact 95 % interval; `prevalence` is the share of AD among all.
    """
    probability = subjects["probability"].to_numpy(np.float64)
    truth = (subjects["diagnosis"] == "AD").to_numpy()
    count = bootstrap.bins_for(len(subjects))
    codes = bootstrap.equal_mass_bins(probability, bins=count)
    used = np.unique(codes)
    last = [probability[codes == code].max() for code in used[:-1]]
    first = [probability[codes == code].min() for code in used[1:]]
    edges = [0.0, *((a + b) / 2 for a, b in zip(last, first, strict=True)), 1.0]
    bins = []
    for code, low, high in zip(used, edges[:-1], edges[1:], strict=True):
        here = truth[codes == code]
        share = float(here.mean())
        least, most = bootstrap.exact_interval(share, n=here.size)
        facts = {"low": low, "high": high, "ad_share": share, "ad_share_low": least, "ad_share_high": most}
        bins.append({"subjects": int(here.size), **{key: round(float(one), 6) for key, one in facts.items()}})
    return {"bins": bins, "prevalence": round(float(truth.mean()), 6)}


def roc_band(subjects: pd.DataFrame, *, seed: int, resamples: int = DEFAULT_RESAMPLES) -> pd.DataFrame:
    """Return the pointwise bootstrap band of the ROC curve.

    The 95 % band is vertical: sensitivities of subjects at a fixed false positive rate.
    """
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    counts = bootstrap.subject_resamples(truth, resamples=resamples, seed=seed)
    scores = subjects["probability"].to_numpy(np.float64)
    falling = np.argsort(-scores, kind="stable")
    scores, truth, counts = scores[falling], truth[falling], counts[:, falling]
    # Equal scores make one point of the curve.
    last = np.flatnonzero(np.diff(scores, append=-1.0))
    sensitivity = np.cumsum(counts * truth, axis=1)[:, last] / truth.sum()
    rate = np.cumsum(counts * ~truth, axis=1)[:, last] / (~truth).sum()
    grid = np.linspace(0, 1, 101)
    curves = [
        np.interp(grid, np.append(0.0, x), np.append(0.0, y)) for x, y in zip(rate, sensitivity, strict=True)
    ]
    limits = np.array([bootstrap.percentile_interval(column) for column in np.array(curves).T])
    return pd.DataFrame({"false_positive_rate": grid, "low": limits[:, 0], "high": limits[:, 1]})


def _by_level(
    curve: Callable[[pd.DataFrame], pd.DataFrame], subjects: pd.DataFrame, slices: pd.DataFrame
) -> pd.DataFrame:
    """Return at most `CURVE_POINTS` points a `level`, both ends included."""
    parts = []
    for level, table in (("subject", subjects), ("slice", slices)):
        points = curve(table)
        kept = np.linspace(0, len(points) - 1, min(len(points), CURVE_POINTS)).round().astype(np.intp)
        points.insert(0, "level", level)
        parts.append(points.iloc[np.unique(kept)])
    return pd.concat(parts, ignore_index=True)
