"""Metrics: scikit-learn's numbers, subjects as the unit, and no look at the test set before the time."""

import json
import math
import time
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from adpet.errors import InputError, LeakageError
from adpet.evaluation.aggregation import subject_probabilities
from adpet.evaluation.bootstrap import MetricName
from adpet.evaluation.metrics import bootstrap_intervals, choose_threshold, classification_metrics, evaluation

NAMES = set(get_args(MetricName))


def _subjects(diagnoses, probabilities):
    return pd.DataFrame({"diagnosis": diagnoses, "probability": probabilities})


def _leaves(document):
    for value in document.values():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield value


class TestClassificationMetrics:
    @settings(max_examples=20)
    @given(seed=st.integers(0, 10_000), threshold=st.floats(0.1, 0.9))
    def test_equal_their_definitions(self, seed, threshold):
        rng = np.random.default_rng(seed)
        truth = np.r_[True, False, rng.random(30) > 0.4]
        probability = rng.random(32).round(1)
        found = classification_metrics(truth, probability, threshold=threshold)
        called = probability >= threshold
        difference = np.sign(probability[truth][:, None] - probability[~truth])
        assert found["auc"] == pytest.approx((difference.mean() + 1) / 2)
        assert found["sensitivity"] == pytest.approx(called[truth].mean())
        assert found["specificity"] == pytest.approx((~called[~truth]).mean())
        assert found["accuracy"] == pytest.approx((called == truth).mean())
        mean = (found["sensitivity"] + found["specificity"]) / 2
        assert found["balanced_accuracy"] == pytest.approx(mean)
        assert found["brier"] == pytest.approx(np.mean((probability - truth) ** 2))
        levels = np.unique(probability)[::-1]
        precision = np.array([truth[probability >= level].mean() for level in levels])
        recall = np.array([(probability[truth] >= level).mean() for level in levels])
        average = np.sum(np.diff(recall, prepend=0) * precision)
        assert found["average_precision"] == pytest.approx(average)

    def test_one_class_alone_is_refused(self):
        with pytest.raises(InputError, match="with AD and with CN"):
            classification_metrics(np.array([True, True]), np.array([0.2, 0.8]), threshold=0.5)


class TestThreshold:
    def test_lies_midway_between_separated_groups(self):
        table = _subjects(["CN", "CN", "AD", "AD"], [0.1, 0.2, 0.4, 0.9])
        assert choose_threshold(table) == pytest.approx(0.3)

    def test_has_the_largest_youden_index_of_all(self):
        rng = np.random.default_rng(3)
        diagnosis = np.array(["AD", "CN"] * 30)
        probability = np.clip(rng.normal(0.5, 0.2, 60) + 0.15 * (diagnosis == "AD"), 0, 1)
        best = choose_threshold(_subjects(diagnosis, probability))
        rate, sensitivity, _ = sk.roc_curve(diagnosis == "AD", probability)
        called = probability >= best
        index = called[diagnosis == "AD"].mean() - called[diagnosis == "CN"].mean()
        assert index == pytest.approx((sensitivity - rate).max())

    def test_nearest_to_one_half_among_equals(self):
        # 0.15 and 0.45 both call three of four right.
        table = _subjects(["CN", "AD", "CN", "AD"], [0.1, 0.2, 0.4, 0.5])
        assert choose_threshold(table) == pytest.approx(0.45)

    @pytest.mark.parametrize(
        "table",
        [
            _subjects([], []),
            _subjects(["AD", "AD"], [0.2, 0.7]),
            _subjects(["AD", "CN"], [0.7, 0.7]),
            _subjects(["CN", "AD"], [0.9, 0.1]),
        ],
        ids=["nobody", "one class", "equal scores", "reversed scores"],
    )
    def test_is_one_half_where_nothing_can_be_chosen(self, table):
        assert choose_threshold(table) == 0.5


class TestBootstrap:
    def _intervals(self, table, **options):
        options = {"aggregation": "mean_logit", "threshold": 0.5, "seed": 0, "resamples": 500} | options
        return bootstrap_intervals(table, **options)

    def test_values_are_scikit_learns(self, make_predictions):
        table = make_predictions()
        found = self._intervals(table)
        truth = table["diagnosis"] == "AD"
        assert found["slice"]["auc"]["value"] == sk.roc_auc_score(truth, table["probability"])
        average = sk.average_precision_score(truth, table["probability"])
        assert found["slice"]["average_precision"]["value"] == average
        subjects = subject_probabilities(table, aggregation="mean_logit")
        auc = sk.roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"])
        assert found["subject"]["auc"]["value"] == auc

    @pytest.mark.parametrize("separation", [0.0, 1.0, 3.0, 9.0])
    def test_intervals_hold_the_value_and_stay_between_0_and_1(self, make_predictions, separation):
        for level in self._intervals(make_predictions(separation=separation)).values():
            assert set(level) == NAMES
            for interval in level.values():
                assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1

    def test_intervals_shrink_with_subjects(self, make_predictions):
        def width(subjects):
            interval = self._intervals(make_predictions(subjects=subjects, slices=3))["subject"]["auc"]
            return interval["high"] - interval["low"]

        assert width(400) < 0.5 * width(40)

    def test_copies_of_slices_add_no_certainty(self, make_predictions):
        few, many = (self._intervals(make_predictions(slices=n, within=0.0))["slice"] for n in (1, 30))
        for name, interval in few.items():
            assert interval == pytest.approx(many[name])

    def test_is_much_wider_than_drawing_slices_singly(self, make_predictions):
        table = make_predictions(slices=30, within=0.1, separation=1.5)
        singly = table.assign(subject=[f"s{row}" for row in range(len(table))])
        singly["scan"] = singly["subject"]
        honest, naive = (self._intervals(t)["slice"]["auc"] for t in (table, singly))
        assert honest["high"] - honest["low"] > 3 * (naive["high"] - naive["low"])

    def test_is_the_same_for_the_same_seed_only(self, make_predictions):
        table = make_predictions(separation=1.0)
        first, again, other = (self._intervals(table, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first["subject"]["auc"] != other["subject"]["auc"]

    def test_a_hundred_thousand_slices_cost_seconds(self, make_predictions):
        table = make_predictions(subjects=500, slices=200)
        start = time.perf_counter()
        self._intervals(table, resamples=2_000)
        assert time.perf_counter() - start < 10


class TestEvaluation:
    def _evaluation(self, test, validation, **options):
        return evaluation(test, validation, aggregation="mean_logit", seed=0, resamples=200, **options)

    def test_document_is_nested_finite_and_json(self, make_predictions):
        found = self._evaluation(make_predictions(), make_predictions(prefix="val-", seed=1))
        assert set(found) == {"subject", "slice", "threshold", "counts"}
        assert all(math.isfinite(leaf) and not isinstance(leaf, bool) for leaf in _leaves(found))
        assert json.loads(json.dumps(found, allow_nan=False)) == found

    def test_counts_agree_with_the_metrics(self, make_predictions):
        found = self._evaluation(make_predictions(visits=2), make_predictions(prefix="val-", seed=1))
        expected = {"subjects": 36, "subjects_ad": 18, "subjects_cn": 18, "scans": 72, "slices": 72 * 16}
        assert found["counts"] == expected | {"validation_subjects": 36}
        for level, total in (("subject", 36), ("slice", 72 * 16)):
            cells = found[level]["confusion"]
            assert sum(cells.values()) == total
            right = cells["true_positive"] + cells["true_negative"]
            assert found[level]["accuracy"]["value"] == pytest.approx(right / total)

    def test_threshold_comes_from_validation_subjects_alone(self, make_predictions):
        validation = make_predictions(prefix="val-", seed=1)
        chosen = choose_threshold(subject_probabilities(validation, aggregation="mean_logit"))
        for seed, separation in ((2, 0.5), (3, 4.0)):
            test = make_predictions(seed=seed, separation=separation)
            assert self._evaluation(test, validation)["threshold"] == chosen

    def test_without_validation_subjects_the_threshold_is_one_half(self, make_predictions):
        table = make_predictions()
        assert self._evaluation(table, table.head(0))["threshold"] == 0.5

    def test_a_subject_on_both_sides_is_refused_unless_asked_for(self, make_predictions):
        test, validation = make_predictions(), make_predictions(prefix="val-", seed=1)
        validation.loc[validation["subject"] == "val-0003", "subject"] = "sub-0003"
        with pytest.raises(LeakageError, match="1 are in both tables, the first is sub-0003"):
            self._evaluation(test, validation)
        assert self._evaluation(test, validation, allow_shared_subjects=True)["counts"]["subjects"] == 36
