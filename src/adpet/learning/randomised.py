"""A network whose layers are drawn anew, from the head down, one group after the other."""

from collections.abc import Iterator

import keras
import numpy as np

from adpet.learning.checkpoint import assign_values, values_of

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
