"""Large arrays are taken from memory that was freed before, not from the system."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import os, resource, sys
import numpy as np
from adpet.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8_000_000)
before = faults()
for _ in range(5):
    np.ones(8_000_000)
print(faults() - before, os.environ.get("MALLOC_MMAP_MAX_"))
"""


def pages(how, **variables):
    """The pages that five arrays of 64 MB, one after the other, are handed by the system."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ran = subprocess.run(
        [sys.executable, "-c", PAGES, how], env=clean | variables, capture_output=True, text=True, check=True
    )
    faults, told = ran.stdout.split()
    return int(faults), told


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_an_array_takes_the_pages_of_the_one_that_was_freed():
    given_back, _ = pages("given back")
    kept, told = pages("kept")
    assert given_back > 100
    assert kept < given_back / 10
    assert told == "0", "processes that are started later are told by the environment"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_what_the_user_has_set_stays():
    _, told = pages("kept", MALLOC_MMAP_MAX_="7")
    assert told == "7"
