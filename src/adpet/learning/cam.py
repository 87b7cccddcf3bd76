"""Class activation maps, exact: the head's weights times the feature layer's maps.

With global average pooling before a Dense layer, CAM_c = sum_k w_kc A_k, and the mean of CAM_c
over the map plus b_c is the logit of class c (Zhou et al. 2016, "Learning deep features for
discriminative localization"). No gradient and no rescaling is involved.

Maps cover the slice, place by place. Keras pads MobileNetV2's strided layers below and to the right
only, which puts the receptive field of a place (stride - 1) / 2 pixels further that way: by 3.5 at
stride 8 (3.4 measured, new networks). Training takes back most of it: in five networks that were
trained to find spots a third was left, 1.1 pixels at stride 8 and 2.1 at 16. So maps are not moved.
"""

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt

from adpet.learning.checkpoint import values_of
from adpet.learning.model import CLASSES, HEAD_NAME, POOL_NAME
from adpet.learning.training import predict_batch

# Features and logits of each network, so that its maps are compiled once, not for every scan.
_FEATURE_MODELS: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


def class_activation_maps(
    model: keras.Model, slices: npt.NDArray[np.uint8], batch_size: int = 64
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return where each slice speaks for AD rather than for CN.

    Parameters
    ----------
    model : keras.Model
        As built by `build_model`, also after saving and loading.
    slices : (n, height, width) uint8 ndarray

    Returns
    -------
    maps : (n, h, w) float32 ndarray
        AD minus CN, in units of the logit; `h` and `w` are the feature layer's.
    logits : (n,) float32 ndarray
        Logit of AD minus that of CN, the log-odds of AD: the mean of the map plus `head_bias`.
    """
    maps, logits = maps_by_class(model, slices, batch_size)
    ad, cn = CLASSES.index("AD"), CLASSES.index("CN")
    return maps[..., ad] - maps[..., cn], logits[:, ad] - logits[:, cn]


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
    parts = list(_maps_of_batches(model, slices, batch_size))
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
