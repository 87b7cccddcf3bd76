import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from adpet.errors import ParameterError
from adpet.learning.checkpoint import load_model, save_model
from adpet.learning.model import (
    CLASSES,
    batch_norm_layers,
    build_model,
    ensemble,
    probability_of_ad,
    reestimate_batch_norm,
)
from adpet.learning.saliency import class_activation_maps

BATCH = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def mobilenet():
    keras.utils.set_random_seed(5)
    return keras.applications.MobileNetV2(
        input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None
    )


@pytest.fixture(scope="module")
def published(mobilenet, tmp_path_factory):
    """Write weights in the format of the files that Keras publishes."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2_no_top.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, mobilenet)
    return path


class TestBuildModel:
    def test_parameter_count_is_that_of_the_2019_network(self):
        model = build_model(input_size=128, alpha=1.5, feature_layer="Conv_1", dropout=0.0, seed=0)
        assert model.count_params() == pytest.approx(4.99e6, rel=0.005)

    def test_saved_model_loads_in_safe_mode_with_equal_probabilities(self, small_model, tmp_path):
        model = small_model()
        outputs = model.predict(BATCH, verbose=0)
        np.testing.assert_allclose(outputs.sum(axis=1), np.ones(4), rtol=1e-6)
        np.testing.assert_array_equal(probability_of_ad(outputs), outputs[:, CLASSES.index("AD")])
        save_model(model, tmp_path / "model.keras")
        loaded = load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(outputs, loaded.predict(BATCH, verbose=0))
        assert [layer.momentum for layer in batch_norm_layers(loaded)] == [0.9] * 19
        assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}


class TestEnsemble:
    @pytest.fixture
    def models(self, small_model):
        models = [small_model(seed=seed) for seed in range(3)]
        for number, model in enumerate(models):
            model.get_layer("head").bias.assign([0.1 * number, 0.3])
        return models

    def test_logits_and_maps_are_the_means_of_the_members(self, models, tmp_path):
        save_model(ensemble(models), tmp_path / "model.keras")
        maps, logits = class_activation_maps(load_model(tmp_path / "model.keras"), BATCH[..., 0])
        found = [class_activation_maps(model, BATCH[..., 0]) for model in models]
        assert np.ptp([member for _, member in found], axis=0).min() > 0
        np.testing.assert_allclose(maps, np.mean([member for member, _ in found], axis=0), atol=1e-5)
        np.testing.assert_allclose(logits, np.mean([member for _, member in found], axis=0), atol=1e-5)

    def test_training_from_an_ensemble_starts_with_its_first_network(self, models, small_model, tmp_path):
        save_model(ensemble(models), tmp_path / "model.keras")
        started = small_model(weights=str(tmp_path / "model.keras"))
        for ours, theirs in zip(started.get_weights(), models[0].get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


class TestWeights:
    def test_weights_file_of_either_format_fills_three_grey_channels(
        self, small_model, mobilenet, published, tmp_path
    ):
        mobilenet.save_weights(tmp_path / "network.weights.h5")
        for path in (published, tmp_path / "network.weights.h5"):
            model = small_model(weights=str(path))
            for name in ("Conv1", "block_3_depthwise", "block_6_expand_BN"):
                theirs = mobilenet.get_layer(name).get_weights()
                for ours, other in zip(model.get_layer(name).get_weights(), theirs, strict=True):
                    np.testing.assert_array_equal(ours, other)

    def test_imagenet_is_taken_for_a_size_without_weights_of_its_own(
        self, small_model, mobilenet, published, monkeypatch
    ):
        asked = []

        def fetch(name, *_, **__):
            asked.append(name)
            return str(published)

        monkeypatch.setattr("keras.src.utils.file_utils.get_file", fetch)
        model = small_model(weights="imagenet")
        assert asked == ["mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"]
        np.testing.assert_array_equal(
            model.get_layer("Conv1").get_weights()[0], mobilenet.get_layer("Conv1").get_weights()[0]
        )

    def test_imagenet_that_cannot_be_fetched_is_one_clear_line(self, small_model, monkeypatch):
        def fetch(*_, **__):
            raise OSError("URL fetch failure on https://example.org:\nNone -- no route to host")

        monkeypatch.setattr("keras.src.utils.file_utils.get_file", fetch)
        with pytest.raises(ParameterError, match="imagenet could not be fetched; give the path") as error:
            small_model(weights="imagenet")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("suffix", ["h5", "keras"])
    def test_missing_or_other_file_is_named(self, small_model, tmp_path, suffix):
        with pytest.raises(ParameterError, match=f"gone.{suffix}, which is not there"):
            small_model(weights=str(tmp_path / f"gone.{suffix}"))
        (tmp_path / f"text.{suffix}").write_text("no weights")
        with pytest.raises(ParameterError, match=f"received .*text.{suffix}, which"):
            small_model(weights=str(tmp_path / f"text.{suffix}"))

    def test_weights_of_another_width_do_not_fit(self, small_model, published):
        with pytest.raises(ParameterError, match=r"model.alpha: 0\.5; received .*does not fit") as error:
            small_model(weights=str(published), alpha=0.5)
        assert "\n" not in str(error.value)

    def test_an_earlier_model_gives_all_its_weights(self, small_model, published, tmp_path):
        earlier = small_model(weights=str(published), seed=3)
        earlier.save(tmp_path / "earlier.keras")
        model = small_model(weights=str(tmp_path / "earlier.keras"), dropout=0.5)
        np.testing.assert_array_equal(model.predict(BATCH, verbose=0), earlier.predict(BATCH, verbose=0))
        assert model.get_layer("dropout").rate == 0.5

    @pytest.mark.parametrize("other", [{"alpha": 0.5}, {"channels": 3}], ids=["width", "channels"])
    def test_an_earlier_model_of_another_shape_does_not_fit(self, small_model, tmp_path, other):
        small_model().save(tmp_path / "earlier.keras")
        with pytest.raises(
            ParameterError, match=r"same model\.alpha, model\.feature_layer and channels .*; received"
        ):
            small_model(weights=str(tmp_path / "earlier.keras"), **other)


class TestFuseBatchNorm:
    def test_a_step_of_training_is_that_of_keras_own_layers(self, small_model):
        fused = small_model()
        own = keras.models.clone_model(fused)
        own.set_weights(fused.get_weights())
        assert any("call" in vars(layer) for layer in fused.layers)
        for model in (fused, own):
            model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
            model.train_on_batch(BATCH, np.eye(2)[[0, 1, 1, 0]])
        for one, other in zip(fused.weights, own.weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=one.path)


class TestReestimateBatchNorm:
    def test_statistics_are_those_of_training(self, small_model):
        """With the momentum at 0, one step of training leaves exactly one batch's statistics."""
        model, reference = small_model(), small_model()
        for layer in batch_norm_layers(reference):
            layer.momentum = 0.0
        reestimate_batch_norm(model, [BATCH])
        reference(BATCH, training=True)
        for ours, theirs in zip(batch_norm_layers(model), batch_norm_layers(reference), strict=True):
            np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-4, atol=1e-5)

    def test_the_first_layer_gets_the_mean_and_variance_of_all_slices(self, small_model):
        model = small_model()
        batches = np.random.default_rng(1).integers(0, 256, (5, 4, 32, 32, 1)).astype(np.uint8)
        batches[:, :, :, :16] //= np.arange(1, 6, dtype=np.uint8)[:, None, None, None, None]
        reestimate_batch_norm(model, batches)
        inputs = keras.Model(model.inputs, model.get_layer("Conv1").output)
        values = inputs.predict(np.concatenate(list(batches)), verbose=0)
        norm = model.get_layer("bn_Conv1")
        np.testing.assert_allclose(norm.moving_mean, values.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(norm.moving_variance, values.var(axis=(0, 1, 2)), rtol=1e-4)

    def test_nothing_else_changes(self, small_model):
        model = small_model()
        before = {variable.path: np.array(variable) for variable in model.variables}
        reestimate_batch_norm(model, [BATCH])
        changed = {v.path for v in model.variables if not np.array_equal(before[v.path], np.array(v))}
        assert all("moving_" in path for path in changed)
        assert len(changed) == 2 * 19
        assert {layer.momentum for layer in batch_norm_layers(model)} == {0.9}
