"""Metrics of resampled subjects: whole subjects are drawn, with every slice that they bring along.

Slices are summed within subjects once: after that a resample costs the same, however many there are.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adpet.evidence.binning import bins_for, equal_mass_bins

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
MetricName = Literal[
    "auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "brier",
    "calibration_error",
]

# Of more distinct scores than these, resampled precision and recall are taken at so many alone; on 20,000
# slices that changes an average precision by less than 0.001.
LEVELS = 512


@dataclass(frozen=True, kw_only=True)
class SubjectSums:
    """All that the metrics of any resample of subjects depend on, summed within subjects.

    Attributes
    ----------
    truth : (subjects,) bool ndarray
        True for AD.
    size : (subjects,) float64 ndarray
        Scores of the subject: 1 at the subject level, its slices at the slice level.
    called_ad : (subjects,) float64 ndarray
        Scores of the subject at or above the threshold.
    squared_error : (subjects,) float64 ndarray
        Sum of (probability - truth) squared.
    pairs_won : (AD subjects, CN subjects) float64 ndarray
        Of all pairs of one score from each, those that AD wins; a tie counts one half.
    at_or_above : (subjects, levels) float64 ndarray
        Scores of the subject at or above each level, levels falling; the last holds all.
    bin_excess : (subjects, bins) float64 ndarray
        Sum of (probability - truth) of the subject's scores in each bin of equal mass of the whole sample.
    """

    truth: BoolArray
    size: FloatArray
    called_ad: FloatArray
    squared_error: FloatArray
    pairs_won: FloatArray
    at_or_above: FloatArray
    bin_excess: FloatArray


def subject_resamples(truth: BoolArray, *, resamples: int, seed: int) -> FloatArray:
    """Draw subjects with replacement within each diagnosis.

    The counts depend on the order and diagnosis of the subjects alone, so that two models scored on the same
    subjects with the same seed meet the same resamples: their differences are then paired.

    Parameters
    ----------
    truth : (subjects,) bool ndarray
        True for AD.
    resamples : int
    seed : int

    Returns
    -------
    (resamples, subjects) float64 ndarray
        How often each subject was drawn: 8 bytes a subject and resample.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, truth.size), dtype=np.float64)
    for diagnosis in (True, False):
        members = np.flatnonzero(truth == diagnosis)
        even = np.full(members.size, 1 / members.size)
        counts[:, members] = rng.multinomial(members.size, even, size=resamples)
    return counts


def subject_sums(
    truth: BoolArray, codes: npt.NDArray[np.intp], probability: FloatArray, *, threshold: float | FloatArray
) -> SubjectSums:
    """Sum within subjects what `resampled_metrics` needs; afterwards slices cost nothing more.

    The area under the ROC curve is the share of AD-CN pairs of scores that AD wins (Mann-Whitney), and pairs
    can be counted per pair of subjects once for all. A resample is then a product with an (AD subjects, CN
    subjects) matrix, however many slices there are. Counting takes O(CN subjects x scores) time and O(scores)
    memory.

    Parameters
    ----------
    truth : (subjects,) bool ndarray
        True for AD.
    codes : (scores,) int ndarray
        Position in `truth` of the subject that each score belongs to.
    probability : (scores,) float64 ndarray
        Of AD.
    threshold : float or (scores,) float64 ndarray
        A score at or above it is called AD.
    """
    n, bins = truth.size, bins_for(truth.size)
    excess = probability - truth[codes]
    places = codes * bins + equal_mass_bins(probability, bins=bins)
    return SubjectSums(
        truth=truth,
        size=np.bincount(codes, minlength=n).astype(np.float64),
        called_ad=_summed(codes, probability >= threshold, n),
        squared_error=_summed(codes, excess**2, n),
        pairs_won=_pairs_won(truth, codes, probability),
        at_or_above=_at_or_above(codes, probability, n),
        bin_excess=_summed(places, excess, n * bins).reshape(n, bins),
    )


def resampled_metrics(sums: SubjectSums, counts: FloatArray) -> dict[MetricName, FloatArray]:
    """Return every metric for every resample.

    Parameters
    ----------
    sums : SubjectSums
    counts : (resamples, subjects) float64 ndarray
        How often each subject was drawn; a row of ones gives the metrics of the sample itself.

    Returns
    -------
    dict of (resamples,) float64 ndarray
    """
    ad, cn = counts[:, sums.truth], counts[:, ~sums.truth]
    size_ad, size_cn = ad @ sums.size[sums.truth], cn @ sums.size[~sums.truth]
    true_positive = ad @ sums.called_ad[sums.truth]
    true_negative = size_cn - cn @ sums.called_ad[~sums.truth]
    sensitivity, specificity = true_positive / size_ad, true_negative / size_cn
    size = size_ad + size_cn
    return {
        "auc": np.einsum("bi,bi->b", ad @ sums.pairs_won, cn) / (size_ad * size_cn),
        "average_precision": _average_precision(
            ad @ sums.at_or_above[sums.truth], cn @ sums.at_or_above[~sums.truth]
        ),
        "accuracy": (true_positive + true_negative) / size,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "brier": counts @ sums.squared_error / size,
        "calibration_error": np.abs(counts @ sums.bin_excess).sum(axis=1) / size,
    }


def _summed(codes: npt.NDArray[np.intp], weights: npt.NDArray[Any], n: int) -> FloatArray:
    """Sum `weights` by code."""
    return np.asarray(np.bincount(codes, weights=weights, minlength=n), dtype=np.float64)


def _pairs_won(truth: BoolArray, codes: npt.NDArray[np.intp], probability: FloatArray) -> FloatArray:
    """Count, for each AD and each CN subject, the pairs of their scores that AD wins."""
    scores, ranks = np.unique(probability, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    order = order[truth[codes[order]]]
    ranks_ad = ranks[order]
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    won = np.empty((int(truth.sum()), int((~truth).sum())), dtype=np.float64)
    for column, subject in enumerate(np.flatnonzero(~truth)):
        here = np.bincount(ranks[codes == subject], minlength=scores.size)
        below = np.cumsum(here) - here / 2
        won[:, column] = np.add.reduceat(below[ranks_ad], starts)
    return won


def _at_or_above(codes: npt.NDArray[np.intp], probability: FloatArray, n: int) -> FloatArray:
    """Count each subject's scores at or above at most `LEVELS` of the scores, the lowest among them."""
    scores = np.unique(probability)
    kept = np.unique(np.linspace(0, scores.size - 1, min(scores.size, LEVELS)).round().astype(np.intp))
    levels = scores[kept]
    # The highest level at or below a score, in an order that falls.
    place = levels.size - np.searchsorted(levels, probability, side="right")
    counted = np.bincount(codes * levels.size + place, minlength=n * levels.size)
    return np.asarray(np.cumsum(counted.reshape(n, levels.size), axis=1), dtype=np.float64)


def _average_precision(hits: FloatArray, false_alarms: FloatArray) -> FloatArray:
    """Return the sum of precision times gain in recall over falling levels, scikit-learn's definition."""
    called = hits + false_alarms
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    gains = np.diff(hits, axis=1, prepend=0.0) / hits[:, -1:]
    # Rounding may lead past 1.
    return np.asarray((gains * precision).sum(axis=1).clip(max=1.0), dtype=np.float64)
