"""Saliency of a network: CAM, Grad-CAM, integrated gradients, randomized weights."""

from collections.abc import Iterator
from typing import Any, Literal
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning.checkpoint import assign_values, values_of
from adpet.learning.model import CLASSES, HEAD_NAME, POOL_NAME, compiles_with_xla
from adpet.learning.training import predict_batch

Array = npt.NDArray[np.float32]


class LogitGradient:
    """What a layer's output does to the logits.

    Parameters
    ----------
    model : keras.Model
        Functional, with a layer `HEAD_NAME` that gives the logits.
    layer : keras.layers.Layer
        One of its layers before the head.
    batch_size : int
        Samples at a time.
    """

    def __init__(self, model: keras.Model, layer: Any, batch_size: int) -> None:
        self._tail = keras.Model(layer.output, model.get_layer(HEAD_NAME).output)
        # A copy, so that nothing of the network itself can be trained by accident.
        self._copy = keras.models.clone_model(self._tail)
        self._copy.trainable = False
        self._probe = _Probe(self._copy, (batch_size, *layer.output.shape[1:]))
        self._taken: list[Array] = []

    def take_weights(self) -> None:
        """Follow the network's weights of the moment."""
        weights = values_of(self._tail.weights)
        # Setting them takes longer than a gradient.
        if not self._taken or not all(map(np.array_equal, weights, self._taken)):
            self._copy.set_weights(weights)
            self._taken = weights

    def __call__(self, features: Array, weights: npt.ArrayLike) -> Array:
        """Return d (weights . logits) / d features, like `features`, for at most `batch_size` samples.

        Parameters
        ----------
        features : (n, ...) float32 ndarray
            Outputs of the layer.
        weights : (classes,) sequence of float
            One weight a logit.
        """
        return self._probe.gradient(features, np.asarray(weights, dtype=np.float32))


class _Probe(keras.Model):  # type: ignore[misc]
    """What follows the layer, with a variable added to its output that one step turns into the gradient."""

    def __init__(self, tail: keras.Model, shape: tuple[int, ...]) -> None:
        super().__init__(name="probe")
        self._tail = tail
        self._moved = self.add_weight(shape=shape, initializer="zeros", name="moved")
        # A rate of 1, and the sum over samples as loss: each sample's gradient is its own.
        self.compile(
            optimizer=keras.optimizers.SGD(1.0),
            loss=lambda weights, logits: -keras.ops.sum(weights * logits, axis=-1),
            jit_compile=compiles_with_xla(),
        )
        self._samples = shape[0]

    def call(self, features: Any) -> Any:
        # Explained as it answers: no Dropout, the moving statistics of BatchNorm.
        return self._tail(features + self._moved, training=False)

    def gradient(self, features: Array, weights: Array) -> Array:
        n = len(features)
        full = np.concatenate([features, np.zeros((self._samples - n, *features.shape[1:]), np.float32)])
        self._moved.assign(np.zeros(self._moved.shape, np.float32))
        self.train_on_batch(full, np.tile(weights, (self._samples, 1)))
        # Keras takes the mean of the samples' losses, and moves against the gradient of the loss.
        (moved,) = values_of([self._moved])
        return np.asarray(moved[:n] * self._samples, dtype=np.float32)


# Samples, height, width and channels make an output with places.
MAP_RANK = 4

# What explains a network, by batch size, so that it is compiled once, not for every scan.
_EXPLAINERS: WeakKeyDictionary[keras.Model, dict[int, "_Explainer"]] = WeakKeyDictionary()


def gradient_maps_by_class(
    model: keras.Model, slices: npt.NDArray[np.uint8], batch_size: int = 64
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return one Grad-CAM a class at the last layer that has places.

    Parameters
    ----------
    model : keras.Model
        Functional, with a layer `HEAD_NAME` that gives the logits.
    slices : (n, height, width) uint8 ndarray

    Returns
    -------
    maps : (n, h, w, classes) float32 ndarray
        In units of the logit.
    logits : (n, classes) float32 ndarray

    Raises
    ------
    InputError
        Where no layer before the head has places.
    """
    explainers = _EXPLAINERS.setdefault(model, {})
    if batch_size not in explainers:
        explainers[batch_size] = _Explainer(model, batch_size)
    explainer = explainers[batch_size]
    # An empty batch has maps too, none.
    starts = range(0, max(len(slices), 1), batch_size)
    parts = [explainer.explain(slices[start : start + batch_size, ..., np.newaxis]) for start in starts]
    return np.concatenate([maps for maps, _ in parts]), np.concatenate([logits for _, logits in parts])


def feature_layer(model: keras.Model) -> Any:
    """Return the last layer before the head whose output has places.

    Raises
    ------
    InputError
        Where there is none.
    """
    names = [layer.name for layer in model.layers]
    if HEAD_NAME in names:
        for layer in reversed(model.layers[1 : names.index(HEAD_NAME)]):
            if len(layer.output.shape) == MAP_RANK:
                return layer
    raise InputError(
        f"{model.name}: required a layer named {HEAD_NAME} that gives the logits, and one before it with "
        "(samples, height, width, channels); received a model without; Grad-CAM cannot explain it"
    )


class _Explainer:
    """The features and logits of a network, and the gradient between them."""

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        layer, head = feature_layer(model), model.get_layer(HEAD_NAME)
        self._batch_size = batch_size
        self._features_and_logits = keras.Model(model.inputs, [layer.output, head.output])
        self._gradient = LogitGradient(model, layer, batch_size)

    def explain(self, batch: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], Any]:
        features, logits = predict_batch(self._features_and_logits, batch, self._batch_size)
        self._gradient.take_weights()
        gradients = [self._gradient(features, chosen) for chosen in np.eye(logits.shape[1])]
        # The sum over places: the mean, times their number.
        weights = np.stack([gradient.sum(axis=(1, 2)) for gradient in gradients], axis=-1)
        return np.einsum("nhwk,nkc->nhwc", features, weights), logits


Method = Literal["auto", "cam", "grad-cam"]

# Features and logits of each network, so that its maps are compiled once, not for every scan.
_FEATURE_MODELS: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


def class_activation_maps(
    model: keras.Model, slices: npt.NDArray[np.uint8], batch_size: int = 64, *, method: Method = "auto"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return where each slice speaks for AD rather than for CN.

    Parameters
    ----------
    model : keras.Model
        As built by `build_model`, also after saving and loading; for Grad-CAM, any functional model whose
        layer `HEAD_NAME` gives the logits in the order of `CLASSES`.
    slices : (n, height, width) uint8 ndarray
    method : {"auto", "cam", "grad-cam"}
        ``auto`` is the exact map where the head has one, else Grad-CAM.

    Returns
    -------
    maps : (n, h, w) float32 ndarray
        AD minus CN, in units of the logit; `h` and `w` are the feature layer's.
    logits : (n,) float32 ndarray
        Logit of AD minus that of CN, the log-odds of AD: the mean of an exact map plus `head_bias`.

    Raises
    ------
    InputError
        Where an exact map is asked of a head that has none.
    """
    if method_for(model, method) == "cam":
        maps, logits = maps_by_class(model, slices, batch_size)
    else:
        maps, logits = gradient_maps_by_class(model, slices, batch_size)
    ad, cn = CLASSES.index("AD"), CLASSES.index("CN")
    return maps[..., ad] - maps[..., cn], logits[:, ad] - logits[:, cn]


def method_for(model: keras.Model, method: Method) -> Literal["cam", "grad-cam"]:
    """Return which of the two maps `method` means for `model`.

    Raises
    ------
    InputError
        Where an exact map is asked of a head that has none.
    """
    exact = has_pooled_head(model)
    if method == "auto":
        return "cam" if exact else "grad-cam"
    if method == "cam" and not exact:
        raise InputError(
            f"explain.method: required a model that pools its features before one Dense layer for cam; "
            f"received {model.name}, which does not; set explain.method to grad-cam"
        )
    return method


def has_pooled_head(model: keras.Model) -> bool:
    """Say whether features are averaged over the slice and go, but for Dropout, straight to the logits."""
    names = [layer.name for layer in model.layers]
    if POOL_NAME not in names or HEAD_NAME not in names:
        return False
    between = model.layers[names.index(POOL_NAME) + 1 : names.index(HEAD_NAME)]
    return (
        isinstance(model.get_layer(POOL_NAME), keras.layers.GlobalAveragePooling2D)
        and isinstance(model.get_layer(HEAD_NAME), keras.layers.Dense)
        and model.get_layer(HEAD_NAME).activation is keras.activations.linear
        and all(isinstance(layer, keras.layers.Dropout) for layer in between)
    )


def maps_by_class(
    model: keras.Model, slices: npt.NDArray[np.uint8], batch_size: int = 64
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return one map a class.

    Returns
    -------
    maps : (n, h, w, 2) float32 ndarray
        In units of the logit, in the order of `CLASSES`.
    logits : (n, 2) float32 ndarray
    """
    # Batches are filled up: a scan's slices should not be explained with as many empty ones.
    parts = list(_maps_of_batches(model, slices, min(batch_size, max(len(slices), 1))))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def head_bias(model: keras.Model) -> float:
    """Return the part of the log-odds of AD that no place of a slice accounts for."""
    (bias,) = values_of([model.get_layer(HEAD_NAME).bias])
    return float(bias[CLASSES.index("AD")] - bias[CLASSES.index("CN")])


def _maps_of_batches(
    model: keras.Model, slices: npt.NDArray[np.uint8], batch_size: int
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    (kernel,) = values_of([model.get_layer(HEAD_NAME).kernel])
    if model not in _FEATURE_MODELS:
        outputs = [model.get_layer(POOL_NAME).input, model.get_layer(HEAD_NAME).output]
        _FEATURE_MODELS[model] = keras.Model(model.inputs, outputs)
    for start in range(0, max(len(slices), 1), batch_size):
        batch = slices[start : start + batch_size, ..., np.newaxis]
        features, logits = predict_batch(_FEATURE_MODELS[model], batch, batch_size)
        yield features @ kernel, logits


Maps = npt.NDArray[np.float32]

# Slices on their paths that are looked at together.
BATCH_SIZE = 64

# The first layer and the gradient of each network, so that they are compiled once, not for every scan.
_FIRST: WeakKeyDictionary[keras.Model, tuple[keras.Model, LogitGradient]] = WeakKeyDictionary()


def integrated_maps(
    model: keras.Model, slices: npt.NDArray[np.uint8], baseline: npt.NDArray[np.uint8], *, steps: int
) -> Maps:
    """Return what each pixel's departure from the baseline adds to the log-odds of AD.

    Parameters
    ----------
    model : keras.Model
        Functional, with a layer `HEAD_NAME` that gives the logits; its first layer scales pixel by pixel.
    slices, baseline : (n, height, width) uint8 ndarray
    steps : int
        Places on the path where the gradient is taken, in the middle of equal parts.

    Returns
    -------
    maps : (n, height, width) float32 ndarray
        Their sum over a slice comes near the difference of the two log-odds, the nearer with more steps.

    Raises
    ------
    InputError
        Where the baseline has another shape than the slices.
    """
    if slices.shape != baseline.shape:
        raise InputError(
            f"integrated gradients: required a baseline for every slice, {slices.shape}; "
            f"received {baseline.shape}"
        )
    if model not in _FIRST:
        layer = model.layers[1]
        _FIRST[model] = keras.Model(model.inputs, layer.output), LogitGradient(model, layer, BATCH_SIZE)
    scaling, gradient = _FIRST[model]
    gradient.take_weights()
    start, end = (_scaled(scaling, batch) for batch in (baseline, slices))
    parts = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    path = np.concatenate([start + part * (end - start) for part in parts])
    weights = [{"AD": 1.0, "CN": -1.0}[name] for name in CLASSES]
    found = [gradient(path[begin : begin + BATCH_SIZE], weights) for begin in range(0, len(path), BATCH_SIZE)]
    mean = np.concatenate(found).reshape(steps, *start.shape).mean(axis=0)
    return np.asarray((mean * (end - start)).sum(axis=-1), dtype=np.float32)


def _scaled(scaling: keras.Model, slices: npt.NDArray[np.uint8]) -> Maps:
    batches = (
        slices[begin : begin + BATCH_SIZE, ..., np.newaxis] for begin in range(0, len(slices), BATCH_SIZE)
    )
    return np.concatenate([predict_batch(scaling, batch, BATCH_SIZE) for batch in batches])


# Layers of one block of MobileNetV2 are named after it: block_6_expand, expanded_conv_project, Conv_1_bn ...
BLOCK_WORDS = 2
BLOCKS = ("block", "expanded", "Conv")


def cascade(model: keras.Model, *, seed: int) -> Iterator[tuple[str, keras.Model]]:
    """Yield a copy of `model` with ever more layers as they were before training, from the head down.

    Weights are permuted within each variable: their size and spread stay as they were trained, what they
    mean is lost. A freshly drawn network would also differ in the scale of its features.

    Parameters
    ----------
    model : keras.Model
        Left as it is.
    seed : int
        Of the permutations.

    Yields
    ------
    name : str
        The block whose weights have been lost last, such as ``head`` or ``block_6``.
    randomised : keras.Model
        The same object each time, with the weights of that moment.
    """
    copy = keras.models.clone_model(model)
    assign_values(copy.variables, values_of(model.variables))
    rng = np.random.default_rng(seed)
    for name, layers in reversed(_blocks(copy)):
        for layer in layers:
            drawn = [rng.permuted(value.ravel()).reshape(value.shape) for value in values_of(layer.weights)]
            assign_values(layer.weights, drawn)
        yield name, copy


def _blocks(model: keras.Model) -> list[tuple[str, list[keras.Layer]]]:
    """Return the layers that have weights, by block, first to last."""
    blocks: dict[str, list[keras.Layer]] = {}
    for layer in model.layers:
        if layer.weights:
            words = layer.name.split("_")
            name = "_".join(words[:BLOCK_WORDS]) if words[0] in BLOCKS else layer.name.removeprefix("bn_")
            blocks.setdefault(name, []).append(layer)
    return list(blocks.items())
