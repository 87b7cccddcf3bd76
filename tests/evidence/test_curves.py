"""Curves: the area below them is the AUC that is reported, and the band surrounds them."""

import numpy as np
import pytest

from adpet.evidence.curves import roc_band, roc_curves
from adpet.evidence.metrics import subject_probabilities


def test_area_under_the_subjects_curve_is_the_auc(make_predictions):
    from sklearn.metrics import roc_auc_score

    table = make_predictions(separation=1.0)
    curve = roc_curves(table, aggregation="mean_logit").query("level == 'subject'")
    subjects = subject_probabilities(table, aggregation="mean_logit")
    area = np.trapezoid(curve["sensitivity"], curve["false_positive_rate"])
    assert area == pytest.approx(roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"]))


def test_curve_of_many_slices_has_few_points_and_both_ends(make_predictions):
    curve = roc_curves(make_predictions(subjects=100, slices=100), aggregation="mean_logit")
    curve = curve.query("level == 'slice'")
    assert len(curve) <= 500
    for name in ("false_positive_rate", "sensitivity"):
        assert curve[name].iloc[0] == 0
        assert curve[name].iloc[-1] == 1


def test_band_surrounds_the_curve(make_predictions):
    table = make_predictions(subjects=80, separation=1.5)
    curve = roc_curves(table, aggregation="mean_logit").query("level == 'subject'")
    band = roc_band(table, aggregation="mean_logit", seed=0, resamples=500)
    middle = np.interp(band["false_positive_rate"], curve["false_positive_rate"], curve["sensitivity"])
    assert (band["low"] <= middle + 1e-9).all()
    assert (middle <= band["high"] + 1e-9).all()
    assert (band["high"] - band["low"]).max() > 0.05
    assert (np.diff(band["low"]) >= 0).all()


def test_band_of_perfect_scores_lies_at_one(make_predictions):
    band = roc_band(make_predictions(separation=30.0), aggregation="mean_logit", seed=0, resamples=50)
    assert (band[["low", "high"]] == 1).all(axis=None)


def test_band_of_equal_scores_is_the_diagonal(make_predictions):
    table = make_predictions().assign(probability=0.5)
    band = roc_band(table, aggregation="mean_logit", seed=0, resamples=50)
    assert band["low"].to_numpy() == pytest.approx(band["false_positive_rate"].to_numpy())
    assert band["high"].to_numpy() == pytest.approx(band["false_positive_rate"].to_numpy())
