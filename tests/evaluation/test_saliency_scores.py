"""Scores of maps against a known truth, on made-up maps."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from adpet.evaluation.saliency import (
    SCORES,
    area_share,
    cam_score,
    centre_map,
    network_ranges,
    score_rows,
    score_summary,
    truth_mask,
)

INSIDE = np.zeros((8, 8, 8), bool)
INSIDE[1:7, 1:7, 1:7] = True
TRUTH = np.zeros_like(INSIDE)
TRUTH[2:4, 2:4, 2:4] = True


def noise(seed):
    return np.random.default_rng(seed).normal(size=INSIDE.shape).astype(np.float32)


class TestOneMap:
    def test_the_truth_itself_has_all_scores_perfect(self):
        found = cam_score(TRUTH.astype(np.float32), TRUTH, INSIDE)
        assert found["pointing"] == found["mass"] == found["auroc"] == found["iou"] == 1
        assert found["mass_ratio"] == pytest.approx(INSIDE.sum() / TRUTH.sum())

    def test_its_opposite_has_none(self):
        found = cam_score(1 - TRUTH.astype(np.float32), TRUTH, INSIDE)
        assert found["pointing"] == found["mass"] == found["auroc"] == found["iou"] == 0

    def test_a_map_that_is_the_same_everywhere_is_at_chance(self):
        found = cam_score(np.ones(INSIDE.shape, np.float32), TRUTH, INSIDE)
        assert found["auroc"] == 0.5
        assert found["mass_ratio"] == pytest.approx(1)

    def test_what_lies_outside_does_not_count(self):
        found = np.where(INSIDE, noise(0), 1e6).astype(np.float32)
        assert cam_score(found, TRUTH, INSIDE) == cam_score(noise(0), TRUTH, INSIDE)

    @given(st.integers(0, 1000))
    def test_auroc_is_that_of_scikit_learn(self, seed):
        found = np.round(noise(seed), 1)
        expected = roc_auc_score(TRUTH[INSIDE], found[INSIDE])
        assert cam_score(found, TRUTH, INSIDE)["auroc"] == pytest.approx(expected)

    @given(st.integers(0, 1000), st.floats(0.1, 100))
    def test_the_unit_of_the_map_does_not_matter(self, seed, scale):
        plain, scaled = (cam_score(noise(seed) * np.float32(k), TRUTH, INSIDE) for k in (1, scale))
        assert plain == pytest.approx(scaled, rel=1e-4)

    @pytest.mark.parametrize("truth", [np.zeros_like(INSIDE), INSIDE])
    def test_a_truth_that_cannot_be_missed_or_found_is_refused(self, truth):
        with pytest.raises(ValueError, match="part of `inside`"):
            cam_score(noise(0), truth, INSIDE)


def test_the_truth_is_what_has_lost_more_than_a_twentieth_inside():
    deficit = np.full(INSIDE.shape, 0.2, np.float32)
    deficit[3] = 0.05
    mask = truth_mask(deficit, INSIDE)
    assert not mask[3].any()
    assert mask[4, 4, 4]
    assert not mask[0, 0, 0]


def test_the_centre_map_is_highest_in_the_middle():
    found = centre_map(INSIDE)
    assert found.max() == found[3:5, 3:5, 3:5].max()
    assert found[0, 0, 0] == 0


def test_the_area_share_is_what_a_blind_map_gets():
    assert area_share([TRUTH, TRUTH], INSIDE) == pytest.approx(8 / 216)


class TestSummary:
    def table(self):
        rows = []
        for number in range(6):
            maps = {"good": TRUTH + noise(number) / 4, "blind": noise(number)}
            rows += score_rows(maps, TRUTH, INSIDE, scan=f"s{number}", subject=f"p{number // 2}")
        return pd.DataFrame(rows)

    def test_a_map_that_finds_the_truth_is_above_one_that_does_not(self):
        found = score_summary(self.table(), seed=0, resamples=200)
        assert found["good"]["auroc"]["low"] > found["blind"]["auroc"]["high"]
        assert set(found["good"]) == set(SCORES)

    def test_subjects_count_once_however_often_they_were_scanned(self):
        table = self.table()
        again = pd.concat([table, table[table["subject"] == "p0"]])
        assert score_summary(again, seed=0, resamples=200) == score_summary(table, seed=0, resamples=200)


def test_untrained_networks_are_told_apart_and_maps_of_trained_ones_left_out():
    scores = dict.fromkeys(SCORES, 0.0)
    rows = [
        {"map": "untrained", "network": network, **scores, "auroc": auroc}
        for network, auroc in ((1, 0.2), (1, 0.4), (2, 0.7), (2, 0.7))
    ]
    found = network_ranges(pd.DataFrame([*rows, {"map": "referenced", **scores, "auroc": 0.9}]))
    assert found["networks"] == 2
    assert found["untrained"]["auroc"] == {"lowest": pytest.approx(0.3), "highest": pytest.approx(0.7)}
    assert "referenced" not in found
