"""Whether two networks are the same: by the bits of their weights, and by how far these are apart."""

from typing import Any

import numpy as np


def weights_difference(first: Any, second: Any) -> float | None:
    """Return the largest difference between the weights of two Keras models; None for the same bits.

    Networks whose weights have other shapes are infinitely far apart. What is compared with NaN gives NaN.
    """
    ours, theirs = first.get_weights(), second.get_weights()
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return float("inf")
    pairs = list(zip(ours, theirs, strict=True))
    if all(one.dtype == two.dtype and one.tobytes() == two.tobytes() for one, two in pairs):
        return None
    apart = [np.abs(one.astype(np.float64) - two.astype(np.float64)).max(initial=0.0) for one, two in pairs]
    return float(np.max(apart))
