"""Limits of the quality checks, made from the scans that the network was trained on."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adpet.answering.quality import CHECKS, profile_distance

Vector = npt.NDArray[np.float64]

# Beyond the range of the training scans, in spreads: where a scan is flagged, and where it is refused. All
# training scans pass; 1 spread leaves room for what some hundred scans have not shown, 4 for other scanners'.
FLAGGED, REFUSED = 1.0, 4.0
# The middle 95 % of a normal distribution are so many standard deviations wide.
MIDDLE_SDS: Final = 2 * 1.96
# How much of the regions' covariance is taken for none: with some hundred scans and thirty regions, the
# smallest variances are underestimated, and a distance made of them is large for anyone new.
SHRINKAGE: Final = 0.2
FOLDS: Final = 10


def profile_of(uptakes: Vector) -> dict[str, Any]:
    """Return the mean and the regularised precision of regional profiles.

    The covariance is shrunk towards its own diagonal (Friedman 1989, doi:10.1080/01621459.1989.10478752), so
    that each region keeps its variance.

    Parameters
    ----------
    uptakes : (scans, regions) float64 ndarray

    Returns
    -------
    dict
        `mean`, (regions,), and `precision`, (regions, regions), as lists.
    """
    covariance = np.cov(uptakes, rowvar=False).reshape(uptakes.shape[1], -1)
    variances = np.diag(covariance)
    floor = np.where(variances > 0, variances, max(float(variances.max()), 1e-6))
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(floor)
    return {"mean": uptakes.mean(axis=0).tolist(), "precision": np.linalg.inv(shrunk).tolist()}


def profile_distances(uptakes: Vector, subjects: npt.NDArray[Any]) -> Vector:
    """Return how far each scan is from the scans of other subjects, as a new subject's would be: (scans,)."""
    _, codes = np.unique(subjects, return_inverse=True)
    folds = codes % FOLDS
    distances = np.empty(len(uptakes))
    for fold in np.unique(folds):
        profile = profile_of(uptakes[folds != fold]) if (folds != fold).sum() > 1 else profile_of(uptakes)
        distances[folds == fold] = [profile_distance(one, profile) for one in uptakes[folds == fold]]
    return distances


def limits_of(measured: Mapping[str, Vector], *, min_similarity: float) -> list[dict[str, Any]]:
    """Return the limits by which `judged` judges, from the training scans' measures.

    Parameters
    ----------
    measured : mapping of str to (scans,) float64 ndarray
        By the names of `CHECKS`.
    min_similarity : float
        Below which `standardize` sets scans aside; a scan to be answered is refused there, too.
    """
    rows = []
    for name, check in CHECKS.items():
        values = measured[name]
        low, high = float(values.min()), float(values.max())
        middle = np.quantile(values, [0.025, 0.975])
        spread = max(float(np.ptp(middle)) / MIDDLE_SDS, check.least_spread)
        row: dict[str, Any] = {
            "name": name,
            "text": check.text,
            "low_means": check.low,
            "high_means": check.high,
            "flag_below": low - FLAGGED * spread if check.low else None,
            "flag_above": high + FLAGGED * spread if check.high else None,
            "refuse_below": low - REFUSED * spread if check.low else None,
            "refuse_above": high + REFUSED * spread if check.high else None,
            "median": float(np.median(values)),
            "low": low,
            "high": high,
        }
        if name == "similarity":
            row |= {
                "refuse_below": min_similarity,
                "flag_below": max(min_similarity, row["flag_below"]),
            }
        rows.append(
            {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        )
    return rows
