"""The network: MobileNetV2 features, average pooling, Dropout, Dense, softmax.

Input is a batch of slices, uint8 (n, height, width, channels): grey ones, or each between its neighbours
(2.5D). Output is one probability a class. An ensemble of networks is such a network too: its features are
all of theirs, its logits the mean of theirs. Only standard Keras layers, so that a saved model loads in safe
mode and without this package.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from adpet.errors import ParameterError
from adpet.learning import keras
from adpet.learning.batch_norm import fuse_batch_norm

# The order of the network's outputs; nowhere else may a class be known by its number.
CLASSES = ("CN", "AD")

# Keras' own 0.999 leaves the moving statistics near their start in a training of some hundred steps.
BATCH_NORM_MOMENTUM = 0.9

# Channels of MobileNetV2's own weights.
RGB = 3

# Names of the parts of a saved model.
INPUT_NAME = "slice"
SCALE_NAME = "scale"
POOL_NAME = "pool"
DROPOUT_NAME = "dropout"
HEAD_NAME = "head"
OUTPUT_NAME = "probability"

Part = TypeVar("Part")
Precision = Literal["float32", "bfloat16"]

# What is compiled once for each network, as long as it lives.
_COMPILED: WeakKeyDictionary[keras.Model, dict[Any, Any]] = WeakKeyDictionary()

# The network that a process uses again and again, by its settings.
_REUSED: dict[str, keras.Model] = {}


def build_model(
    *,
    input_size: int,
    alpha: float,
    feature_layer: str,
    weights: str = "none",
    dropout: float,
    seed: int,
    channels: int = 1,
) -> keras.Model:
    """Build the network for square slices.

    Python's random state is set from `seed`: Keras' applications take their weights from it.

    Parameters
    ----------
    input_size : int
        Height and width in pixels; a multiple of 32.
    feature_layer : str
        The last layer of MobileNetV2 that is kept.
    weights : str
        ``none`` (random), ``imagenet``, the path of a MobileNetV2 weights file without top
        (``.h5``), or the path of an earlier model of ours (``.keras``), head included; of an ensemble its
        first network.
        MobileNetV2's own weights have three input channels: a slice's three, or all get the grey slice.
    channels : int
        Of a slice: 1, or 3 with its neighbours.
    """
    # Keras draws initial weights from Python's own state. Its `set_random_seed` would have TensorFlow prepare
    # all that is compiled again.
    random.seed(seed)
    earlier, input_channels = None, channels if weights == "none" else RGB
    if weights.endswith(".keras"):
        earlier = _load_earlier(Path(weights))
        input_channels = int(earlier.get_layer("Conv1").kernel.shape[2])
    slices = keras.Input((input_size, input_size, channels), dtype="uint8", name=INPUT_NAME)
    features = _features(slices, input_channels, alpha, feature_layer, "none" if earlier else weights)
    pooled = keras.layers.GlobalAveragePooling2D(name=POOL_NAME)(features)
    pooled = keras.layers.Dropout(dropout, seed=seed, name=DROPOUT_NAME)(pooled)
    logits = keras.layers.Dense(len(CLASSES), kernel_initializer="random_uniform", name=HEAD_NAME)(pooled)
    model = keras.Model(slices, keras.layers.Softmax(name=OUTPUT_NAME)(logits), name="adpet")
    for layer in batch_norm_layers(model):
        layer.momentum = BATCH_NORM_MOMENTUM
    fuse_batch_norm(model)
    if earlier:
        _copy_weights(model, earlier, weights)
    return model


def reused_model(**settings: Any) -> keras.Model:
    """Build a network into the last one of its kind.

    `settings` are `build_model`'s. Only the values of the variables are new, so that what is compiled for the
    network is compiled once in a process: whatever was made of it before must be kept elsewhere.
    """
    kind = repr(sorted((name, value) for name, value in settings.items() if name != "seed"))
    built = build_model(**settings)
    if kind not in _REUSED:
        _REUSED.clear()
        _REUSED[kind] = built
    for variable, new in zip(_REUSED[kind].variables, built.variables, strict=True):
        variable.assign(new)
    return _REUSED[kind]


def ensemble(models: Sequence[keras.Model]) -> keras.Model:
    """Return one network with the mean of the models' logits.

    As in each of them, the logits are linear in average-pooled features, here those of all: the class
    activation map is the mean of theirs, exactly.
    """
    slices = keras.Input(models[0].input_shape[1:], dtype="uint8", name=INPUT_NAME)
    scaled = _scaled(slices)
    members = [
        keras.Model(
            model.get_layer(SCALE_NAME).output,
            [model.get_layer(POOL_NAME).input, model.get_layer(HEAD_NAME).output],
            name=f"member_{number}",
        )
        for number, model in enumerate(models)
    ]
    features = keras.layers.Concatenate(name="features")([member(scaled)[0] for member in members])
    pooled = keras.layers.GlobalAveragePooling2D(name=POOL_NAME)(features)
    head = keras.layers.Dense(len(CLASSES), name=HEAD_NAME)
    model = keras.Model(slices, keras.layers.Softmax(name=OUTPUT_NAME)(head(pooled)), name="adpet")
    kernels, biases = zip(*(each.get_layer(HEAD_NAME).get_weights() for each in models), strict=True)
    head.set_weights([np.concatenate(kernels) / len(models), np.mean(biases, axis=0)])
    return model


def members_of(model: keras.Model) -> list[keras.Model]:
    """Return an ensemble's members: scaled slices to features, logits."""
    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def probability_of_ad(outputs: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the probability of AD, (n,), from outputs, (n, 2)."""
    return np.asarray(outputs, dtype=np.float32)[..., CLASSES.index("AD")]


def batch_norm_layers(model: keras.Model) -> list[Any]:
    """Return the BatchNormalization layers, first to last."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def batch_norm_statistics(model: keras.Model) -> list[Any]:
    """Return all BatchNorm moving means and variances, by layer."""
    return [v for layer in batch_norm_layers(model) for v in (layer.moving_mean, layer.moving_variance)]


def has_accelerator() -> bool:
    """True if TensorFlow or JAX has a GPU."""
    if keras.backend.backend() == "torch":  # Keras does not list its devices
        return False
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


def compiles_with_xla() -> bool:
    """True unless TensorFlow runs on a CPU: slower there."""
    return keras.backend.backend() != "tensorflow" or has_accelerator()


def set_precision(model: keras.Model, precision: Precision) -> None:
    """Set the precision of features that are compiled next.

    Variables, scaled slices, pooled features, logits and BatchNorm's statistics stay float32.
    """
    policy = {"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision]
    for layer in model.layers:
        if layer.name not in (INPUT_NAME, SCALE_NAME, POOL_NAME, DROPOUT_NAME, HEAD_NAME, OUTPUT_NAME):
            layer.dtype_policy = policy


def compiled(model: keras.Model, key: Any, build: Callable[[], Part]) -> Part:
    """Return what `build` built for `model` the first time."""
    parts: dict[Any, Part] = _COMPILED.setdefault(model, {})
    if key not in parts:
        parts[key] = build()
    return parts[key]


def reestimate_batch_norm(model: keras.Model, batches: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Estimate the BatchNorm statistics from `batches`, as in training.

    Every layer gets the mean and variance of its inputs over all batches of shuffled slices, (n, height,
    width, 1), where each batch is normalised by its own statistics in the layers before.
    """
    layers = batch_norm_layers(model)
    batch_moments = compiled(model, "moments", lambda: _BatchMoments(model, layers))
    momenta = [layer.momentum for layer in layers]
    total = [np.zeros((3, layer.moving_mean.shape[0])) for layer in layers]
    weight = 0
    for layer in layers:
        layer.momentum = 0.0
    for batch in batches:
        for number, moments in enumerate(batch_moments.predict_on_batch(batch)):
            mean, variance = np.asarray(moments, dtype=np.float64)
            total[number] += len(batch) * np.stack([mean, mean**2, variance])
        weight += len(batch)
    for layer, momentum, sums in zip(layers, momenta, total, strict=True):
        layer.momentum = momentum
        mean, square, variance = sums / weight
        layer.moving_mean.assign(mean.astype(np.float32))
        layer.moving_variance.assign((variance + square - mean**2).astype(np.float32))


def _scaled(slices: Any) -> Any:
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name=SCALE_NAME)(slices)


def _features(slices: Any, channels: int, alpha: float, feature_layer: str, weights: str) -> Any:
    scaled = _scaled(slices)
    if channels > scaled.shape[-1]:
        scaled = keras.layers.Concatenate(name="grey_to_rgb")([scaled] * RGB)
    if weights not in ("none", "imagenet"):
        _require_file(Path(weights), "none, imagenet or the path of a weights file")
    try:
        with warnings.catch_warnings():
            # For a size that has no ImageNet weights of its own, Keras warns that it takes those of
            # 224 pixels: they fit, since the network is convolutional.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined")
            network = keras.applications.MobileNetV2(
                input_tensor=scaled,
                input_shape=tuple(scaled.shape[1:]),
                alpha=alpha,
                include_top=False,
                weights=None if weights == "none" else weights,
            )
    except Exception as error:
        if weights == "none":
            raise
        problem = (
            "imagenet could not be fetched; give the path of a MobileNetV2 weights file without top, or none"
            if weights == "imagenet"
            else f"required weights of MobileNetV2 without top for model.alpha: {alpha}; "
            f"received {weights}, which does not fit"
        )
        raise ParameterError(f"model.weights: {problem} ({_one_line(error)})") from error
    return network.get_layer(feature_layer).output


def _require_file(path: Path, required: str) -> None:
    if not path.is_file():
        raise ParameterError(f"model.weights: required {required}; received {path}, which is not there")


def _load_earlier(path: Path) -> keras.Model:
    _require_file(path, "an earlier model")
    try:
        earlier = keras.saving.load_model(path, compile=False, safe_mode=True)
        earlier = next(iter(members_of(earlier)), earlier)
        earlier.get_layer("Conv1")
    except Exception as error:
        raise ParameterError(
            f"model.weights: required a model saved by adpet; received {path}, which cannot be "
            f"read as one ({_one_line(error)})"
        ) from error
    return earlier


def _copy_weights(model: keras.Model, earlier: keras.Model, source: str) -> None:
    wanted = [f"{weight.path} {tuple(weight.shape)}" for weight in model.weights]
    received = [f"{weight.path} {tuple(weight.shape)}" for weight in earlier.weights]
    if wanted != received:
        pairs = zip_longest(wanted, received, fillvalue="nothing")
        first = next(f"{w}, received {r}" for w, r in pairs if w != r)
        raise ParameterError(
            "model.weights: required a model with the same model.alpha, model.feature_layer and channels "
            f"(slice.neighbours_mm); received {source}, which first differs at {first}"
        )
    model.set_weights(earlier.get_weights())


class _BatchMoments(keras.Model):  # type: ignore[misc]
    """Mean and variance of each BatchNorm's inputs, (2, channels)."""

    # With momentum 0, moving statistics are those of the last batch. A functional model would pass on the
    # inference mode of `predict`; what comes after the last BatchNorm would draw for Dropout.

    def __init__(self, model: keras.Model, layers: list[Any]) -> None:
        super().__init__(name="batch_moments")
        self._norms = layers
        self._to_last_norm = keras.Model(model.inputs, layers[-1].output)
        self.jit_compile = compiles_with_xla()

    def call(self, slices: Any) -> list[Any]:
        self._to_last_norm(slices, training=True)
        return [keras.ops.stack([norm.moving_mean.value, norm.moving_variance.value]) for norm in self._norms]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
