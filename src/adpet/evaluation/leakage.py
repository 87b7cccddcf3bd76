"""Leakage test by label permutation, in four arms.

The arms are two splits (by subject, by slice) with true and with shuffled labels. A slice split lets the
network recognise subjects. With true labels part of its lead over the subject split is honest; with
shuffled labels only recognition is left to learn, and new subjects must be at chance.

An arm's table has one row a slice: `scan`, `index`, `subject`, `diagnosis` (the label of the arm) and `part`
("train" or "test").
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from adpet.cohort.scans import DIAGNOSES
from adpet.cohort.splits import TEST, assign_slices, check_disjoint, split_by_slice, split_by_subject
from adpet.evaluation import bootstrap
from adpet.evaluation.aggregation import POSITIVE, Pooling
from adpet.evaluation.bootstrap import FloatArray
from adpet.evaluation.metrics import DEFAULT_THRESHOLD, bootstrap_intervals

SUBJECT_SPLIT: Final = "subject_split"
SLICE_SPLIT: Final = "slice_split"
SUBJECT_SPLIT_SHUFFLED: Final = "subject_split_shuffled"
SLICE_SPLIT_SHUFFLED: Final = "slice_split_shuffled"
ARMS: Final = (SUBJECT_SPLIT, SLICE_SPLIT, SUBJECT_SPLIT_SHUFFLED, SLICE_SPLIT_SHUFFLED)

# Pairs of arms whose difference is the gain of the slice split.
GAPS: Final = {
    "true_labels": (SLICE_SPLIT, SUBJECT_SPLIT),
    "shuffled_labels": (SLICE_SPLIT_SHUFFLED, SUBJECT_SPLIT_SHUFFLED),
}

CLEAN, INVALID, INCONCLUSIVE = "clean", "invalid", "inconclusive"

# A network that cannot fit shuffled labels cannot memorise subjects, and would miss a leak.
MIN_FITTED: Final = 0.95
# Significance level: one honest test in a hundred is called invalid.
CHANCE_LEVEL: Final = 0.01
RELABELLINGS: Final = 10_000


def leakage_subjects(subjects: pd.DataFrame, *, most: int, seed: int) -> pd.DataFrame:
    """Draw at most `most` subjects, balanced by diagnosis, in order."""
    rng = np.random.default_rng(seed)
    ordered = subjects.sort_values("subject", ignore_index=True)
    groups = [np.flatnonzero(ordered["diagnosis"] == diagnosis) for diagnosis in DIAGNOSES]
    count = min(most // len(groups), *(group.size for group in groups))
    drawn = np.concatenate([rng.permutation(group)[:count] for group in groups])
    return ordered.iloc[np.sort(drawn)].reset_index(drop=True)


def shuffled_labels(subjects: pd.DataFrame, *, seed: int) -> dict[str, str]:
    """Return a label for each subject, independent of the diagnosis.

    Within each part one half of each diagnosis is labelled AD and the other CN, at random; odd numbers keep
    the part balanced. A plain permutation would agree with the truth in small groups by chance.
    """
    rng = np.random.default_rng(seed)
    labels: dict[str, str] = {}
    for _, part in subjects.sort_values("subject").groupby("part", sort=True):
        turn = int(rng.integers(2))
        for _, group in part.groupby("diagnosis", sort=True):
            drawn = [DIAGNOSES[(turn + place) % 2] for place in range(len(group))]
            labels |= dict(zip(rng.permutation(group["subject"].to_numpy()), drawn, strict=True))
            turn += len(group)
    return labels


def leakage_arms(
    slices: pd.DataFrame, subjects: pd.DataFrame, *, test_fraction: float, seed: int
) -> dict[str, pd.DataFrame]:
    """Return the four arms, split as the cohort is.

    `slices` has `scan`, `index`, `subject`, `diagnosis`; `subjects` a row each of `subject`, `diagnosis`,
    `age`, `sex`. Of few subjects, one of each diagnosis is tested, whatever `test_fraction` says.
    """
    test_fraction = max(test_fraction, 1 / max(2, subjects["diagnosis"].value_counts().min()))
    parts = split_by_subject(subjects, test_fraction=test_fraction, folds=0, seed=seed)
    by_subject = assign_slices(slices, slices.drop_duplicates("scan"), parts)
    check_disjoint(by_subject)
    by_slice = split_by_slice(slices, test_fraction=test_fraction, folds=0, seed=seed)
    labels = shuffled_labels(parts, seed=seed)
    return {
        SUBJECT_SPLIT: by_subject,
        SLICE_SPLIT: by_slice,
        SUBJECT_SPLIT_SHUFFLED: by_subject.assign(diagnosis=by_subject["subject"].map(labels)),
        SLICE_SPLIT_SHUFFLED: by_slice.assign(diagnosis=by_slice["subject"].map(labels)),
    }


def leakage_test(
    predictions: Mapping[str, pd.DataFrame], truth: Mapping[str, str], *, seed: int, resamples: int
) -> dict[str, Any]:
    """Return the result of the leakage test.

    `predictions` are the tables of `ARMS` with `probability`; `truth` is the true diagnosis of each subject.
    """
    options = {"seed": seed, "resamples": resamples}
    arms = {name: _arm(predictions[name], **options) for name in ARMS}
    held_out = _tested(predictions[SUBJECT_SPLIT_SHUFFLED])
    p, smallest = chance_test(held_out, truth, seed=seed)
    fitted = min(arms[name]["training_accuracy"] for name in GAPS["shuffled_labels"])
    return {
        **verdict(p=p, smallest_p=smallest, fitted=fitted),
        "chance": {"p": p, "smallest_p": smallest, "level": CHANCE_LEVEL},
        "gap": {
            labels: accuracy_gap(_tested(predictions[leaky]), _tested(predictions[honest]), **options)
            for labels, (leaky, honest) in GAPS.items()
        },
        "arms": arms,
    }


def verdict(*, p: float, smallest_p: float, fitted: float) -> dict[str, Any]:
    """Decide between clean, invalid and inconclusive.

    `p` and `smallest_p` are of `chance_test`, for new subjects with shuffled labels; `fitted` is the lower
    training accuracy of the two arms with shuffled labels.
    """
    valid = p >= CHANCE_LEVEL
    doubts = []
    if fitted < MIN_FITTED:
        doubts.append(
            f"the network never fitted the shuffled labels (training accuracy {fitted:.2f}, required "
            f"{MIN_FITTED}); raise leakage.epochs or leakage.alpha, or lower leakage.subjects"
        )
    if smallest_p >= CHANCE_LEVEL:
        doubts.append(
            f"too few subjects were tested to tell from chance (p cannot be below {smallest_p:.2g}, required "
            f"{CHANCE_LEVEL}); raise leakage.subjects or leakage.test_fraction"
        )
    if not valid:
        name = INVALID
        reason = (
            f"with shuffled labels new subjects are above chance (p = {p:.2g}): something tells the "
            "network their labels, or some subjects are the same person"
        )
    elif doubts:
        name, reason = INCONCLUSIVE, "; ".join(doubts)
    else:
        name, reason = CLEAN, f"with shuffled labels new subjects are at chance (p = {p:.2g})"
    return {"verdict": name, "valid": int(valid), "conclusive": int(not doubts), "reason": reason}


def chance_test(
    predictions: pd.DataFrame, truth: Mapping[str, str], *, seed: int, relabellings: int = RELABELLINGS
) -> tuple[float, float]:
    """Randomization test of the accuracy on new subjects, labels shuffled.

    The test subjects' labels are drawn again as `shuffled_labels` does, and compared with the same
    probabilities. If the network cannot know the labels every draw is equally likely, and p is exact however
    similar the slices of a subject are (Phipson and Smyth 2010, Stat Appl Genet Mol Biol 9:39).

    Parameters
    ----------
    predictions : DataFrame
        Of the test slices: `subject`, `diagnosis` (shuffled), `probability`.
    truth : mapping of str to str
        The true diagnosis of each subject.

    Returns
    -------
    p, smallest_p : float
        One-sided p, and its lowest possible value.
    """
    predicted = predictions.assign(predicted=predictions["probability"] >= DEFAULT_THRESHOLD)
    grouped = predicted.groupby("subject", sort=True)
    labelled = grouped["diagnosis"].first().to_numpy() == POSITIVE
    # Correct slices that a subject adds when labelled AD, over those as CN.
    gain = (2 * grouped["predicted"].sum() - grouped.size()).to_numpy(np.int64)
    true = np.array([truth[subject] == POSITIVE for subject in grouped.size().index])
    rng = np.random.default_rng(seed)
    drawn = np.zeros(relabellings, dtype=np.int64)
    draws = 1
    for group in (true, ~true):
        positives = int(labelled[group].sum())
        draws *= math.comb(int(group.sum()), positives)
        order = rng.permuted(np.tile(gain[group], (relabellings, 1)), axis=1)
        drawn += order[:, :positives].sum(axis=1)
    reached = int((drawn >= gain[labelled].sum()).sum())
    return (reached + 1) / (relabellings + 1), max(1 / draws, 1 / (relabellings + 1))


def accuracy_gap(leaky: pd.DataFrame, honest: pd.DataFrame, *, seed: int, resamples: int) -> dict[str, float]:
    """Return the accuracy difference of two arms, with interval.

    Per slice; arms are resampled independently, which is conservative for shared subjects.
    """
    first = _accuracies(leaky, seed=seed, resamples=resamples)
    second = _accuracies(honest, seed=seed + 1, resamples=resamples)
    value = first[0] - second[0]
    low, high = bootstrap.percentile_interval(first[1:] - second[1:])
    return {"value": float(value), "low": min(low, float(value)), "high": max(high, float(value))}


def _arm(predictions: pd.DataFrame, *, seed: int, resamples: int) -> dict[str, Any]:
    tested = _tested(predictions)
    training = predictions[predictions["part"] != TEST]
    right = (training["probability"] >= DEFAULT_THRESHOLD) == (training["diagnosis"] == POSITIVE)
    # One scan a subject: sessions are not needed.
    levels = bootstrap_intervals(
        tested.assign(session=""),
        pooling=Pooling(),
        threshold=DEFAULT_THRESHOLD,
        seed=seed,
        resamples=resamples,
    )
    return {
        **{level: {name: levels[level][name] for name in ("accuracy", "auc")} for level in levels},
        "training_accuracy": float(right.mean()),
        "training_subjects": int(training["subject"].nunique()),
        "training_slices": len(training),
        "test_subjects": int(tested["subject"].nunique()),
        "test_slices": len(tested),
        "shared_subjects": len(set(training["subject"]) & set(tested["subject"])),
    }


def _accuracies(predictions: pd.DataFrame, *, seed: int, resamples: int) -> FloatArray:
    """Return accuracy per slice: sample first, then resamples."""
    subjects = predictions.groupby("subject", sort=True)["diagnosis"].first()
    truth = subjects.to_numpy() == POSITIVE
    codes = subjects.index.get_indexer(pd.Index(predictions["subject"]))
    probability = predictions["probability"].to_numpy(np.float64)
    sums = bootstrap.subject_sums(truth, codes, probability, threshold=DEFAULT_THRESHOLD)
    drawn = bootstrap.subject_resamples(truth, resamples=resamples, seed=seed)
    counts = np.concatenate([np.ones((1, truth.size)), drawn])
    return bootstrap.resampled_metrics(sums, counts)["accuracy"]


def _tested(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["part"] == TEST]
