"""External validation: net benefit, and recalibration to a site."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit

from adpet.errors import InputError
from adpet.evaluation.aggregation import NEGATIVE, POSITIVE, SMALLEST_PROBABILITY
from adpet.evaluation.bootstrap import BoolArray, FloatArray

# Probabilities from which AD is predicted.
DECISIONS = np.arange(0.05, 0.96, 0.05).round(2)
# Fewer subjects of a diagnosis cannot be left out in turn.
FOLDS = 5
# Log-odds, beyond all that a probability can be off by.
FARTHEST = 50.0


def net_benefit(truth: BoolArray, probability: FloatArray) -> FloatArray:
    """Return the net benefit per subject at each of `DECISIONS`.

    True positives less false positives, which cost the odds of the decision (Vickers and Elkin 2006, Med
    Decis Making 26:565-574).
    """
    predicted = probability >= DECISIONS[:, None]
    odds = DECISIONS / (1 - DECISIONS)
    correct, wrong = ((predicted & group).sum(axis=1) for group in (truth, ~truth))
    return np.asarray((correct - odds * wrong) / truth.size)


def decision_table(truth: BoolArray, models: dict[str, FloatArray]) -> pd.DataFrame:
    """Return decision curves: rows are probabilities, columns strategies.

    `models` are probabilities of AD, (subjects,); "all" predicts AD for all subjects. For none it is 0.
    """
    strategies = models | {"all": np.ones(truth.size)}
    curves = {name: net_benefit(truth, probability) for name, probability in strategies.items()}
    return pd.DataFrame({"probability": DECISIONS} | curves)


def recalibrated(subjects: pd.DataFrame, *, usual_cn: float | None, seed: int) -> tuple[pd.DataFrame, float]:
    """Shift the log-odds of AD to a site.

    A new intercept; the slope stays. Without `usual_cn` the mean probability becomes the share of AD
    (calibration in the large). Returns the subjects, each shifted by a fit to the other folds, and the shift
    that is fitted to all of them.

    Parameters
    ----------
    subjects : DataFrame
        `subject`, `diagnosis` and `probability`, one row each.
    usual_cn : float, optional
        Median probability of CN subjects in training; the shift moves that of these CN subjects to it.
    """
    odds = logit(np.clip(subjects["probability"], SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY))
    truth = (subjects["diagnosis"] == POSITIVE).to_numpy()
    odds = np.asarray(odds, dtype=np.float64)

    def shift(chosen: BoolArray) -> float:
        if usual_cn is not None:
            return float(logit(usual_cn) - np.median(odds[chosen & ~truth]))
        wanted = truth[chosen].mean()
        return float(brentq(lambda by: expit(odds[chosen] + by).mean() - wanted, -FARTHEST, FARTHEST))

    folds = _folds(truth, seed)
    shifts = np.array([shift(folds != fold) for fold in range(FOLDS)])
    return subjects.assign(probability=expit(odds + shifts[folds])), shift(np.ones(truth.size, dtype=bool))


def _folds(truth: BoolArray, seed: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """Return each subject's fold, both diagnoses in each."""
    fewest = int(min(truth.sum(), (~truth).sum()))
    if fewest < FOLDS:
        raise InputError(
            f"--recalibrate: required {FOLDS} subjects of {POSITIVE} and of {NEGATIVE}; received {fewest} of "
            "one; leave --recalibrate out"
        )
    rng, folds = np.random.default_rng(seed), np.zeros(truth.size, dtype=np.intp)
    for diagnosis in (True, False):
        members = np.flatnonzero(truth == diagnosis)
        folds[rng.permutation(members)] = np.arange(members.size) % FOLDS
    return folds
