"""Grad-CAM is the exact map where there is one, and the gradient is a gradient where there is none."""

import keras
import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning.saliency import (
    class_activation_maps,
    feature_layer,
    gradient_maps_by_class,
    has_pooled_head,
    method_for,
)

SLICES = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)


@pytest.fixture(scope="module")
def pooled(small_model):
    model = small_model()
    model.get_layer("head").bias.assign([0.3, -0.4])
    return model


@pytest.fixture(scope="module")
def flat():
    """A head that is linear in the features, but weighs each place on its own."""
    keras.utils.set_random_seed(0)
    slices = keras.Input((32, 32, 1), dtype="uint8")
    features = keras.layers.Rescaling(1 / 255)(slices)
    features = keras.layers.Conv2D(3, 8, strides=8, activation="relu", name="features")(features)
    logits = keras.layers.Dense(2, name="head")(keras.layers.Flatten()(features))
    return keras.Model(slices, keras.layers.Softmax()(logits), name="flat")


def test_for_a_pooled_head_it_is_the_exact_map(pooled):
    exact, logits = class_activation_maps(pooled, SLICES, method="cam")
    gradient, same_logits = class_activation_maps(pooled, SLICES, method="grad-cam")
    np.testing.assert_allclose(gradient, exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max())
    np.testing.assert_array_equal(same_logits, logits)


def test_explaining_a_network_does_not_train_it(pooled):
    before = [weight.copy() for weight in pooled.get_weights()]
    gradient_maps_by_class(pooled, SLICES, batch_size=2)
    for weight, earlier in zip(pooled.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, earlier)
    assert all(layer.trainable for layer in pooled.layers)


def test_it_follows_the_weights_of_the_moment(small_model):
    model = small_model()
    before, _ = gradient_maps_by_class(model, SLICES)
    model.get_layer("head").kernel.assign(model.get_layer("head").kernel * 2.0)
    after, _ = gradient_maps_by_class(model, SLICES)
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4, atol=1e-6)


def test_for_another_head_the_weights_are_the_summed_derivatives(flat):
    maps, _ = gradient_maps_by_class(flat, SLICES, batch_size=2)
    features = keras.Model(flat.inputs, feature_layer(flat).output).predict(SLICES[..., None], verbose=0)
    kernel = np.asarray(flat.get_layer("head").get_weights()[0]).reshape(4, 4, 3, 2)
    np.testing.assert_allclose(maps, features @ kernel.sum(axis=(0, 1)), rtol=1e-4, atol=1e-5)


def test_auto_takes_the_exact_map_where_there_is_one(pooled, flat):
    assert has_pooled_head(pooled)
    assert not has_pooled_head(flat)
    assert (method_for(pooled, "auto"), method_for(flat, "auto")) == ("cam", "grad-cam")
    assert class_activation_maps(flat, SLICES)[0].shape == (3, 4, 4)


def test_an_exact_map_is_not_invented_for_a_head_that_has_none(flat):
    with pytest.raises(InputError, match=r"set explain\.method to grad-cam"):
        class_activation_maps(flat, SLICES, method="cam")


def test_a_network_without_places_is_refused():
    slices = keras.Input((8,), name="slice")
    model = keras.Model(slices, keras.layers.Dense(2, name="head")(slices), name="plain")
    with pytest.raises(InputError, match="plain: required a layer named head"):
        feature_layer(model)


def test_no_slices_give_no_maps(flat):
    maps, logits = gradient_maps_by_class(flat, SLICES[:0])
    assert (maps.shape, logits.shape) == ((0, 4, 4, 2), (0, 2))
