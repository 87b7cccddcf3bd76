"""Cross-validation: out-of-fold results, pooled and by fold."""

from typing import Any

import numpy as np
import pandas as pd

from adpet.evaluation import metrics
from adpet.evaluation.aggregation import NEGATIVE, POSITIVE, Aggregation, fit_pooling, subject_probabilities
from adpet.evaluation.bootstrap import MetricName, subject_resamples

# One row a subject: its fold's threshold, and whether hyperparameters were chosen on it (`searched`).
COLUMNS = ("subject", "diagnosis", "fold", "probability", "threshold", "searched")


def fold_subjects(
    predictions: pd.DataFrame, *, fold: int, aggregation: Aggregation, positions: int
) -> pd.DataFrame:
    """Return a fold's test subjects and its threshold.

    Position weights, calibration and threshold are chosen on the fold's validation subjects. `predictions`
    has one row a slice, `part` "test" or "validation"; a whole scan has `positions` slices.
    """
    parts = dict(iter(predictions.groupby("part", sort=True)))
    pooling = fit_pooling(parts["validation"], aggregation, positions=positions)
    threshold = metrics.even_threshold(parts["validation"]) or metrics.DEFAULT_THRESHOLD
    return subject_probabilities(parts["test"], pooling).assign(threshold=threshold, fold=fold)


def pooled_summary(
    subjects: pd.DataFrame, *, seed: int, resamples: int = metrics.DEFAULT_RESAMPLES
) -> dict[str, Any]:
    """Return the document of ``summary.json`` from a table of `COLUMNS`.

    Intervals are over subjects with the networks fixed; the spread shows how much networks differ. A pooled
    AUC also suffers if the folds' networks are calibrated differently. `unsearched` are the subjects that no
    hyperparameter was chosen on, if these are some of each diagnosis but not all. Every leaf is a number.
    """
    folds = {str(fold): rows for fold, rows in subjects.groupby("fold", sort=True)}
    by_fold = pd.DataFrame([_values(rows) for rows in folds.values()])
    spread = by_fold.agg(["mean", "std", "min", "max"]).set_axis(["mean", "sd", "low", "high"])
    unsearched = subjects[~subjects["searched"]]
    summary: dict[str, Any] = {
        "folds": len(folds),
        "pooled": _intervals(subjects, seed=seed, resamples=resamples),
        "spread": spread.to_dict(),
        "fold": {fold: _intervals(rows, seed=seed, resamples=resamples) for fold, rows in folds.items()},
        "counts": {
            "subjects": len(subjects),
            "searched": int(subjects["searched"].sum()),
            "fold": {
                fold: {name.lower(): int((rows["diagnosis"] == name).sum()) for name in (POSITIVE, NEGATIVE)}
                for fold, rows in folds.items()
            },
        },
    }
    if len(unsearched) < len(subjects) and len(set(unsearched["diagnosis"])) > 1:
        summary["unsearched"] = _intervals(unsearched, seed=seed, resamples=resamples)
    return summary


def _columns(subjects: pd.DataFrame) -> tuple[Any, Any, Any]:
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    return truth, subjects["probability"].to_numpy(np.float64), subjects["threshold"].to_numpy(np.float64)


def _values(subjects: pd.DataFrame) -> dict[MetricName, float]:
    truth, probability, threshold = _columns(subjects)
    return metrics.classification_metrics(truth, probability, threshold=threshold)


def _intervals(subjects: pd.DataFrame, *, seed: int, resamples: int) -> dict[MetricName, metrics.Interval]:
    truth, probability, threshold = _columns(subjects)
    counts = subject_resamples(truth, resamples=resamples, seed=seed)
    return metrics.level_intervals(
        truth, np.arange(truth.size), probability, threshold=threshold, counts=counts
    )
