"""Aggregation of slices into subjects, and learned position weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from adpet.errors import InputError
from adpet.evaluation.aggregation import (
    Pooling,
    fit_pooling,
    interpret,
    learn_position_weights,
    out_of_fold_quantiles,
    pooled_probability,
    slice_contributions,
    subject_probabilities,
)


class TestSubjectProbabilities:
    def test_scan_counts_once_regardless_of_its_slices(self, make_predictions):
        table = make_predictions(subjects=2, slices=4, visits=2)
        table = table.drop(index=table.index[1:4])  # the first subject's first scan keeps one slice
        table["probability"] = np.r_[0.8, [0.2] * 4, [0.5] * 8]
        first = subject_probabilities(table, Pooling("mean_probability"))["probability"].iloc[0]
        assert first == pytest.approx((0.8 + 0.2) / 2)

    def test_mean_logit_is_a_geometric_mean_of_odds(self, make_predictions):
        table = make_predictions(subjects=2, slices=2)
        table["probability"] = [0.9, 0.5, 0.5, 0.5]
        first = subject_probabilities(table, Pooling("mean_logit"))["probability"].iloc[0]
        assert first / (1 - first) == pytest.approx(math.sqrt(9 * 1))

    @pytest.mark.parametrize("aggregation", ["mean_probability", "mean_logit", "position_weights"])
    def test_single_scan_is_aggregated_as_in_a_cohort(self, make_predictions, aggregation):
        table = make_predictions(subjects=3)
        pooling = Pooling(aggregation, np.arange(16.0) / 120, slope=1.5, intercept=-0.5)
        cohort = subject_probabilities(table, pooling)["probability"]
        for subject, (_, scan) in enumerate(table.groupby("scan")):
            alone = pooled_probability(scan["probability"].to_numpy(), pooling)
            assert alone == pytest.approx(cohort[subject])
            parts = slice_contributions(scan["probability"].to_numpy(), pooling)
            assert parts.sum() == pytest.approx(math.log(alone / (1 - alone)))

    @pytest.mark.parametrize("aggregation", ["mean_probability", "mean_logit"])
    def test_probabilities_of_0_and_1_stay_finite(self, make_predictions, aggregation):
        table = make_predictions(subjects=4).assign(probability=lambda t: (t["diagnosis"] == "AD") * 1.0)
        result = subject_probabilities(table, Pooling(aggregation))
        assert np.isfinite(result["probability"]).all()
        assert ((result["probability"] > 0.5) == (result["diagnosis"] == "AD")).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda t: t.drop(columns="probability"), "needs the columns probability"),
            (lambda t: t.head(0), "at least one row"),
            (lambda t: t.assign(probability=np.nan), "0 to 1; scan sub-0000_ses-1"),
            (lambda t: t.assign(probability=1.5), "0 to 1"),
            (lambda t: t.assign(diagnosis="MCI"), "AD or CN; received MCI"),
            (lambda t: t.assign(subject="one"), "one has two"),
        ],
    )
    def test_malformed_table_is_refused(self, make_predictions, change, message):
        with pytest.raises(InputError, match=message) as refusal:
            subject_probabilities(change(make_predictions(subjects=4)), Pooling())
        assert "\n" not in str(refusal.value)


class TestWeightedPositions:
    def test_missing_position_leaves_its_weight_to_the_others(self, make_predictions):
        table = make_predictions(subjects=2, slices=3)
        table["probability"] = [0.9, 0.5, 0.5, 0.5, 0.5, 0.5]
        table = table.drop(index=2)
        weights = np.array([0.25, 0.25, 0.5])
        found = subject_probabilities(table, Pooling("position_weights", weights))
        odds = found["probability"].iloc[0] / (1 - found["probability"].iloc[0])
        assert odds == pytest.approx(math.sqrt(9))


class TestLearningWeights:
    def _blind_at(self, make_predictions, blind, **options):
        """Predictions of which the slices at `blind` positions say nothing."""
        table = make_predictions(slices=8, **options)
        rng = np.random.default_rng(5)
        worthless = table["index"].isin(blind)
        logits = rng.normal(scale=2.0, size=int(worthless.sum()))
        table.loc[worthless, "probability"] = 1 / (1 + np.exp(-logits))
        return table

    def test_learned_weights_raise_the_auc_of_other_subjects(self, make_predictions):
        blind = [0, 1, 2, 7]
        table = self._blind_at(make_predictions, blind, subjects=200, seed=1, separation=1.5)
        other = self._blind_at(make_predictions, blind, subjects=400, seed=2, separation=1.5)
        weights = learn_position_weights(table, positions=8)
        learned = subject_probabilities(other, Pooling("position_weights", weights))
        plain = subject_probabilities(other, Pooling("mean_logit"))
        auc = [roc_auc_score(t["diagnosis"] == "AD", t["probability"]) for t in (learned, plain)]
        assert auc[0] > auc[1]

    @settings(max_examples=20)
    @given(seed=st.integers(0, 1_000), subjects=st.integers(2, 12), separation=st.floats(2, 30))
    def test_weights_of_few_separable_subjects_stay_near_equal(
        self, make_predictions, seed, subjects, separation
    ):
        table = make_predictions(subjects=subjects, slices=5, seed=seed, separation=separation)
        weights = learn_position_weights(table, positions=5)
        assert (weights >= 0).all()
        assert weights.sum() == pytest.approx(1)
        assert np.abs(weights - 0.2).max() < 0.4

    def test_weights_are_equal_without_both_diagnoses(self, make_predictions):
        table = make_predictions(slices=4)
        for some in (table.head(0), table[table["diagnosis"] == "AD"]):
            assert learn_position_weights(some, positions=4).tolist() == [0.25] * 4


class TestCalibration:
    @pytest.mark.parametrize("method", ["mean_probability", "mean_logit", "position_weights"])
    def test_shrunken_logits_become_calibrated_on_other_subjects(self, make_predictions, method):
        table, other = (
            make_predictions(subjects=800, seed=seed, separation=0.5, within=0.2) for seed in (1, 2)
        )
        pooling = fit_pooling(table, method, positions=16)
        before = subject_probabilities(other, Pooling(method, pooling.weights))
        after = subject_probabilities(other, pooling)
        truth = after["diagnosis"] == "AD"
        assert log_loss(truth, after["probability"]) < log_loss(truth, before["probability"])
        # Two normal distributions of this distance and width have this log-odds per logit.
        assert pooling.slope == pytest.approx(0.5, abs=0.25)

    def test_separated_subjects_keep_finite_odds(self, make_predictions):
        pooling = fit_pooling(make_predictions(subjects=8, separation=50.0), "mean_logit", positions=16)
        assert 0 < pooling.slope < 10

    def test_nothing_is_calibrated_without_both_diagnoses(self, make_predictions):
        pooling = fit_pooling(make_predictions().head(0), "mean_logit", positions=16)
        assert (pooling.slope, pooling.intercept) == (1.0, 0.0)

    def test_document_describes_the_same_pooling(self):
        pooling = Pooling("position_weights", np.array([0.25, 0.75]), slope=2.0, intercept=0.1)
        assert Pooling.of(pooling.document()).document() == pooling.document()


class TestInterpretation:
    @pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
    def test_quantiles_cover_new_subjects_of_each_diagnosis_exactly(self, make_predictions, coverage):
        covered = []
        for seed in range(200):
            table = make_predictions(subjects=80, slices=1, seed=seed)
            found = out_of_fold_quantiles(table[:40], Pooling())
            row = found["coverages"].index(coverage)
            for name, fresh in table[40:].groupby("diagnosis"):
                score = 1 - fresh["probability"] if name == "AD" else fresh["probability"]
                covered.append((score <= found["quantiles"][name][row]).mean())
        error = np.std(covered, ddof=1) / math.sqrt(len(covered))
        # Twenty subjects of a diagnosis have 21 gaps between and around them.
        assert np.mean(covered) == pytest.approx(math.ceil(21 * coverage) / 21, abs=3 * error)

    @pytest.mark.parametrize(
        ("probability", "quantiles", "answer"),
        [
            (0.7, (0.4, 0.6), "AD"),
            (0.3, (0.6, 0.4), "CN"),
            (0.7, (0.4, 0.8), "undecided"),
            (0.7, (0.2, 0.6), "undecided"),
            # What alone is left is the less likely diagnosis.
            (0.7, (0.2, 0.8), "undecided"),
            (0.3, (0.8, 0.2), "undecided"),
            # The scan says nothing.
            (0.5, (0.6, 0.4), "undecided"),
            (0.5, (0.4, 0.6), "undecided"),
        ],
    )
    def test_answer_is_the_likelier_diagnosis_if_the_other_is_ruled_out(self, probability, quantiles, answer):
        assert interpret(probability, reference(*quantiles))["answer"] == answer

    @given(probability=st.floats(0, 1), usual=st.floats(0.01, 0.99), asked=st.floats(0.01, 0.99))
    def test_probability_follows_from_likelihood_ratio_and_prevalence(self, probability, usual, asked):
        same, other = (interpret(probability, reference(usual=usual), prevalence=p) for p in (usual, asked))
        assert same["probability_at_prevalence"] == pytest.approx(probability, abs=1e-6)
        odds = other["likelihood_ratio"] * asked / (1 - asked)
        assert other["probability_at_prevalence"] == pytest.approx(odds / (1 + odds), abs=2e-4)

    def test_nothing_follows_without_both_diagnoses(self, make_predictions):
        found = out_of_fold_quantiles(make_predictions().head(0), Pooling())
        assert set(interpret(0.7, found).values()) == {None}


def reference(ad=0.5, cn=0.5, *, usual=0.5):
    return {"prevalence": usual, "coverage": 0.9, "coverages": [0.9], "quantiles": {"AD": [ad], "CN": [cn]}}
