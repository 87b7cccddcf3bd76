"""What each pixel of a slice adds to the network's answer, compared with another slice: integrated gradients.

Along the straight path from a baseline to the slice, the gradient of the log-odds says what a little more
of each pixel would do. Its mean over the path, times how far the pixel is moved, is what the pixel adds: over
all pixels the sum is the change of the log-odds from one slice to the other (Sundararajan et al. 2017,
"Axiomatic attribution for deep networks"). With a pooled head, the same at the feature layer is the
difference of the two slices' exact class activation maps: this is that map, carried down to the pixels.
"""

from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning.gradients import LogitGradient
from adpet.learning.model import CLASSES
from adpet.learning.training import predict_batch

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
