"""Cluster bootstrap and confidence intervals."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from adpet.evaluation import bootstrap
from adpet.evaluation.bootstrap import (
    STEEPEST,
    bins_for,
    calibration_lines,
    equal_mass_bins,
    exact_interval,
    metric_intervals,
    percentile_interval,
    resampled_metrics,
    subject_resamples,
    subject_sums,
)
from adpet.evaluation.metrics import classification_metrics


def _truth(n):
    return np.arange(2 * n) % 2 == 1


class TestResampledMetrics:
    @settings(max_examples=25)
    @given(seed=st.integers(0, 10_000), decimals=st.integers(0, 3))
    def test_resampled_metrics_equal_those_of_repeated_slices(self, seed, decimals):
        # Few decimals make many ties, within and between subjects.
        rng = np.random.default_rng(seed)
        truth = np.array([True, False, True, False, False, True])
        codes = np.sort(np.r_[np.arange(6), rng.integers(0, 6, size=20)])
        probability = rng.random(codes.size).round(decimals)
        counts = subject_resamples(truth, resamples=3, seed=seed)
        found = resampled_metrics(subject_sums(truth, codes, probability, threshold=0.4), counts)
        for number, row in enumerate(counts.astype(int)):
            drawn = np.concatenate([np.flatnonzero(codes == s) for s in np.repeat(np.arange(6), row)])
            expected = truth[codes[drawn]], probability[drawn]
            # The bins of a resample are those of the whole sample.
            own = classification_metrics(*expected, threshold=0.4)
            for name in own.keys() - {"calibration_error"}:
                assert found[name][number] == pytest.approx(own[name])
            bins = equal_mass_bins(probability, bins=bins_for(6))[drawn]
            gaps = [(expected[1] - expected[0])[bins == code].sum() for code in range(2)]
            assert found["calibration_error"][number] == pytest.approx(np.abs(gaps).sum() / drawn.size)

    def test_blocks_of_resamples_change_nothing(self, monkeypatch):
        rng, truth = np.random.default_rng(0), _truth(12)
        sums = subject_sums(truth, np.arange(24), rng.random(24).round(1), threshold=0.5)
        counts = subject_resamples(truth, resamples=50, seed=0)
        whole = resampled_metrics(sums, counts)["auc"], calibration_lines(sums, counts)
        monkeypatch.setattr(bootstrap, "BLOCK", 7 * 24)
        np.testing.assert_array_equal(resampled_metrics(sums, counts)["auc"], whole[0])
        for name, values in calibration_lines(sums, counts).items():
            np.testing.assert_allclose(values, whole[1][name], rtol=1e-6)


class TestCalibrationLines:
    def line(self, truth, logit, counts=None):
        sums = subject_sums(truth, np.arange(truth.size), 1 / (1 + np.exp(-logit)), threshold=0.5)
        counts = np.ones((1, truth.size)) if counts is None else counts
        return np.column_stack(list(calibration_lines(sums, counts).values()))

    def test_line_has_the_largest_penalised_likelihood(self):
        rng, truth = np.random.default_rng(0), _truth(15)
        logit = rng.normal(size=30) + 2 * truth - 0.5
        counts = subject_resamples(truth, resamples=4, seed=0)

        def loss(values, count):
            fitted = 1 / (1 + np.exp(-(values[1] + values[0] * logit)))
            weight, design = count * fitted * (1 - fitted), np.column_stack([np.ones(30), logit])
            information = (design.T * weight) @ design
            return (
                -count @ np.log(np.where(truth, fitted, 1 - fitted)) - np.linalg.slogdet(information)[1] / 2
            )

        for count, found in zip(counts, self.line(truth, logit, counts), strict=True):
            best = minimize(
                loss, [1, 0], args=(count,), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10}
            )
            assert found == pytest.approx(best.x, abs=1e-4)

    def test_many_calibrated_subjects_have_slope_1_and_bolder_or_shifted_ones_do_not(self):
        rng = np.random.default_rng(1)
        logit = rng.normal(size=20_000) * 1.5
        truth = rng.random(logit.size) < 1 / (1 + np.exp(-logit))
        for told, expected in ((logit, (1, 0)), (4 * logit, (0.25, 0)), (logit / 2 + 1, (2, -2))):
            assert self.line(truth, told)[0] == pytest.approx(expected, abs=0.12)

    @pytest.mark.parametrize("spread", [0.0, 0.01, 3.0, 15.0])
    def test_separable_and_constant_probabilities_have_a_finite_line(self, spread):
        truth = _truth(10)
        found = self.line(truth, spread * (truth - 0.3), subject_resamples(truth, resamples=50, seed=0))
        assert np.isfinite(found).all()
        assert (found[:, 0] > 0).all() == (spread > 0)

    def test_slope_interval_of_separated_subjects_has_no_upper_limit(self):
        truth = _truth(10)
        sums = subject_sums(truth, np.arange(20), np.where(truth, 0.9, 0.1), threshold=0.5)
        found = metric_intervals(sums, subject_resamples(truth, resamples=50, seed=0))["calibration_slope"]
        assert found[0] < 1 < found[1] == STEEPEST


def test_interval_of_perfect_scores_matches_published_bounds():
    truth = _truth(18)
    sums = subject_sums(truth, np.arange(36), truth * 0.8 + 0.1, threshold=0.5)
    found = metric_intervals(sums, subject_resamples(truth, resamples=300, seed=0))
    # Clopper-Pearson with no failures: 0.025 ** (1 / n).
    assert found["sensitivity"] == pytest.approx((0.025 ** (1 / 18), 1))
    assert found["accuracy"] == pytest.approx((0.025 ** (1 / 36), 1))
    below = (1 - 0.025 ** (1 / 18)) / np.sqrt(2)
    assert found["balanced_accuracy"] == pytest.approx((1 - below, 1))


def test_exact_interval_matches_a_published_example():
    # 4 of 20: Clopper-Pearson 95 % is 0.0573 to 0.4366.
    assert exact_interval(0.2, n=20) == pytest.approx((0.0573, 0.4366), abs=1e-4)


def test_auc_interval_covers_the_truth_where_plain_bootstrap_fails():
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
