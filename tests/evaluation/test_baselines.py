"""Baselines: they find what is there, and never see the test subjects."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adpet.errors import InputError, LeakageError
from adpet.evaluation.aggregation import Pooling
from adpet.evaluation.baselines import (
    META_ROI,
    LinearModel,
    baseline_predictions,
    linear_model,
    meta_roi,
    region_means,
    region_model,
    voxel_features,
    voxel_model,
)
from adpet.evaluation.metrics import evaluation
from adpet.imaging.atlas import BUILT_IN, DESIKAN_KILLIANY, Atlas, load_atlas
from adpet.imaging.template import grid_axes, template_grid


def _cohort(*, effect, subjects=90, features=2_000, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(subjects) % 2 == 1
    # A shared nuisance, far larger than the effect on the first hundred features.
    values = rng.normal(size=(subjects, features)) + 3 * rng.normal(size=(subjects, 1))
    values[:, :100] -= effect * labels[:, None]
    return values.astype(np.float32), labels


def _scans(labels, training):
    """One scan a subject; the first `training` are not tested."""
    subject = [f"sub-{number:03d}" for number in range(len(labels))]
    table = pd.DataFrame({"subject": subject, "session": "1"})
    table["scan"] = table["subject"] + "_ses-1"
    table["diagnosis"] = np.where(labels, "AD", "CN")
    table["part"] = np.where(np.arange(len(labels)) < training, "fold-0", "test")
    return table


def _fitted(values, labels, *, training):
    rows = np.arange(len(labels)) < training
    return baseline_predictions(values, _scans(labels, training), training=rows, model=voxel_model())


def _auc(predictions):
    return roc_auc_score(predictions["diagnosis"] == "AD", predictions["probability"])


class TestVoxelBaseline:
    def test_groups_that_differ_are_separated_by_the_same_metrics(self):
        test, held_out = _fitted(*_cohort(effect=1.0), training=60)
        assert _auc(test) > 0.95
        assert test["probability"].between(0, 1).all()
        found = evaluation(test, held_out, pooling=Pooling("mean_probability"), seed=0, resamples=100)
        assert found["subject"]["auc"]["value"] == pytest.approx(_auc(test))
        assert found["subject"]["auc"] == pytest.approx(found["slice"]["auc"])
        assert found["counts"]["validation_subjects"] == 60

    def test_out_of_fold_probabilities_come_from_models_new_to_the_subject(self):
        # Labels at random: seen subjects would be classified correctly, unseen ones are at chance.
        values, labels = _cohort(effect=0.0, subjects=120, features=400)
        seen, held_out = _fitted(np.concatenate([values, values]), np.tile(labels, 2), training=120)
        assert _auc(held_out) < 0.65
        assert _auc(seen) > 0.95

    def test_subject_on_both_sides_is_refused(self):
        values, labels = _cohort(effect=1.0)
        scans = _scans(labels, 60)
        scans.loc[61, "subject"] = "sub-001"
        with pytest.raises(LeakageError, match="1 are on both sides, the first is sub-001"):
            baseline_predictions(
                values, scans, training=(scans["part"] != "test").to_numpy(), model=voxel_model()
            )


class TestRegionBaselines:
    @pytest.mark.parametrize("source", [BUILT_IN, DESIKAN_KILLIANY])
    def test_scan_with_truncated_field_of_view_is_measured_and_predicted(self, source):
        atlas = load_atlas(source, 3.0)
        uptake = np.tile([1.0, 0.8], 4)
        volumes = np.ones((8, *template_grid(3.0)[0]), np.float32) * uptake[:, None, None, None]
        volumes[7, :, :, grid_axes(3.0)[2] < -8] = 0
        features = np.array([region_means(volume, atlas) for volume in volumes])
        lost = np.isnan(features)
        assert lost[7].any()
        assert not lost[:7].any()
        assert features[7][~lost[7]] == pytest.approx(0.8)
        model = region_model().fit(features, uptake < 1)
        assert model.predict_proba(features)[7, 1] > 0.5

    def test_meta_roi_is_the_mean_of_five_regions_over_pons(self):
        atlas = Atlas(np.zeros((1, 1, 1), np.int16), dict(enumerate(["insula", *META_ROI], start=1)))
        regions = np.array([[9.0, 1.0, 2.0, 3.0]], np.float32)
        found = meta_roi(regions, atlas, np.array([[2.0]], np.float32))
        assert found == pytest.approx(np.array([[np.mean([1, 1, 2, 3, 3]) / 2]]))


class TestCarriedModels:
    """What an exported model has of its baselines answers as scikit-learn's pipeline did."""

    @pytest.mark.parametrize("kind", [voxel_model, region_model])
    def test_read_back_model_gives_the_same_probabilities(self, kind):
        values, labels = _cohort(effect=1.0, subjects=60, features=300)
        if kind is region_model:
            values[:7, 3] = np.nan
        fitted = kind().fit(values[:40], labels[:40])
        carried = linear_model(fitted, values[:40], threshold=0.4)
        read = LinearModel.of(json.loads(json.dumps(carried.document())))
        np.testing.assert_allclose(read.probability(values), fitted.predict_proba(values)[:, 1], atol=1e-5)
        assert read.threshold == 0.4

    def test_feature_that_no_training_scan_shows_counts_for_nothing(self):
        values, labels = _cohort(effect=1.0, subjects=40, features=20)
        values[:, 5] = np.nan
        carried = linear_model(region_model().fit(values, labels), values, threshold=0.5)
        seen = values.copy()
        seen[:, 5] = 3.0
        np.testing.assert_allclose(carried.probability(seen), carried.probability(values))


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
