"""Resamples: as if whole subjects were really repeated, at a price that does not depend on their slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from adpet.evaluation.bootstrap import (
    LEVELS,
    bins_for,
    equal_mass_bins,
    resampled_metrics,
    subject_resamples,
    subject_sums,
)


def _truth(n):
    return np.arange(2 * n) % 2 == 1


class TestResamples:
    def test_keep_the_size_of_each_group(self):
        truth = np.array([True, False, False, True, False])
        counts = subject_resamples(truth, resamples=50, seed=1)
        assert (counts[:, truth].sum(axis=1) == 2).all()
        assert (counts[:, ~truth].sum(axis=1) == 3).all()

    def test_are_the_same_for_the_same_seed_only(self):
        first, again, other = (subject_resamples(_truth(9), resamples=20, seed=s) for s in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


class TestResampledMetrics:
    @settings(max_examples=25)
    @given(seed=st.integers(0, 10_000), decimals=st.integers(0, 3))
    def test_equal_metrics_of_slices_that_are_really_repeated(self, seed, decimals):
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
            assert found["auc"][number] == pytest.approx(roc_auc_score(*expected))
            right = (expected[1] >= 0.4) == expected[0]
            assert found["accuracy"][number] == pytest.approx(right.mean())
            assert found["sensitivity"][number] == pytest.approx(right[expected[0]].mean())
            assert found["specificity"][number] == pytest.approx(right[~expected[0]].mean())
            assert found["brier"][number] == pytest.approx(((expected[1] - expected[0]) ** 2).mean())
            average = average_precision_score(*expected)
            assert found["average_precision"][number] == pytest.approx(average)
            bins = equal_mass_bins(probability, bins=bins_for(6))[drawn]
            gaps = [(expected[1] - expected[0])[bins == code].sum() for code in range(2)]
            assert found["calibration_error"][number] == pytest.approx(np.abs(gaps).sum() / drawn.size)

    def test_do_not_depend_on_the_order_of_slices(self):
        rng = np.random.default_rng(0)
        codes, probability = np.repeat(np.arange(8), 5), rng.random(40)
        shuffled = rng.permutation(40)
        ones = np.ones((1, 8))
        straight = resampled_metrics(subject_sums(_truth(4), codes, probability, threshold=0.5), ones)
        mixed = resampled_metrics(
            subject_sums(_truth(4), codes[shuffled], probability[shuffled], threshold=0.5), ones
        )
        assert straight["auc"] == pytest.approx(mixed["auc"])

    def test_thousands_of_scores_are_thinned_without_being_seen(self):
        rng = np.random.default_rng(0)
        truth, codes = _truth(20), np.repeat(np.arange(40), 500)
        probability = 1 / (1 + np.exp(-rng.normal(size=20_000) - truth[codes]))
        sums = subject_sums(truth, codes, probability, threshold=0.5)
        assert sums.at_or_above.shape == (40, LEVELS)
        thinned = resampled_metrics(sums, np.ones((1, 40)))["average_precision"][0]
        assert thinned == pytest.approx(average_precision_score(truth[codes], probability), abs=1e-3)
