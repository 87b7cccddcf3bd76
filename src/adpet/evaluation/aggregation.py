"""From slices to a subject: what is averaged, and how much each position of a slice counts.

A predictions table has one row a slice with `scan`, `index`, `subject`, `session`, `diagnosis` ("AD" or
"CN"), `part` and `probability` (of AD). A baseline has one row a scan.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float64]
Aggregation = Literal["mean_probability", "mean_logit", "position_weights"]

POSITIVE, NEGATIVE = "AD", "CN"
PREDICTION_COLUMNS = ("scan", "index", "subject", "session", "diagnosis", "part", "probability")
# Probabilities of 0 and 1 have no logit; float32 networks reach both.
SMALLEST_PROBABILITY = 1e-7
# Before any subject is seen, a position's weight is believed to lie within so much of the equal one (one
# standard deviation, relative). Thirty subjects then move the weights a little, thousands freely.
PRIOR_SPREAD = 0.5
# The lowest gradient that the fit of the weights goes on for; the loss is a sum over subjects.
TOLERANCE = 1e-8


def subject_probabilities(
    predictions: "pd.DataFrame", *, aggregation: Aggregation, weights: FloatArray | None = None
) -> "pd.DataFrame":
    """Bring slices together into one probability a subject: over a scan's slices first, then over its scans.

    Parameters
    ----------
    predictions : DataFrame
    aggregation : {"mean_probability", "mean_logit", "position_weights"}
        What is averaged; a mean logit is turned back into a probability at the end.
    weights : (positions,) float64 ndarray, optional
        Of each slice `index`, for "position_weights". Where a scan lacks positions, the others share.

    Returns
    -------
    DataFrame
        `subject`, `diagnosis`, `probability`, sorted by subject.

    Raises
    ------
    InputError
        The table is empty, lacks a column, holds what is no probability, gives a subject two diagnoses, or
        has a slice at a position that has no weight.
    """
    check_predictions(predictions)
    score = _score(predictions["probability"].to_numpy(np.float64), aggregation)
    weight = _weight_of(predictions["index"].to_numpy(np.intp), aggregation, weights)
    keys = ["subject", "diagnosis", "scan"]
    parts = predictions[keys].assign(weighted=score * weight, weight=weight)
    scans = parts.groupby(keys, observed=True)[["weighted", "weight"]].sum()
    means = (scans["weighted"] / scans["weight"]).rename("probability")
    subjects = means.groupby(keys[:2], observed=True).mean().reset_index()
    subjects["probability"] = _probability(subjects["probability"].to_numpy(np.float64), aggregation)
    return subjects


def pooled_probability(
    probability: FloatArray, *, aggregation: Aggregation, weights: FloatArray | None = None
) -> float:
    """Bring the slices of one scan together, as `subject_probabilities` does.

    Parameters
    ----------
    probability : (slices,) float64 ndarray
        Of AD; the slices of all positions in order.
    aggregation : {"mean_probability", "mean_logit", "position_weights"}
    weights : (slices,) float64 ndarray, optional
    """
    weight = _weight_of(np.arange(probability.size), aggregation, weights)
    mean = np.atleast_1d(np.average(_score(probability, aggregation), weights=weight))
    return float(_probability(mean, aggregation)[0])


def learn_position_weights(validation: "pd.DataFrame", *, positions: int) -> FloatArray:
    """Learn how much each position counts, from subjects that the network was not fitted to.

    Non-negative logistic regression of the diagnosis on the slices' logits, its prior centred at the mean
    logit: with `positions` p, weight w_i of position i and SD `PRIOR_SPREAD` s, it minimises the log loss
    summed over subjects, diagnoses weighing the same, plus sum((p w_i - 1)^2) / (2 s^2), over w >= 0 and a
    free offset. That is convex, so the result is one; the weights are divided by their sum, and the offset
    is left to the threshold. With no subjects, or one diagnosis, weights are equal: the mean logit.

    Parameters
    ----------
    validation : DataFrame
        Predictions of validation subjects, never of those that are then reported.
    positions : int
        Slices of a whole scan.

    Returns
    -------
    (positions,) float64 ndarray
        Not negative, with the sum 1.
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
    """Refuse a table that no metric can be computed from."""
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
    """Return (subjects, positions) mean logits over a subject's scans, and who has AD.

    A position that a subject lacks gets the mean of the subject's others.
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


def _weight_of(
    index: "np.ndarray[tuple[int], np.dtype[np.intp]]", aggregation: Aggregation, weights: FloatArray | None
) -> FloatArray:
    """Return the weight of each slice by its position."""
    if aggregation != "position_weights":
        return np.ones(index.size)
    if weights is None:
        raise ValueError("`aggregation` position_weights needs `weights`. Received: weights=None")
    if index.size and index.max() >= weights.size:
        raise InputError(
            f"position weights: required one for each of {index.max() + 1} positions; received "
            f"{weights.size}: run evaluate again"
        )
    # A scan of which only positions without weight are there is averaged plainly.
    return np.maximum(weights[index], SMALLEST_PROBABILITY / weights.size)


def _score(probability: FloatArray, aggregation: Aggregation) -> FloatArray:
    """Return what is averaged."""
    if aggregation == "mean_probability":
        return probability
    inside = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.asarray(np.log(inside) - np.log1p(-inside), dtype=np.float64)


def _probability(score: FloatArray, aggregation: Aggregation) -> FloatArray:
    """Undo `_score`."""
    return score if aggregation == "mean_probability" else np.asarray(1 / (1 + np.exp(-score)))
