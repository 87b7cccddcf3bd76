"""Where a map's mass lies, by named region."""

import numpy as np
import pytest

from adpet.evaluation.saliency import ELSEWHERE, alarms_of, pattern_share, region_table, share_outside
from adpet.imaging.atlas import Atlas

BRAIN = np.zeros((6, 6, 6), bool)
BRAIN[1:5] = True
LABELS = np.zeros((6, 6, 6), np.int16)
LABELS[1], LABELS[2], LABELS[5] = 1, 2, 3
ATLAS = Atlas(LABELS, {1: "precuneus", 2: "cerebellum", 3: "outside"})
EVEN = np.ones((6, 6, 6), np.float32)


def table(data):
    return region_table({"ad": data}, {"ad": 2 * EVEN}, ATLAS, BRAIN).set_index("region")


def test_shares_of_all_rows_are_the_whole():
    found = table(np.random.default_rng(0).random(BRAIN.shape).astype(np.float32))
    assert found["ad_mass"].sum() == pytest.approx(1)
    assert found["volume_share"].sum() == pytest.approx(1)
    assert list(found.index) == ["precuneus", "cerebellum", ELSEWHERE]


def test_an_even_map_is_nowhere_denser_than_elsewhere():
    found = table(EVEN)
    np.testing.assert_allclose(found["ad_density"], 1)
    np.testing.assert_allclose(found["ad_uptake"], 2)


def test_a_map_on_the_precuneus_lies_in_the_diseases_pattern():
    found = table((LABELS == 1).astype(np.float32))
    assert found.loc["precuneus", "ad_pattern"]
    assert pattern_share(found.reset_index(), "ad") == {"mass": 1.0, "over_volume": 4.0}


def test_negative_values_have_no_mass():
    found = table(np.where(LABELS == 2, -5, EVEN).astype(np.float32))
    assert found.loc["cerebellum", "ad_mass"] == 0


def test_mass_outside_the_brain_is_an_alarm_above_a_tenth():
    data = np.where(BRAIN, 1, 0.1).astype(np.float32)
    assert alarms_of({"ad": share_outside(data, BRAIN)}) == []
    (line,) = alarms_of({"ad": share_outside(EVEN, BRAIN), "cn": 0.0})
    assert line.startswith("ad: 33% of the map's mass lies outside the brain")
