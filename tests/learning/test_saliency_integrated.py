"""Integrated gradients share the change of the answer out among the pixels that changed."""

import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning.saliency import class_activation_maps, integrated_maps

RNG = np.random.default_rng(0)
BASELINE = RNG.integers(60, 200, (3, 32, 32)).astype(np.uint8)
SLICES = np.clip(BASELINE + RNG.integers(-20, 20, BASELINE.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(small_model):
    return small_model(feature_layer="block_4_expand_relu")


def log_odds(model, slices):
    return class_activation_maps(model, slices)[1]


def test_their_sum_is_the_change_of_the_log_odds(model):
    maps = integrated_maps(model, SLICES, BASELINE, steps=64)
    change = log_odds(model, SLICES) - log_odds(model, BASELINE)
    assert maps.shape == SLICES.shape
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), change, rtol=0.02, atol=0.02 * np.abs(change).max())


def test_more_steps_come_nearer(model):
    change = log_odds(model, SLICES) - log_odds(model, BASELINE)
    off = [
        np.abs(integrated_maps(model, SLICES, BASELINE, steps=steps).sum(axis=(1, 2)) - change).mean()
        for steps in (1, 32)
    ]
    assert off[1] < off[0]


def test_a_pixel_that_is_as_in_the_baseline_adds_nothing(model):
    changed = BASELINE.copy()
    changed[:, 8:16, 8:16] = 0
    maps = integrated_maps(model, changed, BASELINE, steps=4)
    inside = np.zeros(BASELINE.shape, bool)
    inside[:, 8:16, 8:16] = True
    assert (maps[~inside] == 0).all()
    assert np.abs(maps[inside]).mean() > 0


def test_more_slices_than_fit_one_batch_are_each_explained_alone(model):
    many, baseline = np.tile(SLICES, (30, 1, 1)), np.tile(BASELINE, (30, 1, 1))
    maps = integrated_maps(model, many, baseline, steps=2)
    alone = integrated_maps(model, SLICES, BASELINE, steps=2)
    np.testing.assert_allclose(maps, np.tile(alone, (30, 1, 1)), rtol=1e-3, atol=1e-4 * np.abs(alone).max())


def test_a_slice_without_a_baseline_is_refused(model):
    with pytest.raises(InputError, match="required a baseline for every slice"):
        integrated_maps(model, SLICES, BASELINE[:2], steps=2)
