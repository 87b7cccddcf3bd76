from itertools import pairwise

import keras
import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning.model import CLASSES, ensemble, members_of
from adpet.learning.saliency import (
    cascade,
    class_activation_maps,
    feature_layer,
    gradient_maps_by_class,
    has_pooled_head,
    integrated_maps,
    maps_by_class,
    method_for,
)

RNG = np.random.default_rng(0)
LARGE = RNG.integers(0, 256, (5, 64, 64, 1)).astype(np.uint8)
SLICES = LARGE[:, :32, :32]


@pytest.fixture(scope="module")
def model(small_model):
    """Build a network with biases, since those of a new one are 0 and would hide a missing one."""
    built = small_model()
    built.get_layer("head").bias.assign([0.3, -0.4])
    return built


@pytest.fixture(scope="module")
def shallow(small_model):
    return small_model(feature_layer="block_4_expand_relu")


@pytest.fixture(scope="module")
def flat():
    """Build a head that is linear in the features, but weighs each place on its own."""
    keras.utils.set_random_seed(0)
    slices = keras.Input((32, 32, 1), dtype="uint8")
    features = keras.layers.Rescaling(1 / 255)(slices)
    features = keras.layers.Conv2D(3, 8, strides=8, activation="relu", name="features")(features)
    logits = keras.layers.Dense(2, name="head")(keras.layers.Flatten()(features))
    return keras.Model(slices, keras.layers.Softmax()(logits), name="flat")


class TestExactCam:
    @pytest.mark.parametrize(
        ("layer", "side"),
        [
            ("Conv_1", 2),
            ("out_relu", 2),
            ("block_16_project_BN", 2),
            ("block_13_expand_relu", 4),
            ("block_6_expand_relu", 8),
            ("block_4_expand_relu", 8),
        ],
    )
    def test_mean_of_the_map_and_the_bias_are_the_logit(self, small_model, layer, side):
        model = small_model(feature_layer=layer, input_size=64)
        model.get_layer("head").bias.assign([0.3, -0.4])
        maps, logits = class_activation_maps(model, LARGE)
        assert maps.shape == (5, side, side)
        assert maps.dtype == logits.dtype == np.float32
        np.testing.assert_allclose(maps.mean(axis=(1, 2)) - 0.4 - 0.3, logits, atol=1e-4)

    def test_logit_is_that_of_the_probability(self, model):
        _, logits = class_activation_maps(model, SLICES)
        probability = model.predict(SLICES, verbose=0)[:, CLASSES.index("AD")]
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probability, atol=1e-6)

    def test_batch_size_does_not_change_the_maps(self, model):
        in_twos, _ = class_activation_maps(model, SLICES, batch_size=2)
        np.testing.assert_allclose(in_twos, class_activation_maps(model, SLICES)[0], atol=1e-5)


@pytest.mark.parametrize("by_class", [maps_by_class, gradient_maps_by_class])
def test_maps_follow_the_present_weights(small_model, by_class):
    model = small_model()
    before, _ = by_class(model, SLICES)
    head = model.get_layer("head")
    head.kernel.assign(head.kernel * 2.0)
    after, _ = by_class(model, SLICES)
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4, atol=1e-6)


class TestGradCam:
    def test_pooled_head_gives_the_exact_map(self, model):
        exact, logits = class_activation_maps(model, SLICES, method="cam")
        gradient, same_logits = class_activation_maps(model, SLICES, method="grad-cam")
        np.testing.assert_allclose(gradient, exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max())
        np.testing.assert_allclose(same_logits, logits, rtol=1e-5)

    def test_other_head_gives_the_summed_derivatives(self, flat):
        maps, _ = gradient_maps_by_class(flat, SLICES, batch_size=2)
        features = keras.Model(flat.inputs, feature_layer(flat).output).predict(SLICES, verbose=0)
        kernel = np.asarray(flat.get_layer("head").get_weights()[0]).reshape(4, 4, 3, 2)
        np.testing.assert_allclose(maps, features @ kernel.sum(axis=(0, 1)), rtol=1e-4, atol=1e-5)

    def test_explaining_does_not_train_the_network(self, model):
        before = [weight.copy() for weight in model.get_weights()]
        gradient_maps_by_class(model, SLICES, batch_size=2)
        integrated_maps(model, SLICES, SLICES[::-1], steps=2)
        for weight, earlier in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(weight, earlier)
        assert all(layer.trainable for layer in model.layers)

    def test_auto_is_the_exact_map_of_a_pooled_head(self, model, flat):
        assert has_pooled_head(model)
        assert not has_pooled_head(flat)
        assert (method_for(model, "auto"), method_for(flat, "auto")) == ("cam", "grad-cam")
        assert class_activation_maps(flat, SLICES)[0].shape == (5, 4, 4)

    def test_exact_map_of_another_head_is_refused(self, flat):
        with pytest.raises(InputError, match=r"set explain\.method to grad-cam"):
            class_activation_maps(flat, SLICES, method="cam")

    def test_network_without_places_is_refused(self):
        slices = keras.Input((8,), name="slice")
        model = keras.Model(slices, keras.layers.Dense(2, name="head")(slices), name="plain")
        with pytest.raises(InputError, match="plain: required a layer named head"):
            feature_layer(model)


class TestIntegratedGradients:
    BASELINE = RNG.integers(60, 200, (3, 32, 32, 1)).astype(np.uint8)
    CHANGED = np.clip(BASELINE + RNG.integers(-20, 20, BASELINE.shape), 0, 255).astype(np.uint8)

    def test_sum_approaches_the_change_of_the_log_odds(self, shallow):
        after, before = (class_activation_maps(shallow, part)[1] for part in (self.CHANGED, self.BASELINE))
        change = after - before
        rough, fine = (
            integrated_maps(shallow, self.CHANGED, self.BASELINE, steps=steps) for steps in (1, 64)
        )
        assert fine.shape == self.CHANGED.shape[:3]
        sums = fine.sum(axis=(1, 2))
        np.testing.assert_allclose(sums, change, rtol=0.02, atol=0.02 * np.abs(change).max())
        assert np.abs(sums - change).mean() < np.abs(rough.sum(axis=(1, 2)) - change).mean()

    def test_unchanged_pixels_add_nothing(self, shallow):
        changed = self.BASELINE.copy()
        changed[:, 8:16, 8:16] = 0
        maps = integrated_maps(shallow, changed, self.BASELINE, steps=4)
        inside = np.zeros(maps.shape, bool)
        inside[:, 8:16, 8:16] = True
        assert (maps[~inside] == 0).all()
        assert np.abs(maps[inside]).mean() > 0


class TestCascade:
    @staticmethod
    def changed(model, other):
        return {
            layer.name
            for layer in model.layers
            for ours, theirs in zip(
                layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True
            )
            if not np.array_equal(ours, theirs)
        }

    def test_members_of_an_ensemble_are_randomized_together(self, small_model):
        model = ensemble([small_model(seed=seed) for seed in (1, 2)])
        before = [member.get_weights() for member in members_of(model)]
        names, copies = zip(*cascade(model, seed=1), strict=True)
        assert (names[0], names[-1]) == ("head", "Conv1")
        assert names == tuple(name for name, _ in cascade(small_model(), seed=1))
        for member, weights in zip(members_of(copies[-1]), before, strict=True):
            kernel = [np.array_equal(*pair) for pair in zip(member.get_weights(), weights, strict=True)]
            assert not kernel[0]

    def test_weights_are_permuted_from_the_head_down(self, small_model):
        model = small_model()
        before = model.get_weights()
        names, lost = [], []
        for name, randomized in cascade(model, seed=1):
            names.append(name)
            lost.append(self.changed(model, randomized))
        assert (names[0], names[-1]) == ("head", "Conv1")
        assert lost[0] == {"head"}
        assert "block_6_expand" in lost[1]
        assert all(earlier <= later for earlier, later in pairwise(lost))
        for ours, theirs, earlier in zip(model.get_weights(), randomized.get_weights(), before, strict=True):
            np.testing.assert_array_equal(ours, earlier)
            np.testing.assert_array_equal(np.sort(ours, axis=None), np.sort(theirs, axis=None))
