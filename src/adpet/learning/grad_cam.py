"""Grad-CAM for heads that have no exact map: the feature layer's maps, weighted by their mean gradient.

alpha_kc is the mean of d logit_c / d A_k over the map's places (Selvaraju et al. 2017, "Grad-CAM"). It is
taken times the number of places and without the final ReLU: for global average pooling before a Dense
layer the map is then the exact one, in the logit's unit, and evidence against a class stays visible.
"""

from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning.gradients import LogitGradient
from adpet.learning.model import HEAD_NAME
from adpet.learning.training import predict_batch

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
