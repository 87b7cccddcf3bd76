"""Class activation maps, exact: the head's weights times the feature layer's maps.

With global average pooling before a Dense layer, CAM_c = sum_k w_kc A_k, and the mean of CAM_c
over the map plus b_c is the logit of class c (Zhou et al. 2016, "Learning deep features for
discriminative localization"). No gradient and no rescaling is involved. Other heads are explained by
Grad-CAM (`adpet.learning.grad_cam`), which is the same for this head.

Maps cover the slice, place by place. Keras pads MobileNetV2's strided layers below and to the right
only, which puts the receptive field of a place (stride - 1) / 2 pixels further that way: by 3.5 at
stride 8 (3.4 measured, new networks). Training takes back most of it: in five networks that were
trained to find spots a third was left, 1.1 pixels at stride 8 and 2.1 at 16. So maps are not moved.
"""

from collections.abc import Iterator
from typing import Literal
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning.checkpoint import values_of
from adpet.learning.grad_cam import gradient_maps_by_class
from adpet.learning.model import CLASSES, HEAD_NAME, POOL_NAME
from adpet.learning.training import predict_batch

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
