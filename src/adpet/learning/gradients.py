"""The gradient of a network's logits with respect to one of its layers, on every backend.

Keras has no gradient of its own, but its optimizers have. A variable that is added to a layer's output,
starts at 0 and takes one step of gradient descent at rate 1 becomes the gradient: no rounding is added, and
no backend is imported.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from adpet.learning.checkpoint import values_of
from adpet.learning.model import HEAD_NAME, compiles_with_xla

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
