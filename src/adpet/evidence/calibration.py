"""Are the probabilities true? Expected calibration error and the reliability diagram, in bins of equal mass.

Bins of equal width stand empty where few subjects have middling probabilities; bins of equal mass hold the
same number of scores each (Nguyen and O'Connor 2015, EMNLP; Roelofs et al. 2022, AISTATS).
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.evidence.binning import equal_mass_bins
from adpet.evidence.intervals import exact_interval
from adpet.evidence.resampling import BoolArray, FloatArray


def calibration_error(truth: BoolArray, probability: FloatArray, *, bins: int) -> float:
    """Return the expected calibration error (Naeini 2015, AAAI) in bins of equal mass.

    The mean distance of a bin's mean probability from its share of AD, bins counting by their scores. Few
    subjects push it up: even true probabilities have some.
    """
    codes = equal_mass_bins(probability, bins=bins)
    gaps = np.bincount(codes, weights=probability - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


def calibration_table(
    truth: BoolArray, probability: FloatArray, *, bins: int, independent: bool
) -> pd.DataFrame:
    """Return the reliability diagram's points.

    Parameters
    ----------
    truth : (n,) bool ndarray
        True for AD.
    probability : (n,) float64 ndarray
    bins : int
    independent : bool
        Whether scores are of different subjects: slices of one are near copies and get no interval.

    Returns
    -------
    DataFrame
        A row a bin that holds scores: `n`, `probability` (mean), `observed` (share of AD), `low` and `high`
        of its exact 95 % interval, or NaN.
    """
    codes: npt.NDArray[np.intp] = equal_mass_bins(probability, bins=bins)
    rows = []
    for code in np.unique(codes):
        here = codes == code
        observed = float(truth[here].mean())
        low, high = exact_interval(observed, n=int(here.sum())) if independent else (np.nan, np.nan)
        rows.append((int(here.sum()), float(probability[here].mean()), observed, low, high))
    return pd.DataFrame(rows, columns=["n", "probability", "observed", "low", "high"])
