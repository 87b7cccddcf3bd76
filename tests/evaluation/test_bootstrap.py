"""Cluster bootstrap and confidence intervals."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.evaluation.bootstrap import (
    bins_for,
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
