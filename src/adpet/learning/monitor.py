"""How well a network does on validation slices, by slice and by subject; NumPy only.

Probabilities are those of AD, the positive class.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from adpet.learning.dataset import SliceRef

Monitor = Literal["val_loss", "val_accuracy", "val_subject_log_loss", "val_subject_auc"]

# The monitors of which more is better; of the others less is.
RISING = ("val_accuracy", "val_subject_auc")

# A probability of AD above this is called AD.
THRESHOLD = 0.5

# Probabilities are held this far from 0 and 1, so that one certain error does not cost infinity.
CLIP = 1e-7


def validation_metrics(probability: npt.ArrayLike, refs: Sequence[SliceRef]) -> dict[str, float]:
    """Return the four monitors for the probabilities of AD, (n,), of the slices `refs`.

    A subject's probability is the mean over their slices; a subject whose diagnosis changed
    between visits counts once for each diagnosis. The area under the ROC curve is NaN where
    only one class is present.
    """
    p = np.asarray(probability, dtype=np.float64)
    is_ad = np.array([ref.label == "AD" for ref in refs])
    keys = {key: number for number, key in enumerate(dict.fromkeys((r.subject, r.label) for r in refs))}
    owner = np.array([keys[ref.subject, ref.label] for ref in refs])
    subject_p = np.bincount(owner, weights=p) / np.bincount(owner)
    subject_is_ad = np.array([label == "AD" for _, label in keys])
    return {
        "val_loss": log_loss(p, is_ad),
        "val_accuracy": float(np.mean((p > THRESHOLD) == is_ad)),
        "val_subject_log_loss": log_loss(subject_p, subject_is_ad),
        "val_subject_auc": roc_auc(subject_p, subject_is_ad),
    }


def log_loss(probability: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the mean cross-entropy, in nats, of probabilities of the positive class."""
    p = np.clip(probability, CLIP, 1 - CLIP)
    return float(-np.mean(np.log(np.where(positive, p, 1 - p))))


def roc_auc(score: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: the Mann-Whitney U of mean ranks, over its maximum."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    u = rank[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(u / (n_positive * n_negative))


def is_better(value: float, best: float, monitor: Monitor) -> bool:
    """Say whether `value` beats `best`; a number beats NaN, an equal value does not win."""
    if np.isnan(value) or np.isnan(best):
        return bool(np.isnan(best) and not np.isnan(value))
    return value > best if monitor in RISING else value < best
