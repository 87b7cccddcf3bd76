"""Calibration: bins that hold alike, and an error that is nought where probabilities are true."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.evaluation.bootstrap import bins_for, equal_mass_bins
from adpet.evaluation.metrics import calibration_error, calibration_table


def test_bins_hold_the_same_number_of_scores():
    codes = equal_mass_bins(np.random.default_rng(0).random(100), bins=5)
    assert np.bincount(codes).tolist() == [20] * 5


@given(st.integers(0, 10_000))
def test_a_bin_is_for_ten_subjects_and_there_are_two_to_ten(subjects):
    bins = bins_for(subjects)
    assert 2 <= bins <= 10
    assert bins == 2 or bins * 10 <= subjects


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=30))
def test_equal_scores_share_a_bin(scores):
    probability = np.array(scores)
    codes = equal_mass_bins(probability, bins=4)
    for score in set(scores):
        assert len(set(codes[probability == score])) == 1


def test_error_is_the_mean_distance_that_can_be_counted_by_hand():
    truth = np.array([False, False, True, True])
    probability = np.array([0.1, 0.3, 0.6, 0.8])
    # Bins of two: mean 0.2 against 0 of 2, mean 0.7 against 2 of 2.
    assert calibration_error(truth, probability, bins=2) == pytest.approx((0.2 + 0.3) / 2)


def test_true_probabilities_have_nearly_no_error_and_overconfident_ones_have():
    rng = np.random.default_rng(1)
    probability = rng.random(20_000)
    truth = rng.random(20_000) < probability
    sure = probability**4 / (probability**4 + (1 - probability) ** 4)
    assert calibration_error(truth, probability, bins=10) < 0.02
    assert calibration_error(truth, sure, bins=10) > 0.1


def test_table_counts_every_subject_once_and_agrees_with_the_error():
    rng = np.random.default_rng(2)
    probability = rng.random(53)
    truth = rng.random(53) < 0.5
    table = calibration_table(truth, probability, bins=5, independent=True)
    assert table["n"].sum() == 53
    error = (table["n"] * (table["probability"] - table["observed"]).abs()).sum() / 53
    assert error == pytest.approx(calibration_error(truth, probability, bins=5))
