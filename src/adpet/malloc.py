"""Memory that is freed is kept for the next array, instead of being given back and asked for anew.

A network frees and takes its arrays at every step. glibc gives each large one back to the system, which hands
out empty pages again and again: more than half of the processor time of a training on two cores
(`benchmarks/memory.py`). What is computed does not change by a bit.
"""

import ctypes
import os
import platform

# By glibc's numbers of `mallopt`, and the names by which processes that are started later are told.
_SETTINGS = {
    "MALLOC_MMAP_MAX_": (-4, 0),  # no array has pages of its own
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),  # what is free at the end of the heap stays
}


def keep_freed_memory() -> None:
    """Set this process, and those that it starts, to keep what they free; nothing happens without glibc.

    A variable of the environment that is set already is left as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for name, (number, value) in _SETTINGS.items():
        if name not in os.environ:
            libc.mallopt(number, value)
            os.environ[name] = str(value)
