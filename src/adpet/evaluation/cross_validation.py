"""Out-of-fold results of a cross-validation: pooled over all subjects, and their spread over the folds."""

from typing import Any

import numpy as np
import pandas as pd

from adpet.evaluation.aggregation import (
    NEGATIVE,
    POSITIVE,
    Aggregation,
    learn_position_weights,
    subject_probabilities,
)
from adpet.evaluation.bootstrap import MetricName, subject_resamples
from adpet.evaluation.metrics import (
    DEFAULT_RESAMPLES,
    Interval,
    choose_threshold,
    classification_metrics,
    level_intervals,
)

# A row a subject: `threshold` is that of its fold, `searched` whether the hyperparameters were chosen on it.
COLUMNS = ("subject", "diagnosis", "fold", "probability", "threshold", "searched")


def fold_subjects(
    predictions: pd.DataFrame, *, fold: int, aggregation: Aggregation, positions: int
) -> pd.DataFrame:
    """Return a fold's tested subjects, with the threshold that its validating subjects chose.

    Parameters
    ----------
    predictions : DataFrame
        One row a slice, `part` "test" or "validation".
    fold : int
    aggregation : {"mean_probability", "mean_logit", "position_weights"}
        Weights of positions are learned on the fold's validating subjects.
    positions : int
        Slices of a whole scan.

    Returns
    -------
    DataFrame
        `subject`, `diagnosis`, `probability`, `threshold`, `fold`.
    """
    parts = dict(iter(predictions.groupby("part", sort=True)))
    weights = learn_position_weights(parts["validation"], positions=positions)
    tested, validating = (
        subject_probabilities(parts[part], aggregation=aggregation, weights=weights)
        for part in ("test", "validation")
    )
    return tested.assign(threshold=choose_threshold(validating), fold=fold)


def pooled_summary(
    subjects: pd.DataFrame, *, seed: int, resamples: int = DEFAULT_RESAMPLES
) -> dict[str, Any]:
    """Return the document of ``summary.json``; every leaf is a number.

    Intervals are over subjects, the networks as they are: how much networks differ is seen in the spread.
    An AUC pooled over folds also suffers where the folds' networks are differently sure of themselves.

    Parameters
    ----------
    subjects : DataFrame
        `COLUMNS`.

    Returns
    -------
    dict
        `folds`; `pooled.<metric>.{value,low,high}` of all subjects, and the same under `unsearched` of those
        that the hyperparameters were not chosen on, where these are some of each diagnosis but not all;
        `spread.<metric>.{mean,sd,low,high}` over folds (low and high the least and the most of them), and
        `fold.<number>.<metric>.{value,low,high}`; `counts`, also of each fold's diagnoses.
    """
    folds = {str(fold): rows for fold, rows in subjects.groupby("fold", sort=True)}
    by_fold = {fold: _values(rows) for fold, rows in folds.items()}
    spread = {
        name: {
            "mean": float(column.mean()),
            "sd": float(column.std(ddof=1)),
            "low": float(column.min()),
            "high": float(column.max()),
        }
        for name, column in pd.DataFrame(by_fold).T.items()
    }
    unsearched = subjects[~subjects["searched"]]
    summary: dict[str, Any] = {
        "folds": len(by_fold),
        "pooled": _intervals(subjects, seed=seed, resamples=resamples),
        "spread": spread,
        "fold": {fold: _intervals(rows, seed=seed, resamples=resamples) for fold, rows in folds.items()},
        "counts": {
            "subjects": len(subjects),
            "searched": int(subjects["searched"].sum()),
            "fold": {fold: _diagnoses(rows) for fold, rows in folds.items()},
        },
    }
    if len(unsearched) < len(subjects) and len(set(unsearched["diagnosis"])) > 1:
        summary["unsearched"] = _intervals(unsearched, seed=seed, resamples=resamples)
    return summary


def _diagnoses(subjects: pd.DataFrame) -> dict[str, int]:
    return {name.lower(): int((subjects["diagnosis"] == name).sum()) for name in (POSITIVE, NEGATIVE)}


def _columns(subjects: pd.DataFrame) -> tuple[Any, Any, Any]:
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    return truth, subjects["probability"].to_numpy(np.float64), subjects["threshold"].to_numpy(np.float64)


def _values(subjects: pd.DataFrame) -> dict[MetricName, float]:
    truth, probability, threshold = _columns(subjects)
    return classification_metrics(truth, probability, threshold=threshold)


def _intervals(subjects: pd.DataFrame, *, seed: int, resamples: int) -> dict[MetricName, Interval]:
    truth, probability, threshold = _columns(subjects)
    counts = subject_resamples(truth, resamples=resamples, seed=seed)
    return level_intervals(truth, np.arange(truth.size), probability, threshold=threshold, counts=counts)
