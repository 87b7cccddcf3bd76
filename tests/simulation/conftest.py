import pytest

from adpet.simulation.anatomy import load_anatomy


@pytest.fixture(scope="session")
def anatomy():
    return load_anatomy()
