"""Aggregation of slices into one probability, and what it means.

A predictions table has one row a slice: `scan`, `index`, `subject`, `session`, `diagnosis` ("AD" or "CN"),
`part` and `probability` (of AD). A baseline has one row a scan.
"""

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Aggregation = Literal["mean_probability", "mean_logit", "position_weights"]

POSITIVE, NEGATIVE = "AD", "CN"
PREDICTION_COLUMNS = ("scan", "index", "subject", "session", "diagnosis", "part", "probability")
# Probabilities of 0 and 1 have no logit; float32 networks reach both.
SMALLEST_PROBABILITY = 1e-7
# Relative standard deviation of the weights' prior around equal weights. Log loss in a cross-validation
# inside the 180 default training subjects: 0.1892 at 0.5, 0.1883 at 1, 0.1880 at 2, 0.1912 at 8.
PRIOR_SPREAD = 1.0
# In percent, the coverages of conformal answers.
COVERAGES = np.arange(50, 100)
DEFAULT_COVERAGE = 0.9
# What `interpret` says of a probability.
INTERPRETATION = (
    "likelihood_ratio", "training_prevalence", "prevalence", "probability_at_prevalence",
    "answer", "coverage",
)  # fmt: skip
# Of the calibration, so that subjects keep their order if predictions say nothing out of fold.
SMALLEST_SLOPE = 0.01
# Gradient at which the fit of the weights stops; the loss is a sum over subjects.
TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class Pooling:
    """How slices become a calibrated probability.

    `weights`, (positions,), are of each slice `index`, for "position_weights"; in a scan without some
    positions the others share. The log-odds of AD are `intercept` + `slope` times the logit of the mean.
    """

    method: Aggregation = "mean_logit"
    weights: FloatArray | None = None
    slope: float = 1.0
    intercept: float = 0.0

    @classmethod
    def of(cls, document: "Mapping[str, Any]") -> "Pooling":
        """Return what `document` described."""
        weights = document["weights"]
        return cls(**{**document, "weights": None if weights is None else np.array(weights, np.float64)})

    def document(self) -> dict[str, Any]:
        """Return the fields as JSON values, for ``pooling.json``."""
        return {**vars(self), "weights": None if self.weights is None else self.weights.tolist()}


def subject_probabilities(predictions: "pd.DataFrame", pooling: Pooling) -> "pd.DataFrame":
    """Average slices into scans, and scans into subjects.

    Returns a table of `subject`, `diagnosis` and `probability`, sorted by subject.
    """
    check_predictions(predictions)
    score = _score(predictions["probability"].to_numpy(np.float64), pooling.method)
    weight = _weight_of(predictions["index"].to_numpy(np.intp), pooling)
    keys = ["subject", "diagnosis", "scan"]
    parts = predictions[keys].assign(weighted=score * weight, weight=weight)
    scans = parts.groupby(keys, observed=True)[["weighted", "weight"]].sum()
    means = (scans["weighted"] / scans["weight"]).rename("probability")
    subjects = means.groupby(keys[:2], observed=True).mean().reset_index()
    subjects["probability"] = _probability(subjects["probability"].to_numpy(np.float64), pooling)
    return subjects


def pooled_probability(probability: FloatArray, pooling: Pooling) -> float:
    """Average the slices of one scan, in order of position."""
    weight = _weight_of(np.arange(probability.size), pooling)
    mean = np.atleast_1d(np.average(_score(probability, pooling.method), weights=weight))
    return float(_probability(mean, pooling)[0])


def slice_contributions(probability: FloatArray, pooling: Pooling) -> FloatArray:
    """Split one scan's log-odds of AD among its slices, (n,).

    They add up to the logit of `pooled_probability`: each is the slice's weight times its calibrated logit.
    The mean probability m is not linear in logits: p - 0.5 is scaled by logit(m) / (m - 0.5) instead.
    """
    weight = _weight_of(np.arange(probability.size), pooling)
    weight = weight / weight.sum()
    score = _score(probability, pooling.method)
    if pooling.method == "mean_probability":
        away = float(weight @ score) - 0.5
        # The slope of the logit at a half is 4.
        score = (score - 0.5) * (float(_logit(np.array([away + 0.5]))[0]) / away if away else 4.0)
    return np.asarray(weight * (pooling.slope * score + pooling.intercept), dtype=np.float64)


def fit_pooling(out_of_fold: "pd.DataFrame", method: Aggregation, *, positions: int) -> Pooling:
    """Fit position weights and calibration on out-of-fold predictions.

    Calibration is that of Platt (1999, Advances in Large Margin Classifiers): a logistic regression of the
    diagnosis on the pooled logit, subjects weighing the same, with his targets short of 0 and 1, so that
    perfectly separated subjects give finite odds. Without both diagnoses there is none.
    """
    from scipy.optimize import minimize

    weights = learn_position_weights(out_of_fold, positions=positions).round(9)
    pooling = Pooling(method, weights if method == "position_weights" else None)
    if out_of_fold["diagnosis"].nunique() < 2:
        return pooling
    subjects = subject_probabilities(out_of_fold, pooling)
    logit = _logit(subjects["probability"].to_numpy(np.float64))
    truth = (subjects["diagnosis"] == POSITIVE).to_numpy()
    target = np.where(truth, 1 - 1 / (truth.sum() + 2), 1 / ((~truth).sum() + 2))

    def objective(values: FloatArray) -> tuple[float, FloatArray]:
        odds = values[0] * logit + values[1]
        gap = 1 / (1 + np.exp(np.clip(-odds, -500, 500))) - target
        return float(np.sum(np.logaddexp(0, odds) - target * odds)), np.array([gap @ logit, gap.sum()])

    found = minimize(
        objective,
        np.array([1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(SMALLEST_SLOPE, None), (None, None)],
    )
    slope, intercept = (round(float(value), 9) for value in found.x)
    return replace(pooling, slope=slope, intercept=intercept)


def out_of_fold_quantiles(out_of_fold: "pd.DataFrame", pooling: Pooling) -> dict[str, Any] | None:
    """Quantiles that interpret a probability, from out-of-fold predictions.

    The nonconformity of a subject is 1 - the calibrated probability of its diagnosis. With n subjects of a
    diagnosis, the quantile at coverage c is their k-th smallest nonconformity, k = ceil((n + 1) c), or 1 if
    k > n: split conformal prediction by class (Mondrian; Vovk, Gammerman and Shafer 2005, Algorithmic
    Learning in a Random World). None without both diagnoses.
    """
    if out_of_fold["diagnosis"].nunique() < 2:
        return None
    subjects = subject_probabilities(out_of_fold, pooling)
    probability = subjects["probability"].to_numpy(np.float64)
    truth = (subjects["diagnosis"] == POSITIVE).to_numpy()
    scores = {POSITIVE: 1 - probability[truth], NEGATIVE: probability[~truth]}
    quantiles = {}
    for diagnosis, values in scores.items():
        rank = -(-(values.size + 1) * COVERAGES // 100)
        found = np.append(np.sort(values), 1.0)[np.minimum(rank - 1, values.size)]
        quantiles[diagnosis] = found.round(9).tolist()
    return {
        "prevalence": round(float(truth.mean()), 9),
        "coverage": DEFAULT_COVERAGE,
        "coverages": (COVERAGES / 100).tolist(),
        "quantiles": quantiles,
    }


def interpret(
    probability: float,
    reference: "Mapping[str, Any] | None",
    *,
    prevalence: float | None = None,
    coverage: float | None = None,
) -> dict[str, Any]:
    """Likelihood ratio, probability at a prevalence, and conformal answer.

    The likelihood ratio is the odds of AD over those in training. The answer is the one diagnosis that is not
    ruled out at `coverage` (0.5 to 0.99), if the likelihood ratio speaks for it, else "undecided". Defaults
    are those of `reference`, of `out_of_fold_quantiles`; all values are None without it.
    """
    if reference is None:
        return dict.fromkeys(INTERPRETATION)
    usual, level = reference["prevalence"], coverage or reference["coverage"]
    asked = prevalence or usual
    given, before, after = _logit(np.array([probability, usual, asked]))
    row = bisect_left(reference["coverages"], level)
    score = {POSITIVE: 1 - probability, NEGATIVE: probability}
    possible = [name for name, values in reference["quantiles"].items() if score[name] <= values[row]]
    likelier = POSITIVE if given > before else NEGATIVE if given < before else None
    values = (
        float(f"{np.exp(given - before):.4g}"),
        usual,
        asked,
        round(float(1 / (1 + np.exp(before - given - after))), 6),
        likelier if possible == [likelier] else "undecided",
        level,
    )
    return dict(zip(INTERPRETATION, values, strict=True))


def learn_position_weights(validation: "pd.DataFrame", *, positions: int) -> FloatArray:
    """Learn the weight of each position, (positions,).

    Non-negative logistic regression of the diagnosis on the slice logits of validation subjects, with a prior
    centred at the mean logit: with p `positions`, weights w_i and s = `PRIOR_SPREAD`, it minimises the log
    loss summed over subjects (diagnoses weigh the same) plus sum((p w_i - 1)^2) / (2 s^2), over w >= 0 and a
    free offset. That is convex. Calibration takes the place of the offset. The weights sum to 1, and are
    equal without both diagnoses.
    """
    from scipy.optimize import minimize

    even = np.full(positions, 1 / positions)
    if validation["diagnosis"].nunique() < 2:
        return even
    logits, truth = _subject_logits(validation, positions)
    sign = np.where(truth, 1.0, -1.0)
    share = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum()) * truth.size

    def objective(values: FloatArray) -> tuple[float, FloatArray]:
        weights, offset = values[:-1], values[-1]
        margin = sign * (logits @ weights + offset)
        loss = share @ np.logaddexp(0, -margin)
        slope = -share * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        away = positions * weights - 1
        prior = away @ away / (2 * PRIOR_SPREAD**2)
        gradient = logits.T @ slope + positions * away / PRIOR_SPREAD**2
        return float(loss + prior), np.append(gradient, slope.sum())

    bounds = [(0.0, None)] * positions + [(None, None)]
    options = {"gtol": TOLERANCE, "ftol": TOLERANCE**2, "maxiter": 10_000}
    found = minimize(
        objective, np.append(even, 0.0), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    weights = found.x[:-1]
    return np.asarray(weights / weights.sum() if weights.sum() > 0 else even, dtype=np.float64)


def check_predictions(predictions: "pd.DataFrame") -> None:
    """Refuse a predictions table that cannot be scored."""
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


def _subject_logits(
    validation: "pd.DataFrame", positions: int
) -> tuple[FloatArray, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
    """Mean logits, (subjects, positions), and (subjects,) True for AD.

    A missing position gets the mean of the subject's others.
    """
    check_predictions(validation)
    logit = _score(validation["probability"].to_numpy(np.float64), "mean_logit")
    table = validation.assign(logit=logit).pivot_table(
        index=["subject", "diagnosis"], columns="index", values="logit", observed=True
    )
    table = table.reindex(columns=range(positions))
    values = table.to_numpy(np.float64)
    mean = np.nanmean(values, axis=1, keepdims=True)
    truth = np.asarray(table.index.get_level_values("diagnosis") == POSITIVE)
    return np.where(np.isnan(values), mean, values), truth


def _weight_of(index: "np.ndarray[tuple[int], np.dtype[np.intp]]", pooling: Pooling) -> FloatArray:
    if pooling.method != "position_weights":
        return np.ones(index.size)
    weights = pooling.weights
    if weights is None:
        raise ValueError("a Pooling by position_weights needs `weights`. Received: weights=None")
    if index.size and index.max() >= weights.size:
        raise InputError(
            f"position weights: required one for each of {index.max() + 1} positions; received "
            f"{weights.size}: run evaluate again"
        )
    # A scan that has only positions of weight 0 gets their plain mean.
    return np.maximum(weights[index], SMALLEST_PROBABILITY / weights.size)


def _score(probability: FloatArray, method: Aggregation) -> FloatArray:
    return probability if method == "mean_probability" else _logit(probability)


def _logit(probability: FloatArray) -> FloatArray:
    inside = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(inside) - np.log1p(-inside), dtype=np.float64)


def _probability(score: FloatArray, pooling: Pooling) -> FloatArray:
    """Undo `_score`, and calibrate."""
    logit = _logit(score) if pooling.method == "mean_probability" else score
    return np.asarray(1 / (1 + np.exp(-(pooling.slope * logit + pooling.intercept))), dtype=np.float64)
