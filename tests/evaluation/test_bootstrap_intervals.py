"""Intervals: they hold what they should, and do not pretend to know more than the subjects can tell."""

from statistics import NormalDist

import numpy as np
import pytest

from adpet.evaluation.bootstrap import (
    exact_interval,
    metric_intervals,
    percentile_interval,
    resampled_metrics,
    score_interval_auc,
    subject_resamples,
    subject_sums,
)


def _truth(n):
    return np.arange(2 * n) % 2 == 1


class TestPerfectScores:
    def _intervals(self, n):
        truth = _truth(n)
        sums = subject_sums(truth, np.arange(2 * n), truth * 0.8 + 0.1, threshold=0.5)
        return metric_intervals(sums, subject_resamples(truth, resamples=300, seed=0))

    @pytest.mark.parametrize("name", ["auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity"])
    def test_leave_room_below_one_and_less_with_more_subjects(self, name):
        few, many = self._intervals(10)[name], self._intervals(100)[name]
        assert few[1] == many[1] == 1
        assert 0.6 < few[0] < many[0] < 1

    def test_of_18_and_18_subjects_give_the_published_bounds(self):
        found = self._intervals(18)
        # Clopper-Pearson with no failures: 0.025 ** (1 / n).
        assert found["sensitivity"][0] == pytest.approx(0.025 ** (1 / 18))
        assert found["accuracy"][0] == pytest.approx(0.025 ** (1 / 36))
        below = (1 - 0.025 ** (1 / 18)) / np.sqrt(2)
        assert found["balanced_accuracy"][0] == pytest.approx(1 - below)

    def test_all_wrong_leave_room_above_nought(self):
        truth = _truth(10)
        sums = subject_sums(truth, np.arange(20), 1.0 - truth, threshold=0.5)
        low, high = metric_intervals(sums, subject_resamples(truth, resamples=300, seed=0))["auc"]
        assert low == 0
        assert 0 < high < 0.4


class TestScoreInterval:
    @pytest.mark.parametrize("auc", [0.0, 0.3, 0.5, 0.8, 0.99, 1.0])
    def test_ends_where_the_distance_is_z_standard_errors(self, auc):
        n_ad, n_cn = 14, 22
        for end in score_interval_auc(auc, n_ad=n_ad, n_cn=n_cn):
            assert 0 <= end <= 1
            if end in (0.0, 1.0):
                assert end == auc
                continue
            # Hanley and McNeil's variance in its own terms, with the mean group size for both freedoms.
            q1, q2, freedom = end / (2 - end), 2 * end**2 / (1 + end), 17
            variance = end * (1 - end) + freedom * (q1 - end**2) + freedom * (q2 - end**2)
            assert abs(auc - end) == pytest.approx(1.959964 * np.sqrt(variance / (n_ad * n_cn)), rel=1e-5)

    def test_mirrors_when_the_groups_are_exchanged(self):
        low, high = score_interval_auc(0.9, n_ad=20, n_cn=20)
        assert score_interval_auc(0.1, n_ad=20, n_cn=20) == pytest.approx((1 - high, 1 - low))


class TestExactInterval:
    def test_equals_a_published_example(self):
        # 4 of 20: Clopper-Pearson 95 % is 0.0573 to 0.4366.
        assert exact_interval(0.2, n=20) == pytest.approx((0.0573, 0.4366), abs=1e-4)

    def test_reaches_the_ends(self):
        assert exact_interval(0.0, n=10)[0] == 0
        assert exact_interval(1.0, n=10)[1] == 1


def test_intervals_of_a_strong_classifier_hold_the_truth_where_plain_resampling_fails():
    n, auc, studies = 18, 0.98, 150
    truth = _truth(n)
    shift = np.sqrt(2) * NormalDist().inv_cdf(auc)
    counts = subject_resamples(truth, resamples=500, seed=1)
    rng = np.random.default_rng(0)
    held = plain = 0
    for _ in range(studies):
        scores = rng.normal(size=2 * n) + truth * shift
        sums = subject_sums(truth, np.arange(2 * n), scores, threshold=shift / 2)
        low, high = metric_intervals(sums, counts)["auc"]
        held += low <= auc <= high
        low, high = percentile_interval(resampled_metrics(sums, counts)["auc"])
        plain += low <= auc <= high
    assert held >= 0.95 * studies
    assert plain < 0.85 * studies
