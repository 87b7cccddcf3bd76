"""Keras on any backend: network, data, training and saliency."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from adpet.errors import ParameterError

if TYPE_CHECKING:
    import keras

__all__ = ["RISING", "keras", "limit_threads", "quietly", "spread_over_devices"]

# The validation metrics for which more is better; for the others less is.
RISING = ("val_accuracy", "val_subject_auc")
# Folds and trials share a GPU: each process takes the memory it needs, where TensorFlow would take all of it,
# and JAX 75 % (docs.jax.dev, GPU memory allocation).
ON_DEMAND = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back what a backend prints; show it on failure."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def limit_threads(threads: int) -> None:
    """Set the threads of networks, also in later processes.

    A GPU's memory is shared too, unless the environment says how. Backends read the environment when they
    start: call this before the first operation of the process. A backend that runs already keeps its threads,
    on whose number the order of a sum depends.
    """
    count = str(threads)
    os.environ |= {
        "OMP_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "PJRT_NPROC": count,
        "TF_DETERMINISTIC_OPS": "1",
    }
    for name, value in ON_DEMAND.items():
        os.environ.setdefault(name, value)


def spread_over_devices(count: int, *, batch_size: int) -> None:
    """Train on several devices, parts of batches on each.

    By `keras.distribution`, which knows JAX alone. Call this before the first network is built.
    ParameterError without as many devices, or where they cannot part the batch equally.
    """
    if count == 1:
        return
    keras = __getattr__("keras")
    backend = keras.backend.backend()
    devices = keras.distribution.list_devices() if backend == "jax" else []
    if len(devices) < count or batch_size % count:
        raise ParameterError(
            f"compute.devices: {count} devices need KERAS_BACKEND=jax, as many GPUs, and a train.batch_size "
            f"that they can share; received {backend}, {len(devices)} of JAX's, and {batch_size}; set it to 1"
        )
    if not keras.distribution.distribution():
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices[:count]))


@cache
def __getattr__(name: str) -> Any:
    """Import Keras, which takes seconds, at the first use."""
    if name != "keras":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # A user's keras.json is for other networks: its backend would be in no lineage, and its image format,
    # float type or epsilon would train another network.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with quietly():
        import keras
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    # TensorFlow warns of every network after the fifth in a process: folds and trials are several by design.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return keras
