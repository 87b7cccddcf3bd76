"""Keras on any backend: network, data, training and saliency."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


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


# A user's keras.json is for other networks: its backend would be in no lineage, and its image format, float
# type or epsilon would train another network.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with quietly():
    import keras
keras.config.set_image_data_format("channels_last")
keras.config.set_floatx("float32")
keras.config.set_epsilon(1e-7)

# TensorFlow warns of every network after the fifth in a process: folds and trials are several by design.
logging.getLogger("tensorflow").setLevel(logging.ERROR)
