"""Keras on any backend: the network, its data, its training and its class activation maps."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back what a backend writes to stderr within the block; show it if the block fails.

    TensorFlow's libraries say there which CPU and GPU features they have found as they are loaded, before any
    setting of theirs can silence them.
    """
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


with quietly():
    import keras  # noqa: F401
