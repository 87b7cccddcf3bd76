import keras
import numpy as np
import pytest

from adpet.learning.model import CLASSES, FEATURE_LAYERS
from adpet.learning.saliency import class_activation_maps, head_bias, maps_by_class

SLICES = np.random.default_rng(0).integers(0, 256, (5, 64, 64)).astype(np.uint8)
SMALL_SLICES = SLICES[:, :32, :32]


@pytest.fixture(scope="module")
def model(small_model):
    """Build a network with biases, since those of a new one are 0 and would hide a missing one."""
    built = small_model()
    built.get_layer("head").bias.assign([0.3, -0.4])
    return built


@pytest.mark.parametrize("feature_layer", FEATURE_LAYERS)
def test_the_mean_of_a_map_and_the_bias_are_the_logit_at_every_feature_layer(small_model, feature_layer):
    model = small_model(feature_layer=feature_layer, input_size=64)
    model.get_layer("head").bias.assign([0.3, -0.4])
    side = 64 // FEATURE_LAYERS[feature_layer]
    maps, logits = class_activation_maps(model, SLICES)
    assert maps.shape == (5, side, side)
    assert maps.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + head_bias(model), logits, atol=1e-4)


def test_the_mean_of_a_classs_map_and_its_bias_are_its_logit(model):
    maps, logits = maps_by_class(model, SMALL_SLICES)
    assert maps.shape == (5, 4, 4, len(CLASSES))
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + np.array([0.3, -0.4]), logits, atol=1e-4)


def test_the_logit_is_that_of_the_models_probability(model):
    _, logits = class_activation_maps(model, SMALL_SLICES)
    probability = model.predict(SMALL_SLICES[..., None], verbose=0)[:, CLASSES.index("AD")]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), probability, atol=1e-6)


def test_batches_do_not_change_the_maps(model):
    in_twos, _ = class_activation_maps(model, SMALL_SLICES, batch_size=2)
    all_at_once, _ = class_activation_maps(model, SMALL_SLICES, batch_size=64)
    np.testing.assert_allclose(in_twos, all_at_once, atol=1e-5)


def test_maps_follow_the_weights_of_the_moment(small_model):
    model = small_model()
    before, _ = class_activation_maps(model, SMALL_SLICES)
    head = model.get_layer("head")
    head.kernel.assign(head.kernel * 2.0)
    after, _ = class_activation_maps(model, SMALL_SLICES)
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4, atol=1e-6)


def test_a_saved_model_has_the_same_maps(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    ours, theirs = (class_activation_maps(network, SMALL_SLICES)[0] for network in (model, loaded))
    np.testing.assert_array_equal(ours, theirs)


def test_no_slices_give_no_maps(model):
    maps, logits = class_activation_maps(model, SMALL_SLICES[:0])
    assert maps.shape == (0, 4, 4)
    assert logits.shape == (0,)
