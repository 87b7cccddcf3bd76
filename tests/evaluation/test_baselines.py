"""Baselines: they find what is there, and never see the test subjects."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adpet.errors import InputError, LeakageError
from adpet.evaluation.baselines import baseline_predictions, voxel_features
from adpet.evaluation.metrics import evaluation


def _cohort(*, effect, subjects=90, features=2_000, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(subjects) % 2 == 1
    # A shared nuisance, far larger than the effect on the first hundred features.
    values = rng.normal(size=(subjects, features)) + 3 * rng.normal(size=(subjects, 1))
    values[:, :100] -= effect * labels[:, None]
    return values.astype(np.float32), labels


def linear_baseline(train_features, train_labels, test_features):
    """Probability of AD of test subjects, by the voxel baseline."""
    features = np.concatenate([train_features, test_features])
    training = np.arange(len(features)) < len(train_features)
    labels = np.r_[train_labels, np.resize([False, True], len(test_features))]
    scans = pd.DataFrame({"subject": np.arange(len(features)).astype(str), "session": "1", "part": "test"})
    scans["scan"], scans["diagnosis"] = scans["subject"], np.where(labels, "AD", "CN")
    return baseline_predictions(features, scans, training=training)[0]["probability"].to_numpy()


class TestLinearBaseline:
    def test_voxel_baseline_separates_groups_that_differ(self):
        values, labels = _cohort(effect=1.0)
        found = linear_baseline(values[:60], labels[:60], values[60:])
        assert roc_auc_score(labels[60:], found) > 0.95
        assert ((found >= 0) & (found <= 1)).all()

    def test_voxel_baseline_is_at_chance_for_equal_groups(self):
        values, labels = _cohort(effect=0.0, subjects=300, features=500)
        found = linear_baseline(values[:100], labels[:100], values[100:])
        assert 0.38 < roc_auc_score(labels[100:], found) < 0.62


class TestVoxelFeatures:
    def test_features_are_means_over_brain_voxels_of_blocks(self):
        mask = np.ones((4, 4, 4), dtype=bool)
        mask[0, 0, 0] = False
        mask[2:, 2:, :] = False
        volume = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
        found = voxel_features([volume], mask, block=2)
        corner = volume[:2, :2, :2][mask[:2, :2, :2]].mean()
        assert found.shape == (1, 6)
        assert found.dtype == np.float32
        assert found[0, 0] == pytest.approx(corner)
        assert found[0, 1] == pytest.approx(volume[:2, :2, 2:].mean())

    @pytest.mark.parametrize(
        ("volumes", "block", "message"),
        [
            ([np.zeros((4, 4, 3), np.float32)], 2, "volume 0 has"),
            ([], 2, "at least one volume"),
            ([np.zeros((4, 4, 4), np.float32)], 9, "use smaller blocks"),
        ],
    )
    def test_unusable_volumes_are_refused(self, volumes, block, message):
        with pytest.raises(InputError, match=message):
            voxel_features(volumes, np.ones((4, 4, 4), bool), block=block)


class TestBaselinePredictions:
    def _scans(self, labels):
        subject = [f"sub-{number:03d}" for number in range(len(labels))]
        table = pd.DataFrame({"subject": subject, "session": "1"})
        table["scan"] = table["subject"] + "_ses-1"
        table["diagnosis"] = np.where(labels, "AD", "CN")
        table["part"] = np.where(np.arange(len(labels)) < 60, "fold-0", "test")
        return table

    def test_predictions_are_scored_by_the_same_metrics(self):
        values, labels = _cohort(effect=1.0)
        scans = self._scans(labels)
        test, held_out = baseline_predictions(values, scans, training=(scans["part"] != "test").to_numpy())
        found = evaluation(test, held_out, aggregation="mean_probability", seed=0, resamples=100)
        assert found["subject"]["auc"]["value"] > 0.9
        assert found["subject"]["auc"] == pytest.approx(found["slice"]["auc"])
        assert found["counts"]["validation_subjects"] == 60

    def test_out_of_fold_probabilities_come_from_models_new_to_the_subject(self):
        # Labels at random: seen subjects would be classified correctly, unseen ones are at chance.
        values, labels = _cohort(effect=0.0, subjects=150, features=400)
        scans = self._scans(labels)
        training = np.arange(150) < 120
        _, held_out = baseline_predictions(values, scans, training=training)
        assert roc_auc_score(held_out["diagnosis"] == "AD", held_out["probability"]) < 0.65
        seen = linear_baseline(values[training], labels[training], values[training])
        assert roc_auc_score(labels[training], seen) > 0.95

    def test_subject_on_both_sides_is_refused(self):
        values, labels = _cohort(effect=1.0)
        scans = self._scans(labels)
        scans.loc[61, "subject"] = "sub-001"
        with pytest.raises(LeakageError, match="1 are on both sides, the first is sub-001"):
            baseline_predictions(values, scans, training=(scans["part"] != "test").to_numpy())
