"""The curves behind the numbers, as tables that figures are drawn from."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.evidence.aggregation import POSITIVE
from adpet.evidence.binning import bins_for
from adpet.evidence.calibration import calibration_table
from adpet.evidence.intervals import percentile_interval
from adpet.evidence.metrics import DEFAULT_RESAMPLES
from adpet.evidence.resampling import subject_resamples

# A curve of 100,000 slices is drawn with this many points.
CURVE_POINTS = 500


def roc_curves(subjects: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Return the ROC curves per subject and per slice.

    Parameters
    ----------
    subjects, slices : DataFrame
        `diagnosis` and `probability`, one row a subject, and one a slice.

    Returns
    -------
    DataFrame
        `level` ("subject" or "slice"), `false_positive_rate`, `sensitivity`; at most about 500 points a
        level.
    """
    from sklearn.metrics import roc_curve

    parts = []
    for level, table in (("subject", subjects), ("slice", slices)):
        rate, sensitivity, _ = roc_curve(table["diagnosis"] == POSITIVE, table["probability"])
        kept = _spread(rate.size)
        columns = {"level": level, "false_positive_rate": rate[kept], "sensitivity": sensitivity[kept]}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def precision_recall_curves(subjects: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Return precision over recall (sensitivity), per subject and per slice.

    Parameters
    ----------
    subjects, slices : DataFrame
        `diagnosis` and `probability`, one row a subject, and one a slice.

    Returns
    -------
    DataFrame
        `level`, `recall` (rising from 0), `precision`; to be drawn in steps, a precision holding from the
        recall before it, and the area below them is the average precision.
    """
    from sklearn.metrics import precision_recall_curve

    parts = []
    for level, table in (("subject", subjects), ("slice", slices)):
        precision, recall, _ = precision_recall_curve(table["diagnosis"] == POSITIVE, table["probability"])
        curve = pd.DataFrame({"recall": recall, "precision": precision})
        # Of equal recalls the first that is reached counts; scikit-learn's point at no recall is made up.
        curve = curve[curve["recall"] > 0].groupby("recall", sort=True)["precision"].max().reset_index()
        start = pd.DataFrame({"recall": [0.0], "precision": curve["precision"].head(1)})
        curve = pd.concat([start, curve], ignore_index=True)
        parts.append(curve.iloc[_spread(len(curve))].assign(level=level))
    return pd.concat(parts, ignore_index=True)[["level", "recall", "precision"]]


def calibration_points(subjects: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """Return the reliability diagram per subject and per slice: `level`, and the columns of its table."""
    bins = bins_for(len(subjects))
    parts = [
        calibration_table(
            table["diagnosis"].to_numpy() == POSITIVE,
            table["probability"].to_numpy(np.float64),
            bins=bins,
            independent=level == "subject",
        ).assign(level=level)
        for level, table in (("subject", subjects), ("slice", slices))
    ]
    return pd.concat(parts, ignore_index=True)[["level", *parts[0].columns.drop("level")]]


def roc_band(
    subjects: pd.DataFrame, *, seed: int, resamples: int = DEFAULT_RESAMPLES, points: int = 101
) -> pd.DataFrame:
    """Return the pointwise 95 % bootstrap band of the subjects' ROC curve, from the resamples of `seed`.

    The band is vertical: sensitivities at a fixed false positive rate.

    Returns
    -------
    DataFrame
        `false_positive_rate` (evenly from 0 to 1), `low`, `high`.
    """
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


def _spread(size: int) -> npt.NDArray[np.intp]:
    """Return at most `CURVE_POINTS` places of `size`, both ends among them."""
    return np.unique(np.linspace(0, size - 1, min(size, CURVE_POINTS)).round().astype(np.intp))
