"""Metrics, calibration and curves: scikit-learn's numbers, with subjects as the unit."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from adpet.errors import InputError, LeakageError
from adpet.evaluation.aggregation import Pooling, subject_probabilities
from adpet.evaluation.bootstrap import MetricName
from adpet.evaluation.metrics import (
    bootstrap_intervals,
    calibration_error,
    calibration_points,
    choose_threshold,
    classification_metrics,
    evaluation,
    precision_recall_curves,
    roc_band,
    roc_curves,
)

NAMES = set(get_args(MetricName))
LINE = {"calibration_slope", "calibration_intercept"}


def _subjects(diagnoses, probabilities):
    return pd.DataFrame({"diagnosis": diagnoses, "probability": probabilities})


class TestClassificationMetrics:
    @settings(max_examples=20)
    @given(seed=st.integers(0, 10_000), threshold=st.floats(0.1, 0.9))
    def test_metrics_equal_their_definitions(self, seed, threshold):
        rng = np.random.default_rng(seed)
        truth = np.r_[True, False, rng.random(30) > 0.4]
        probability = rng.random(32).round(1)
        found = classification_metrics(truth, probability, threshold=threshold)
        predicted = probability >= threshold
        difference = np.sign(probability[truth][:, None] - probability[~truth])
        assert found["auc"] == pytest.approx((difference.mean() + 1) / 2)
        assert found["sensitivity"] == pytest.approx(predicted[truth].mean())
        assert found["specificity"] == pytest.approx((~predicted[~truth]).mean())
        assert found["accuracy"] == pytest.approx((predicted == truth).mean())
        mean = (found["sensitivity"] + found["specificity"]) / 2
        assert found["balanced_accuracy"] == pytest.approx(mean)
        assert found["brier"] == pytest.approx(np.mean((probability - truth) ** 2))
        assert found["log_loss"] == pytest.approx(sk.log_loss(truth, probability.clip(1e-7, 1 - 1e-7)))
        levels = np.unique(probability)[::-1]
        precision = np.array([truth[probability >= level].mean() for level in levels])
        recall = np.array([(probability[truth] >= level).mean() for level in levels])
        average = np.sum(np.diff(recall, prepend=0) * precision)
        assert found["average_precision"] == pytest.approx(average)

    def test_single_class_is_refused(self):
        with pytest.raises(InputError, match="with AD and with CN"):
            classification_metrics(np.array([True, True]), np.array([0.2, 0.8]), threshold=0.5)


class TestThreshold:
    def test_threshold_has_the_largest_youden_index(self):
        rng = np.random.default_rng(3)
        diagnosis = np.array(["AD", "CN"] * 30)
        probability = np.clip(rng.normal(0.5, 0.2, 60) + 0.15 * (diagnosis == "AD"), 0, 1)
        best = choose_threshold(_subjects(diagnosis, probability))
        rate, sensitivity, _ = sk.roc_curve(diagnosis == "AD", probability)
        predicted = probability >= best
        index = predicted[diagnosis == "AD"].mean() - predicted[diagnosis == "CN"].mean()
        assert index == pytest.approx((sensitivity - rate).max())

    @pytest.mark.parametrize(
        "table",
        [
            _subjects([], []),
            _subjects(["AD", "AD"], [0.2, 0.7]),
            _subjects(["AD", "CN"], [0.7, 0.7]),
            _subjects(["CN", "AD"], [0.9, 0.1]),
        ],
        ids=["no subjects", "one class", "equal scores", "reversed scores"],
    )
    def test_threshold_is_one_half_if_none_beats_chance(self, table):
        assert choose_threshold(table) == 0.5


class TestBootstrap:
    def _intervals(self, table, **options):
        options = {"pooling": Pooling(), "threshold": 0.5, "seed": 0, "resamples": 500} | options
        return bootstrap_intervals(table, **options)

    @pytest.mark.parametrize("separation", [0.0, 1.0, 3.0, 9.0])
    def test_intervals_hold_the_value_and_stay_between_0_and_1(self, make_predictions, separation):
        found = self._intervals(make_predictions(separation=separation))
        assert (set(found["subject"]), set(found["slice"])) == (NAMES, NAMES - LINE)
        for level in found.values():
            for name, interval in level.items():
                assert interval["low"] <= interval["value"] <= interval["high"]
                if name not in LINE | {"log_loss"}:
                    assert 0 <= interval["low"] <= interval["high"] <= 1

    def test_cluster_bootstrap_is_wider_than_drawing_slices(self, make_predictions):
        table = make_predictions(slices=30, within=0.1, separation=1.5)
        singly = table.assign(subject=[f"s{row}" for row in range(len(table))])
        singly["scan"] = singly["subject"]
        honest, naive = (self._intervals(t)["slice"]["auc"] for t in (table, singly))
        assert honest["high"] - honest["low"] > 3 * (naive["high"] - naive["low"])


class TestEvaluation:
    def _evaluation(self, test, validation, **options):
        return evaluation(test, validation, pooling=Pooling(), seed=0, resamples=200, **options)

    def test_counts_agree_with_the_metrics(self, make_predictions):
        found = self._evaluation(make_predictions(visits=2), make_predictions(prefix="val-", seed=1))
        expected = {"subjects": 36, "subjects_ad": 18, "subjects_cn": 18, "scans": 72, "slices": 72 * 16}
        assert found["counts"] == expected | {"validation_subjects": 36}
        for level, total in (("subject", 36), ("slice", 72 * 16)):
            cells = found[level]["confusion"]
            assert sum(cells.values()) == total
            right = cells["true_positive"] + cells["true_negative"]
            assert found[level]["accuracy"]["value"] == pytest.approx(right / total)

    def test_threshold_comes_from_validation_subjects(self, make_predictions):
        validation = make_predictions(prefix="val-", seed=1)
        chosen = choose_threshold(subjects_of(validation))
        for seed, separation in ((2, 0.5), (3, 4.0)):
            test = make_predictions(seed=seed, separation=separation)
            assert self._evaluation(test, validation)["threshold"] == chosen

    def test_a_subject_on_both_sides_is_refused_unless_asked_for(self, make_predictions):
        test, validation = make_predictions(), make_predictions(prefix="val-", seed=1)
        validation.loc[validation["subject"] == "val-0003", "subject"] = "sub-0003"
        with pytest.raises(LeakageError, match="1 are in both tables, the first is sub-0003"):
            self._evaluation(test, validation)
        assert self._evaluation(test, validation, allow_shared_subjects=True)["counts"]["subjects"] == 36


def test_calibration_error_matches_hand_calculation():
    truth = np.array([False, False, True, True])
    probability = np.array([0.1, 0.3, 0.6, 0.8])
    # Bins of two: mean 0.2 against 0 of 2, mean 0.7 against 2 of 2.
    assert calibration_error(truth, probability, bins=2) == pytest.approx((0.2 + 0.3) / 2)


def subjects_of(table):
    return subject_probabilities(table, Pooling())


def test_band_surrounds_the_curve(make_predictions):
    table = make_predictions(subjects=80, separation=1.5)
    curve = roc_curves(subjects_of(table), table).query("level == 'subject'")
    band = roc_band(subjects_of(table), seed=0, resamples=500)
    middle = np.interp(band["false_positive_rate"], curve["false_positive_rate"], curve["sensitivity"])
    assert (band["low"] <= middle + 1e-9).all()
    assert (middle <= band["high"] + 1e-9).all()
    assert (band["high"] - band["low"]).max() > 0.05
    assert (np.diff(band["low"]) >= 0).all()


@pytest.mark.parametrize("level", ["subject", "slice"])
def test_areas_under_the_curves_are_auc_and_average_precision(make_predictions, level):
    table = make_predictions(separation=1.0, slices=4)
    tables = {"subject": subjects_of(table), "slice": table}
    truth, probability = tables[level]["diagnosis"] == "AD", tables[level]["probability"]
    roc = roc_curves(*tables.values()).query("level == @level")
    area = np.trapezoid(roc["sensitivity"], roc["false_positive_rate"])
    assert area == pytest.approx(sk.roc_auc_score(truth, probability))
    steps = precision_recall_curves(*tables.values()).query("level == @level")
    area = np.sum(np.diff(steps["recall"]) * steps["precision"].iloc[1:])
    assert area == pytest.approx(sk.average_precision_score(truth, probability))
    assert (steps["recall"].iloc[0], steps["recall"].iloc[-1]) == (0, 1)


def test_reliability_bins_are_equal_and_only_subjects_have_intervals(make_predictions):
    table = make_predictions(subjects=60)
    points = calibration_points(subjects_of(table), table)
    subjects, slices = (points[points["level"] == level] for level in ("subject", "slice"))
    assert subjects["n"].tolist() == [10] * 6
    assert slices["n"].sum() == len(table)
    assert ((subjects["low"] <= subjects["observed"]) & (subjects["observed"] <= subjects["high"])).all()
    assert slices[["low", "high"]].isna().all(axis=None)
