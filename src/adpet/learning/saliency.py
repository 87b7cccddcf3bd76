"""Saliency of a network: CAM, Grad-CAM, integrated gradients, randomized weights.

Maps are AD minus CN, in units of the logit.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning import keras
from adpet.learning.checkpoint import assign_values, values_of
from adpet.learning.model import CLASSES, HEAD_NAME, POOL_NAME, compiled, compiles_with_xla, members_of
from adpet.learning.training import predict_batch

# Slices at a time.
BATCH_SIZE = 64

# Rank of an output with places: samples, height, width, channels.
MAP_RANK = 4

# MobileNetV2 names layers after their block: block_6_expand, expanded_conv_project, Conv_1_bn ...
BLOCK_WORDS = 2
BLOCKS = ("block", "expanded", "Conv")

Array = npt.NDArray[np.float32]
Slices = npt.NDArray[np.uint8]
Method = Literal["auto", "cam", "grad-cam"]


def class_activation_maps(
    model: keras.Model, slices: Slices, batch_size: int = BATCH_SIZE, *, method: Method = "auto"
) -> tuple[Array, Array]:
    """Return saliency maps and log-odds of AD by slice.

    ``auto`` is the exact CAM if the head has one, else Grad-CAM, for which `model` may be any functional
    model whose layer `HEAD_NAME` gives the logits in the order of `CLASSES`.

    Returns
    -------
    maps : (n, h, w) float32 ndarray
        AD minus CN, in units of the logit; `h` and `w` are the feature layer's.
    logits : (n,) float32 ndarray
        Logit of AD minus that of CN, the log-odds of AD: the mean of an exact CAM plus the head's bias.
    """
    by_class = maps_by_class if method_for(model, method) == "cam" else gradient_maps_by_class
    maps, logits = by_class(model, slices, batch_size)
    ad, cn = CLASSES.index("AD"), CLASSES.index("CN")
    return maps[..., ad] - maps[..., cn], logits[:, ad] - logits[:, cn]


def method_for(model: keras.Model, method: Method) -> Literal["cam", "grad-cam"]:
    """Return the saliency method that `method` means for `model`."""
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
    """True if the logits are linear in average-pooled features."""
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


def maps_by_class(model: keras.Model, slices: Slices, batch_size: int = BATCH_SIZE) -> tuple[Array, Array]:
    """Return one exact CAM a class (Zhou, CVPR 2016).

    Maps (n, h, w, 2) and logits (n, 2) are in the order of `CLASSES`.
    """
    pool, head = model.get_layer(POOL_NAME), model.get_layer(HEAD_NAME)
    (kernel,) = values_of([head.kernel])
    features_and_logits = compiled(model, "cam", lambda: keras.Model(model.inputs, [pool.input, head.output]))

    def explain(batch: Slices, size: int) -> tuple[Array, Array]:
        features, logits = predict_batch(features_and_logits, batch, size)
        return features @ kernel, logits

    # Batches are filled up: a scan's slices should not be explained with as many empty ones.
    return _in_batches(explain, slices, min(batch_size, len(slices)))


def gradient_maps_by_class(
    model: keras.Model, slices: Slices, batch_size: int = BATCH_SIZE
) -> tuple[Array, Array]:
    """Return one Grad-CAM a class (Selvaraju, ICCV 2017).

    Maps (n, h, w, classes) are at the last layer that has places.
    """
    layer, head = feature_layer(model), model.get_layer(HEAD_NAME)
    features_and_logits = compiled(
        model, "grad-cam", lambda: keras.Model(model.inputs, [layer.output, head.output])
    )
    probe = _probe_after(model, layer, batch_size)

    def explain(batch: Slices, size: int) -> tuple[Array, Array]:
        features, logits = predict_batch(features_and_logits, batch, size)
        gradients = [probe.gradient(features, chosen) for chosen in np.eye(logits.shape[1])]
        # The sum over places: the mean, times their number.
        weights = np.stack([values.sum(axis=(1, 2)) for values in gradients], axis=-1)
        return np.einsum("nhwk,nkc->nhwc", features, weights), logits

    return _in_batches(explain, slices, batch_size)


def feature_layer(model: keras.Model) -> Any:
    """Return the last layer with places before the head."""
    names = [layer.name for layer in model.layers]
    if HEAD_NAME in names:
        for layer in reversed(model.layers[1 : names.index(HEAD_NAME)]):
            if len(layer.output.shape) == MAP_RANK:
                return layer
    raise InputError(
        f"{model.name}: required a layer named {HEAD_NAME} that gives the logits, and one before it with "
        "(samples, height, width, channels); received a model without; Grad-CAM cannot explain it"
    )


def integrated_maps(model: keras.Model, slices: Slices, baseline: Slices, *, steps: int) -> Array:
    """Return integrated gradients of the log-odds (Sundararajan, ICML 2017).

    The first layer of `model` scales pixel by pixel; `steps` are points on the path, in the middle of equal
    parts. With more of them, the sum of a map, (n, height, width), approaches the difference of the log-odds.
    """
    layer = model.layers[1]
    scaling = compiled(model, "scaling", lambda: keras.Model(model.inputs, layer.output))
    start, end = (
        np.concatenate(
            [
                predict_batch(scaling, images[i : i + BATCH_SIZE], BATCH_SIZE)
                for i in range(0, len(images), BATCH_SIZE)
            ]
        )
        for images in (baseline, slices)
    )
    parts = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    path = np.concatenate([start + part * (end - start) for part in parts])
    size = min(BATCH_SIZE, len(path))
    probe = _probe_after(model, layer, size)
    weights = [{"AD": 1.0, "CN": -1.0}[name] for name in CLASSES]
    found = [probe.gradient(path[i : i + size], weights) for i in range(0, len(path), size)]
    mean = np.concatenate(found).reshape(steps, *start.shape).mean(axis=0)
    return np.asarray((mean * (end - start)).sum(axis=-1), dtype=np.float32)


def cascade(model: keras.Model, *, seed: int) -> Iterator[tuple[str, keras.Model]]:
    """Yield a copy with weights randomized from the head down.

    This is the cascading randomization of Adebayo et al. (NeurIPS 2018); weights are permuted within each
    variable, so that their size and spread stay. The copy, the same object each time, comes with the block
    that was randomized last, such as ``head`` or ``block_6``.
    """
    copy = keras.models.clone_model(model)
    assign_values(copy.variables, values_of(model.variables))
    rng = np.random.default_rng(seed)
    for name, layers in reversed(_blocks(copy)):
        for layer in layers:
            drawn = [rng.permuted(value.ravel()).reshape(value.shape) for value in values_of(layer.weights)]
            assign_values(layer.weights, drawn)
        yield name, copy


class _Probe(keras.Model):  # type: ignore[misc]
    """The layers after a layer, whose output gets a variable."""

    # One step of gradient descent turns the variable into the gradient of the logits. The layers are the
    # network's own: the variable alone is trainable.

    def __init__(self, tail: keras.Model, batch_size: int) -> None:
        super().__init__(name="probe")
        shape = (batch_size, *tail.input_shape[1:])
        self._tail = tail
        self._moved = self.add_weight(shape=shape, initializer="zeros", name="moved")
        # A rate of 1, and the sum over samples as loss: each sample's gradient is its own.
        self.compile(
            optimizer=keras.optimizers.SGD(1.0),
            loss=lambda weights, logits: -keras.ops.sum(weights * logits, axis=-1),
            jit_compile=compiles_with_xla(),
        )
        self._samples = batch_size

    def call(self, features: Any) -> Any:
        # As in inference: no Dropout, the moving statistics of BatchNorm.
        return self._tail(features + self._moved, training=False)

    @property
    def trainable_variables(self) -> list[Any]:
        return [self._moved]

    @property
    def non_trainable_variables(self) -> list[Any]:
        return list(self._tail.variables)

    trainable_weights, non_trainable_weights = trainable_variables, non_trainable_variables

    def gradient(self, features: Array, weights: npt.ArrayLike) -> Array:
        n = len(features)
        full = np.concatenate([features, np.zeros((self._samples - n, *features.shape[1:]), np.float32)])
        self._moved.assign(np.zeros(self._moved.shape, np.float32))
        self.train_on_batch(full, np.tile(np.asarray(weights, dtype=np.float32), (self._samples, 1)))
        # Keras takes the mean of the samples' losses, and moves against the gradient of the loss.
        (moved,) = values_of([self._moved])
        return np.asarray(moved[:n] * self._samples, dtype=np.float32)


def _probe_after(model: keras.Model, layer: Any, batch_size: int) -> _Probe:
    key = ("tail", layer.name)
    tail = compiled(model, key, lambda: keras.Model(layer.output, model.get_layer(HEAD_NAME).output))
    return compiled(model, (*key, batch_size), lambda: _Probe(tail, batch_size))


def _in_batches(
    explain: Callable[[Slices, int], tuple[Array, Array]], slices: Slices, size: int
) -> tuple[Array, Array]:
    starts = range(0, len(slices), size)
    maps, logits = zip(*(explain(slices[start : start + size], size) for start in starts), strict=True)
    return np.concatenate(maps), np.concatenate(logits)


def _blocks(model: keras.Model) -> list[tuple[str, list[keras.Layer]]]:
    blocks: dict[str, list[keras.Layer]] = {}
    inner = [layer for member in members_of(model) for layer in member.layers if layer.name != HEAD_NAME]
    for layer in [*inner, *(layer for layer in model.layers if not isinstance(layer, keras.Model))]:
        if layer.weights:
            words = layer.name.split("_")
            name = "_".join(words[:BLOCK_WORDS]) if words[0] in BLOCKS else layer.name.removeprefix("bn_")
            blocks.setdefault(name, []).append(layer)
    return list(blocks.items())
