"""Freed memory is kept for the next array."""

import os
import platform

import pytest
from programs import run_code

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


def pages(how):
    """Return the pages that the system hands out for five arrays of 64 MB, and the variable set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    faults, variable = run_code(PAGES, how, env=clean).stdout.split()
    return int(faults), variable


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_array_takes_the_pages_of_a_freed_one():
    given_back, _ = pages("given back")
    kept, variable = pages("kept")
    assert given_back > 100
    assert kept < given_back / 10
    assert variable == "0", "processes that are started later are variable by the environment"
