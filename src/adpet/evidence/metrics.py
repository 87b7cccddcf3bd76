"""Numbers of one classifier, per subject first and per slice second; AD is the positive class.

Every function takes a predictions table: one row a slice with `scan`, `index`, `subject`, `session`,
`diagnosis` ("AD" or "CN"), `part` and `probability` (of AD). A baseline has one row a scan.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.errors import InputError, LeakageError
from adpet.evidence.intervals import (
    BoolArray,
    FloatArray,
    MetricName,
    metric_intervals,
    subject_resamples,
    subject_sums,
)

Aggregation = Literal["mean_probability", "mean_logit"]
Interval = dict[Literal["value", "low", "high"], float]

POSITIVE, NEGATIVE = "AD", "CN"
PREDICTION_COLUMNS = ("scan", "index", "subject", "session", "diagnosis", "part", "probability")
DEFAULT_RESAMPLES = 2_000
# What a validation set that cannot tell the groups apart falls back to.
DEFAULT_THRESHOLD = 0.5
# Probabilities of 0 and 1 have no logit; float32 networks reach both.
SMALLEST_PROBABILITY = 1e-7


def subject_probabilities(predictions: pd.DataFrame, *, aggregation: Aggregation) -> pd.DataFrame:
    """Bring slices together into one probability a subject: over a scan's slices first, then over its scans.

    Parameters
    ----------
    predictions : DataFrame
    aggregation : {"mean_probability", "mean_logit"}
        What is averaged; a mean logit is turned back into a probability at the end.

    Returns
    -------
    DataFrame
        `subject`, `diagnosis`, `probability`, sorted by subject.

    Raises
    ------
    InputError
        The table is empty, lacks a column, holds what is no probability, or gives a subject two diagnoses.
    """
    _check(predictions)
    score = _score(predictions["probability"].to_numpy(np.float64), aggregation)
    keys = ["subject", "diagnosis", "scan"]
    scans = predictions[keys].assign(probability=score).groupby(keys, observed=True)["probability"].mean()
    subjects = scans.groupby(keys[:2], observed=True).mean().reset_index()
    subjects["probability"] = _probability(subjects["probability"].to_numpy(np.float64), aggregation)
    return subjects


def pooled_probability(probability: FloatArray, *, aggregation: Aggregation) -> float:
    """Bring the slices of one scan together, as `subject_probabilities` does.

    Parameters
    ----------
    probability : (slices,) float64 ndarray
        Of AD.
    aggregation : {"mean_probability", "mean_logit"}
    """
    mean = np.atleast_1d(_score(probability, aggregation).mean())
    return float(_probability(mean, aggregation)[0])


def classification_metrics(
    truth: BoolArray, probability: FloatArray, *, threshold: float
) -> dict[MetricName, float]:
    """Score probabilities of AD as scikit-learn does.

    Parameters
    ----------
    truth : (n,) bool ndarray
        True for AD; both classes must occur.
    probability : (n,) float64 ndarray
    threshold : float
        A probability at or above it is called AD.

    Raises
    ------
    InputError
        Only one class occurs.
    """
    from sklearn import metrics as sk

    if truth.all() or not truth.any():
        raise InputError(
            f"metrics need subjects with AD and with CN; received {truth.size} scores of one class: "
            "choose another split or a larger test set"
        )
    called = probability >= threshold
    sensitivity, specificity = (sk.recall_score(truth, called, pos_label=label) for label in (True, False))
    return {
        "auc": float(sk.roc_auc_score(truth, probability)),
        "accuracy": float(sk.accuracy_score(truth, called)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, called)),
        "sensitivity": float(sensitivity),
        "specificity": float(specificity),
        "brier": float(sk.brier_score_loss(truth, probability)),
    }


def choose_threshold(subjects: pd.DataFrame) -> float:
    """Return the threshold with the largest sensitivity + specificity (Youden 1950, Cancer 3:32-35).

    To be chosen on validation subjects, never on the subjects that are then reported.

    Parameters
    ----------
    subjects : DataFrame
        `diagnosis` and `probability`, one row a subject.

    Returns
    -------
    float
        Midway between two neighbouring scores; of several equally good ones that nearest to 0.5; 0.5 itself
        where no threshold is better than chance (no subjects, one class, equal or reversed scores).
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


def bootstrap_intervals(
    predictions: pd.DataFrame,
    *,
    aggregation: Aggregation,
    threshold: float,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
) -> dict[Literal["subject", "slice"], dict[MetricName, Interval]]:
    """Return every metric with its 95 % interval, per subject and per slice.

    Subjects are drawn, within each diagnosis, and bring all their scans and slices along: slices of one
    subject are near copies, and drawn singly would make the interval several times too narrow. Slices are
    summed within subjects once (`intervals.subject_sums`), so the cost of a resample does not depend on how
    many there are. Both levels meet the same resamples.

    Parameters
    ----------
    predictions : DataFrame
    aggregation : {"mean_probability", "mean_logit"}
    threshold : float
        Used at both levels.
    seed : int
    resamples : int

    Returns
    -------
    dict
        Level -> metric -> `value`, `low`, `high`.
    """
    subjects = subject_probabilities(predictions, aggregation=aggregation)
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    of_subject = subjects["probability"].to_numpy(np.float64)
    of_slice = predictions["probability"].to_numpy(np.float64)
    codes = pd.Index(subjects["subject"]).get_indexer(pd.Index(predictions["subject"]))
    # First, because it refuses a table with one class.
    values = {
        "subject": classification_metrics(truth, of_subject, threshold=threshold),
        "slice": classification_metrics(truth[codes], of_slice, threshold=threshold),
    }
    counts = subject_resamples(truth, resamples=resamples, seed=seed)
    sums = {
        "subject": subject_sums(truth, np.arange(truth.size), of_subject, threshold=threshold),
        "slice": subject_sums(truth, codes, of_slice, threshold=threshold),
    }
    intervals = {level: metric_intervals(sums[level], counts) for level in sums}
    # Sums in another order may differ in the last digit, and an interval must hold its value.
    return {
        level: {
            name: {
                "value": value,
                "low": min(intervals[level][name][0], value),
                "high": max(intervals[level][name][1], value),
            }
            for name, value in values[level].items()
        }
        for level in ("subject", "slice")
    }


def evaluation(
    predictions: pd.DataFrame,
    validation_predictions: pd.DataFrame,
    *,
    aggregation: Aggregation,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    allow_shared_subjects: bool = False,
) -> dict[str, Any]:
    """Return the document of ``metrics.json``: nested, every leaf a finite number.

    Parameters
    ----------
    predictions : DataFrame
        Of the test subjects.
    validation_predictions : DataFrame
        Of the subjects that the threshold is chosen on; may be empty, then it is 0.5.
    aggregation : {"mean_probability", "mean_logit"}
    seed : int
    resamples : int
    allow_shared_subjects : bool
        For the slice split of 2019 alone, whose results are leaky by design and marked so elsewhere.

    Returns
    -------
    dict
        `subject.<metric>.{value,low,high}`, `subject.confusion.*`, the same under `slice`, `counts.*`,
        `threshold`.

    Raises
    ------
    LeakageError
        A subject is in both tables.
    InputError
        As `subject_probabilities` and `classification_metrics`.
    """
    threshold = DEFAULT_THRESHOLD
    if not validation_predictions.empty:
        threshold = choose_threshold(subject_probabilities(validation_predictions, aggregation=aggregation))
    subjects = subject_probabilities(predictions, aggregation=aggregation)
    shared = sorted(set(subjects["subject"]) & set(validation_predictions["subject"]))
    if shared and not allow_shared_subjects:
        raise LeakageError(
            f"the threshold must be chosen on other subjects than those it is tested on; {len(shared)} are "
            f"in both tables, the first is {shared[0]}: run the split again"
        )
    levels = bootstrap_intervals(
        predictions, aggregation=aggregation, threshold=threshold, seed=seed, resamples=resamples
    )
    return {
        "subject": {**levels["subject"], "confusion": _confusion(subjects, threshold)},
        "slice": {**levels["slice"], "confusion": _confusion(predictions, threshold)},
        "threshold": threshold,
        "counts": _counts(predictions, subjects)
        | {"validation_subjects": int(validation_predictions["subject"].nunique())},
    }


def _score(probability: FloatArray, aggregation: Aggregation) -> FloatArray:
    """Return what is averaged."""
    if aggregation == "mean_probability":
        return probability
    inside = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(inside) - np.log1p(-inside), dtype=np.float64)


def _probability(score: FloatArray, aggregation: Aggregation) -> FloatArray:
    """Undo `_score`."""
    return score if aggregation == "mean_probability" else np.asarray(1 / (1 + np.exp(-score)))


def _check(predictions: pd.DataFrame) -> None:
    """Refuse a table that no metric can be computed from."""
    missing = [name for name in PREDICTION_COLUMNS if name not in predictions.columns]
    if missing:
        raise InputError(f"a predictions table needs the columns {', '.join(missing)}: run evaluate again")
    if predictions.empty:
        raise InputError("a predictions table needs at least one row, received none: run evaluate again")
    probability = predictions["probability"].to_numpy(np.float64)
    if not np.all((probability >= 0) & (probability <= 1)):
        wrong = predictions.loc[~((probability >= 0) & (probability <= 1)), "scan"].iloc[0]
        raise InputError(f"probabilities must lie in 0 to 1; scan {wrong} has another: train the model again")
    unknown = sorted(set(predictions["diagnosis"]) - {POSITIVE, NEGATIVE})
    if unknown:
        raise InputError(
            f"diagnoses must be {POSITIVE} or {NEGATIVE}; received {unknown[0]}: run ingest again"
        )
    diagnoses = predictions.groupby("subject", observed=True)["diagnosis"].nunique()
    if diagnoses.max() > 1:
        raise InputError(
            f"a subject must have one diagnosis; {diagnoses.idxmax()} has two: correct the cohort's table"
        )


def _confusion(table: pd.DataFrame, threshold: float) -> dict[str, int]:
    """Count right and wrong calls."""
    truth: npt.NDArray[np.bool_] = table["diagnosis"].to_numpy() == POSITIVE
    called = table["probability"].to_numpy(np.float64) >= threshold
    return {
        "true_positive": int((truth & called).sum()),
        "false_negative": int((truth & ~called).sum()),
        "false_positive": int((~truth & called).sum()),
        "true_negative": int((~truth & ~called).sum()),
    }


def _counts(predictions: pd.DataFrame, subjects: pd.DataFrame) -> dict[str, int]:
    """Count what was tested."""
    return {
        "subjects": len(subjects),
        "subjects_ad": int((subjects["diagnosis"] == POSITIVE).sum()),
        "subjects_cn": int((subjects["diagnosis"] == NEGATIVE).sum()),
        "scans": int(predictions["scan"].nunique()),
        "slices": len(predictions),
    }
