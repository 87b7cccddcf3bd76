"""Curves: the area below them is the AUC that is reported, and the band surrounds them."""

import numpy as np
import pytest

from adpet.evaluation.aggregation import subject_probabilities
from adpet.evaluation.metrics import calibration_points, precision_recall_curves, roc_band, roc_curves


def subjects_of(table):
    return subject_probabilities(table, aggregation="mean_logit")


def test_area_under_the_subjects_curve_is_the_auc(make_predictions):
    from sklearn.metrics import roc_auc_score

    table = make_predictions(separation=1.0)
    curve = roc_curves(subjects_of(table), table).query("level == 'subject'")
    subjects = subject_probabilities(table, aggregation="mean_logit")
    area = np.trapezoid(curve["sensitivity"], curve["false_positive_rate"])
    assert area == pytest.approx(roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"]))


def test_curve_of_many_slices_has_few_points_and_both_ends(make_predictions):
    table = make_predictions(subjects=100, slices=100)
    curve = roc_curves(subjects_of(table), table)
    curve = curve.query("level == 'slice'")
    assert len(curve) <= 500
    for name in ("false_positive_rate", "sensitivity"):
        assert curve[name].iloc[0] == 0
        assert curve[name].iloc[-1] == 1


def test_band_surrounds_the_curve(make_predictions):
    table = make_predictions(subjects=80, separation=1.5)
    curve = roc_curves(subjects_of(table), table).query("level == 'subject'")
    band = roc_band(subjects_of(table), seed=0, resamples=500)
    middle = np.interp(band["false_positive_rate"], curve["false_positive_rate"], curve["sensitivity"])
    assert (band["low"] <= middle + 1e-9).all()
    assert (middle <= band["high"] + 1e-9).all()
    assert (band["high"] - band["low"]).max() > 0.05
    assert (np.diff(band["low"]) >= 0).all()


def test_band_of_perfect_scores_lies_at_one(make_predictions):
    band = roc_band(subjects_of(make_predictions(separation=30.0)), seed=0, resamples=50)
    assert (band[["low", "high"]] == 1).all(axis=None)


def test_band_of_equal_scores_is_the_diagonal(make_predictions):
    table = make_predictions().assign(probability=0.5)
    band = roc_band(subjects_of(table), seed=0, resamples=50)
    assert band["low"].to_numpy() == pytest.approx(band["false_positive_rate"].to_numpy())
    assert band["high"].to_numpy() == pytest.approx(band["false_positive_rate"].to_numpy())


@pytest.mark.parametrize("level", ["subject", "slice"])
def test_area_below_the_steps_of_precision_is_the_average_precision(make_predictions, level):
    from sklearn.metrics import average_precision_score

    table = make_predictions(separation=1.0, slices=4)
    tables = {"subject": subjects_of(table), "slice": table}
    curve = precision_recall_curves(*tables.values()).query("level == @level")
    area = np.sum(np.diff(curve["recall"]) * curve["precision"].iloc[1:])
    of_level = tables[level]
    expected = average_precision_score(of_level["diagnosis"] == "AD", of_level["probability"])
    assert area == pytest.approx(expected)
    assert (curve["recall"].iloc[0], curve["recall"].iloc[-1]) == (0, 1)


def test_reliability_is_of_bins_of_like_size_and_only_subjects_have_an_interval(make_predictions):
    table = make_predictions(subjects=60)
    points = calibration_points(subjects_of(table), table)
    subjects, slices = (points[points["level"] == level] for level in ("subject", "slice"))
    assert subjects["n"].tolist() == [10] * 6
    assert slices["n"].sum() == len(table)
    assert ((subjects["low"] <= subjects["observed"]) & (subjects["observed"] <= subjects["high"])).all()
    assert slices[["low", "high"]].isna().all(axis=None)
