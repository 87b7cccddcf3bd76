"""Confidence intervals over subjects: whole subjects are drawn, with every slice that they bring along."""

import numpy as np

from adpet.evidence.resampling import FloatArray, MetricName, SubjectSums, resampled_metrics

# Two-sided, as in the clinical literature.
CONFIDENCE = 0.95
# A quantile of resamples is at 0 or 1 when it is nearer to it than rounding can tell.
NEAR_END = 1e-9


def metric_intervals(sums: SubjectSums, counts: FloatArray) -> dict[MetricName, tuple[float, float]]:
    """Return the 95 % interval of every metric, from resamples of subjects.

    The interval is the central 95 % of the resamples (percentile bootstrap, Efron and Tibshirani 1993,
    chapter 13). Where a metric is at or near its end, resamples cannot show errors that the sample happens to
    lack: with 18 + 18 subjects and a true AUC of 0.98 such an interval holds it in only 74 % of simulated
    studies, and at an AUC of 1 it shrinks to a point. So wherever the interval touches 0 or 1, it is widened
    to hold the analytic interval too (then 95 % or more in the same simulation): `score_interval_auc` for the
    AUC, `exact_interval` for proportions (the average precision as one of the AD subjects, after Boyd 2013,
    ECML PKDD), two of them combined for balanced accuracy. The analytic ones count subjects, never slices.
    Brier scores are left alone: their bounds are not where studies end. Resampling adds to a calibration
    error, which is a sum of distances: its interval reaches down to that of the basic bootstrap, which
    takes as much off (chapter 13 as well), and up to the percentiles.
    """
    samples = resampled_metrics(sums, counts)
    ones = np.ones((1, sums.truth.size))
    value = {name: float(row[0]) for name, row in resampled_metrics(sums, ones).items()}
    analytic = analytic_intervals(value, n_ad=int(sums.truth.sum()), n_cn=int((~sums.truth).sum()))
    intervals: dict[MetricName, tuple[float, float]] = {}
    for name, row in samples.items():
        low, high = percentile_interval(row)
        if name in analytic and (low <= NEAR_END or high >= 1 - NEAR_END):
            low, high = min(low, analytic[name][0]), max(high, analytic[name][1])
        if name == "calibration_error":
            low = min(low, max(0.0, 2 * value[name] - high))
        intervals[name] = min(low, value[name]), max(high, value[name])
    return intervals


def percentile_interval(samples: FloatArray) -> tuple[float, float]:
    """Return the central 95 % of `samples`."""
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def score_interval_auc(auc: float, *, n_ad: int, n_cn: int) -> tuple[float, float]:
    """Interval of an area under the ROC curve that stays honest at 1.0, where resampling sees no spread.

    Newcombe's method 5: all areas theta with (auc - theta)^2 <= z^2 V(theta), V being the variance of Hanley
    and McNeil with both group sizes replaced by their mean where they stand for a degree of freedom.

    References
    ----------
    Newcombe 2006, Statistics in Medicine 25:559-573; Hanley and McNeil 1982, Radiology 143:29-36.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z_squared = norm.ppf((1 + CONFIDENCE) / 2) ** 2
    freedom = (n_ad + n_cn) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + freedom * (1 - theta) / (2 - theta) + freedom * theta / (1 + theta)
        return float((auc - theta) ** 2 - z_squared * theta * (1 - theta) * spread / (n_ad * n_cn))

    # At theta = 0 and 1 the variance is nought, at theta = auc the distance: one root lies on each side.
    # Where auc is itself 0 or 1, that end is the bound, and the other root is sought just inside it.
    low = 0.0 if auc <= NEAR_END else brentq(excess, 0.0, min(auc, 1 - NEAR_END))
    high = 1.0 if auc >= 1 - NEAR_END else brentq(excess, max(auc, NEAR_END), 1.0)
    return float(low), float(high)


def exact_interval(proportion: float, *, n: int) -> tuple[float, float]:
    """Return the exact binomial interval (Clopper and Pearson 1934, Biometrika 26:404-413).

    `proportion` need not be a multiple of 1/n: slices are counted as shares of their subjects.
    """
    from scipy.stats import beta

    hits, tail = proportion * n, (1 - CONFIDENCE) / 2
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits >= n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return low, high


def analytic_intervals(
    value: dict[MetricName, float], *, n_ad: int, n_cn: int
) -> dict[MetricName, tuple[float, float]]:
    """Return the intervals that need no resampling, for the metrics that have one; `n` counts subjects."""
    intervals: dict[MetricName, tuple[float, float]] = {
        "auc": score_interval_auc(value["auc"], n_ad=n_ad, n_cn=n_cn),
        "average_precision": exact_interval(value["average_precision"], n=n_ad),
        "accuracy": exact_interval(value["accuracy"], n=n_ad + n_cn),
        "sensitivity": exact_interval(value["sensitivity"], n=n_ad),
        "specificity": exact_interval(value["specificity"], n=n_cn),
    }
    # The mean of two independent proportions: distances to their bounds add in squares
    # (MOVER; Zou and Donner 2008, Statistics in Medicine 27:1693-1702).
    distances = np.asarray(
        [np.abs(np.subtract(intervals[name], value[name])) for name in ("sensitivity", "specificity")]
    )
    below, above = np.hypot(*distances) / 2
    middle = value["balanced_accuracy"]
    intervals["balanced_accuracy"] = float(middle - below), float(middle + above)
    return intervals
