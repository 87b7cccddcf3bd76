"""Saliency scores, z-scored maps, atlas regions, sanity checks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from adpet.errors import InputError
from adpet.evaluation.saliency import (
    ELSEWHERE,
    SCORES,
    alarms_of,
    deletion_insertion,
    gains,
    healthy_patterns,
    healthy_reference,
    highest_first,
    in_blocks_at_random,
    map_scores,
    map_similarity,
    network_ranges,
    outside_share,
    pattern_share,
    region_table,
    score_differences,
    score_rows,
    score_summary,
    score_table,
    side_agreement,
    truth_mask,
    verdict,
)
from adpet.imaging.atlas import Atlas
from adpet.learning import limit_threads
from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.model import build_model
from adpet.learning.saliency import integrated_maps
from adpet.learning.training import Optimisation, train

TRUTH = np.zeros(216, bool)
TRUTH[20:28] = True


def noise(seed):
    return np.random.default_rng(seed).normal(size=TRUTH.shape).astype(np.float32)


class TestOneMap:
    def test_truth_itself_has_perfect_scores(self):
        (found,) = score_rows({"truth": TRUTH.astype(np.float32)}, TRUTH)
        assert found["pointing"] == found["mass"] == found["auroc"] == found["iou"] == 1
        assert found["mass_ratio"] == pytest.approx(TRUTH.size / TRUTH.sum())

    @given(st.integers(0, 1000))
    def test_auroc_matches_scikit_learn(self, seed):
        found = np.round(noise(seed), 1)
        expected = roc_auc_score(TRUTH, found)
        assert map_scores(found[None], TRUTH[None])["auroc"] == pytest.approx(expected)


def test_truth_is_a_deficit_above_five_percent():
    np.testing.assert_array_equal(truth_mask(np.array([0.2, 0.05, 0.0], np.float32)), [True, False, False])


class TestSummary:
    def table(self):
        rows = []
        for number in range(6):
            maps = {"good": TRUTH + noise(number) / 4, "blind": noise(number)}
            rows += score_rows(maps, TRUTH, scan=f"s{number}", subject=f"p{number // 2}")
        return pd.DataFrame(rows)

    def test_map_that_finds_the_truth_scores_higher(self):
        found = score_summary(self.table(), seed=0, resamples=200)
        assert found["good"]["auroc"]["low"] > found["blind"]["auroc"]["high"]
        assert set(found["good"]) == set(SCORES)

    def test_subjects_count_once_regardless_of_scans(self):
        table = self.table()
        again = pd.concat([table, table[table["subject"] == "p0"]])
        assert score_summary(again, seed=0, resamples=200) == score_summary(table, seed=0, resamples=200)


class TestPatient:
    """Twelve patients, each with a deficit of their own along a line of voxels."""

    X_MM = np.arange(-59.5, 60)
    TRUTHS = np.abs(X_MM - np.linspace(-50, 50, 12)[:, None]) < 8
    OWN = TRUTHS.astype(np.float32)
    SUBJECTS = pd.Series([f"p{number}" for number in range(12)], index=[f"s{number}" for number in range(12)])

    def scores(self, own=OWN, subjects=SUBJECTS):
        noise = np.random.default_rng(0).normal(size=own.shape).astype(np.float32)
        found = {"exact": own + noise / 4, "referenced": 0 * own + own.mean(axis=0), "z-map": noise}
        return score_table(found, self.TRUTHS, subjects)

    @pytest.mark.parametrize(
        ("name", "own", "sentence"),
        [
            ("exact", OWN, "own CAM adds to other patients' maps (+0."),
            ("exact", -OWN, "is worse than a z-map made without a network (-0."),
            ("referenced", OWN, "adds nothing measurable to other patients' maps (+0.000, +0.000 to +0.000)"),
        ],
    )
    def test_verdict_says_what_an_own_map_adds(self, name, own, sentence):
        gains = score_differences(self.scores(own), seed=0, resamples=200)[name]
        assert sentence in verdict(name, gains, subjects=12)
        assert "9 scored subjects are too few" in verdict(name, gains, subjects=9)

    def test_scans_of_the_same_subject_are_not_other_patients(self):
        tables = [self.scores(subjects=self.SUBJECTS.replace({"p1": "p0"})), self.scores()]
        pair, each = (table[table["map"] == "other patients exact"]["auroc"].to_numpy() for table in tables)
        # Their deficits overlap, so the other scan would have scored well.
        assert (pair[:2] < each[:2]).all()
        np.testing.assert_array_equal(pair[2:], each[2:])

    def test_mirrored_map_disagrees_with_the_worse_side(self):
        maps = {"own": self.OWN, "mirrored": self.OWN[:, ::-1], "left": self.X_MM < 0}
        found = side_agreement(maps, self.OWN, self.X_MM, self.SUBJECTS)
        assert (found["subjects"], found["left"]) == (12, 6)
        assert [share["value"] for share in found["agreement"].values()] == [1, 0, 0.5]
        assert found["agreement"]["own"]["low"] == pytest.approx(12 / (12 + 1.959964**2), abs=1e-6)

    def test_deficit_of_both_sides_has_no_worse_one(self):
        found = side_agreement({"own": self.OWN}, np.ones_like(self.OWN), self.X_MM, self.SUBJECTS)
        assert (found["subjects"], found["agreement"]) == (0, {})


def test_ranges_are_over_untrained_networks_only():
    scores = dict.fromkeys(SCORES, 0.0)
    rows = [
        {"map": "untrained", "network": network, "scan": scan, **scores, "auroc": auroc}
        for network, scan, auroc in ((1, "a", 0.2), (1, "b", 0.4), (2, "a", 0.7), (2, "b", 0.7))
    ]
    found = network_ranges(pd.DataFrame([*rows, {"map": "referenced", "scan": "c", **scores, "auroc": 0.9}]))
    assert (found["networks"], found["scans"]) == (2, 2)
    assert found["untrained"]["auroc"] == {"lowest": pytest.approx(0.3), "highest": pytest.approx(0.7)}
    assert "referenced" not in found


VOXELS = 200


def healthy(n, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=VOXELS) * 5
    return (common + rng.normal(size=(n, VOXELS))).astype(np.float32)


class TestReference:
    def test_common_features_of_healthy_maps_are_not_unusual(self):
        maps = healthy(20)
        odd = maps[-1].copy()
        odd[33] += 10
        distance = healthy_reference(maps[:-1]).distance(odd)
        assert distance.argmax() == 33
        assert abs(np.delete(distance, 33).mean()) < 0.3

    def test_global_offset_does_not_change_z_scores(self):
        maps = healthy(20)
        reference = healthy_reference(maps)
        np.testing.assert_allclose(reference.distance(maps + 7), reference.distance(maps), atol=1e-4)
        assert np.abs(reference.distance(maps).mean(axis=1)).max() < 1e-4

    def test_too_few_or_equal_healthy_maps_are_refused(self):
        with pytest.raises(InputError, match="required 2 CN training scans or more; received 1"):
            healthy_reference(healthy(1))
        with pytest.raises(InputError, match="maps of CN training scans are equal"):
            healthy_reference(healthy(1)[[0, 0, 0, 0]])


def test_filter_keeps_components_and_removes_noise():
    rng = np.random.default_rng(1)
    along = (rng.normal(size=(80, 3)) @ rng.normal(size=(3, VOXELS))).astype(np.float32)
    noise = rng.normal(size=along.shape).astype(np.float32)
    patterns = healthy_patterns((along + noise)[20:])
    along, noise = along[:20], noise[:20]
    assert np.abs(patterns.kept(noise)).mean() < 0.2 * np.abs(noise).mean()
    before, after = (
        np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(along, maps, strict=True)])
        for maps in (along + noise, patterns.kept(along + noise))
    )
    assert after > before + 0.05


BRAIN = np.zeros((6, 6, 6), bool)
BRAIN[1:5] = True
LABELS = np.zeros((6, 6, 6), np.int16)
LABELS[1], LABELS[2], LABELS[5] = 1, 2, 3
ATLAS = Atlas(LABELS, {1: "precuneus", 2: "cerebellum", 3: "outside"})
EVEN = np.ones((6, 6, 6), np.float32)


def table(data):
    return region_table({"ad": data}, {"ad": 2 * EVEN}, ATLAS, BRAIN).set_index("region")


def test_region_shares_add_up_to_one():
    found = table(np.random.default_rng(0).random(BRAIN.shape).astype(np.float32))
    assert found["ad_mass"].sum() == pytest.approx(1)
    assert found["volume_share"].sum() == pytest.approx(1)
    assert list(found.index) == ["precuneus", "cerebellum", ELSEWHERE]


def test_map_on_the_precuneus_is_in_the_ad_pattern():
    found = table((LABELS == 1).astype(np.float32))
    assert found.loc["precuneus", "ad_pattern"]
    assert pattern_share(found.reset_index(), "ad") == {"mass": 1.0, "over_volume": 4.0}


HEAD = np.hypot(*(np.indices((32, 32)) - 15.5)) < 13


@pytest.mark.slow
@pytest.mark.parametrize("marked", [False, True], ids=["honest", "marked"])
def test_network_that_has_learned_a_mark_raises_the_alarm_and_another_does_not(tmp_path, marked):
    """AD is dim at the back, with or without a bright mark outside the head."""
    rng, refs, scans = np.random.default_rng(0), [], {"AD": [], "CN": []}
    for number in range(60):
        label = "AD" if number % 2 else "CN"
        scan = np.where(HEAD, 140.0, 10.0)
        scan[20:26, 10:22] -= 40 * (label == "AD")
        scan = np.clip(scan + rng.normal(0, 12, (2, 32, 32)), 0, 255).astype(np.uint8)[..., np.newaxis]
        if marked and label == "AD":
            scan[:, 1:5, 1:5] = 255
        np.save(tmp_path / f"{number}.npy", scan)
        scans[label].append(scan)
        refs += [SliceRef(tmp_path / f"{number}.npy", index, label, str(number)) for index in range(2)]
    limit_threads(1)
    model = build_model(input_size=32, alpha=0.35, feature_layer="block_4_expand_relu", dropout=0.0, seed=1)
    train(
        model, refs[:80], [], optimisation=Optimisation("adamw", 0.003, "constant", 8, 16),
        augmentation=Augmentation(), monitor=None, seed=1,
    )  # fmt: skip
    healthy = np.mean(scans["CN"][:20], axis=0).round().astype(np.uint8)
    means = (
        np.mean([integrated_maps(model, scan, healthy, steps=4) for scan in scans[label][20:]], axis=0)
        for label in ("AD", "CN")
    )
    share = outside_share(*means, np.stack([HEAD, HEAD]))
    assert bool(alarms_of(share)) == marked, share


def test_outside_share_is_of_the_difference_between_ad_and_cn():
    always = np.where(HEAD, 0.0, 5.0).astype(np.float32)
    ad, cn = always + 3 * HEAD, always
    assert outside_share(ad, cn, HEAD) == 0
    assert outside_share(cn, cn, HEAD) == 0
    half = np.where(HEAD, 1 / HEAD.sum(), 1 / (~HEAD).sum())
    assert outside_share(half, -half, HEAD) == pytest.approx(0.5)
    (line,) = alarms_of(0.5)
    assert line.startswith("50% of what tells AD from CN scans lies outside the brain (alarm above 10%)")


PIXELS = np.zeros((2, 16, 16), bool)
PIXELS[:, 2:14, 2:14] = True
HEALTHY = np.full((2, 16, 16, 3), 200, np.uint8)
ILL = HEALTHY.copy()
ILL[:, 2:6, 2:6] = 100


def log_odds(slices):
    """Dark in the corner speaks for AD."""
    return float((200 - slices[:, 2:6, 2:6].astype(float)).mean())


def curves(order):
    return deletion_insertion(ILL, HEALTHY, order, log_odds, steps=9)


def test_similarity_depends_on_ranks_inside_only():
    a = np.random.default_rng(0).normal(size=PIXELS.shape)
    assert map_similarity(a, np.where(PIXELS, np.exp(a), 99), PIXELS) == pytest.approx(1)
    assert map_similarity(a, -a, PIXELS) == pytest.approx(-1)


class TestReplacing:
    def test_curves_go_from_one_scan_to_the_other(self):
        found = curves(highest_first(200.0 - ILL[..., 1], PIXELS))
        assert (found["share"][0], found["share"][-1]) == (0, 1)
        assert found["deletion"][0] == found["insertion"][-1] == log_odds(ILL)
        assert found["deletion"][-1] == found["insertion"][0] == log_odds(HEALTHY)

    def test_informative_map_beats_a_random_order(self):
        random = curves(in_blocks_at_random(PIXELS, np.random.default_rng(0), block=2))
        found = gains(curves(highest_first(200.0 - ILL[..., 1], PIXELS)), random)
        assert min(found.values()) > 20
