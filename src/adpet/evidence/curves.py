"""The curves behind the numbers, as tables that figures are drawn from."""

import numpy as np
import pandas as pd

from adpet.evidence.intervals import percentile_interval, subject_resamples
from adpet.evidence.metrics import DEFAULT_RESAMPLES, POSITIVE, Aggregation, subject_probabilities

# A curve of 100,000 slices is drawn with this many points.
CURVE_POINTS = 500


def roc_curves(predictions: pd.DataFrame, *, aggregation: Aggregation) -> pd.DataFrame:
    """Return the ROC curves per subject and per slice.

    Returns
    -------
    DataFrame
        `level` ("subject" or "slice"), `false_positive_rate`, `sensitivity`; at most about 500 points a
        level.
    """
    from sklearn.metrics import roc_curve

    tables = {"subject": subject_probabilities(predictions, aggregation=aggregation), "slice": predictions}
    parts = []
    for level, table in tables.items():
        rate, sensitivity, _ = roc_curve(table["diagnosis"] == POSITIVE, table["probability"])
        kept = np.unique(np.linspace(0, rate.size - 1, min(rate.size, CURVE_POINTS)).round().astype(int))
        columns = {"level": level, "false_positive_rate": rate[kept], "sensitivity": sensitivity[kept]}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def roc_band(
    predictions: pd.DataFrame,
    *,
    aggregation: Aggregation,
    seed: int,
    resamples: int = DEFAULT_RESAMPLES,
    points: int = 101,
) -> pd.DataFrame:
    """Return the pointwise 95 % bootstrap band of the subjects' ROC curve, from the resamples of `seed`.

    The band is vertical: sensitivities at a fixed false positive rate.

    Returns
    -------
    DataFrame
        `false_positive_rate` (evenly from 0 to 1), `low`, `high`.
    """
    subjects = subject_probabilities(predictions, aggregation=aggregation)
    truth = subjects["diagnosis"].to_numpy() == POSITIVE
    counts = subject_resamples(truth, resamples=resamples, seed=seed)
    scores = subjects["probability"].to_numpy(np.float64)
    falling = np.argsort(-scores, kind="stable")
    scores, truth, counts = scores[falling], truth[falling], counts[:, falling]
    # A curve has a point where the score changes: equal scores are called together.
    last = np.flatnonzero(np.diff(scores, append=-1.0))
    sensitivity = np.cumsum(counts * truth, axis=1)[:, last] / truth.sum()
    rate = np.cumsum(counts * ~truth, axis=1)[:, last] / (~truth).sum()
    grid = np.linspace(0, 1, points)
    curves = [
        np.interp(grid, np.append(0.0, x), np.append(0.0, y)) for x, y in zip(rate, sensitivity, strict=True)
    ]
    limits = np.array([percentile_interval(column) for column in np.array(curves).T])
    return pd.DataFrame({"false_positive_rate": grid, "low": limits[:, 0], "high": limits[:, 1]})
