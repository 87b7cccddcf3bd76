"""Fixtures that every folder of tests may use."""

import os
from pathlib import Path

import pytest

# Two test processes share two cores: a library that starts a thread a core would halve both.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[1]
REAL_MEAN_IMAGE = ROOT.parent / "shared" / "real" / "TEMPLATE_FDGPET_100.nii"


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def real_mean_image() -> Path:
    """The mean of 100 real FDG-PET scans, which is not part of the project."""
    if not REAL_MEAN_IMAGE.exists():
        pytest.skip("the real FDG-PET mean image is not at ../shared/real/TEMPLATE_FDGPET_100.nii")
    return REAL_MEAN_IMAGE
