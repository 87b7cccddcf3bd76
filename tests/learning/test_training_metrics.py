from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from adpet.learning.data import SliceRef
from adpet.learning.training import is_better, roc_auc, validation_metrics

NAN = float("nan")


def refs_of(*subjects_and_labels):
    return [SliceRef(Path("scan.npy"), 0, label, subject) for subject, label in subjects_and_labels]


def test_a_subjects_probability_is_the_mean_over_their_slices():
    refs = refs_of(("a", "AD"), ("a", "AD"), ("b", "CN"))
    metrics = validation_metrics([0.9, 0.3, 0.2], refs)
    assert metrics["val_subject_log_loss"] == pytest.approx(-(np.log(0.6) + np.log(0.8)) / 2)
    assert metrics["val_loss"] == pytest.approx(-(np.log(0.9) + np.log(0.3) + np.log(0.8)) / 3)
    assert metrics["val_accuracy"] == pytest.approx(2 / 3)
    assert metrics["val_subject_auc"] == 1


def test_a_subject_with_two_diagnoses_counts_for_each():
    metrics = validation_metrics([0.8, 0.2], refs_of(("a", "AD"), ("a", "CN")))
    assert metrics["val_subject_auc"] == 1


def test_a_certain_error_costs_a_finite_loss():
    assert np.isfinite(validation_metrics([0.0], refs_of(("a", "AD")))["val_loss"])


def test_one_class_alone_has_no_auc():
    assert np.isnan(validation_metrics([0.5], refs_of(("a", "AD")))["val_subject_auc"])


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=50)
def test_auc_equals_sklearns_with_ties(pairs):
    score = np.array([value for value, _ in pairs], dtype=float)
    positive = np.array([flag for _, flag in pairs])
    if positive.all() or not positive.any():
        assert np.isnan(roc_auc(score, positive))
    else:
        assert roc_auc(score, positive) == pytest.approx(roc_auc_score(positive, score))


@pytest.mark.parametrize(
    ("value", "best", "monitor", "expected"),
    [
        (0.4, 0.5, "val_loss", True),
        (0.6, 0.5, "val_loss", False),
        (0.6, 0.5, "val_subject_auc", True),
        (0.4, 0.5, "val_accuracy", False),
        (0.5, 0.5, "val_loss", False),
        (0.5, 0.5, "val_accuracy", False),
        (NAN, 0.5, "val_loss", False),
        (0.5, NAN, "val_loss", True),
        (NAN, NAN, "val_loss", False),
    ],
)
def test_better_is_less_loss_or_more_accuracy_and_never_nan(value, best, monitor, expected):
    assert is_better(value, best, monitor) is expected
