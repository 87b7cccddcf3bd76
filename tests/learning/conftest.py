"""A toy cohort that a small network learns in seconds: in AD a square on one side is darker."""

from pathlib import Path

import numpy as np
import pytest

from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.model import build_model
from adpet.learning.training import Optimisation, train

SIZE = 32
SLICES = 8
MODEL = {"input_size": SIZE, "alpha": 0.35, "feature_layer": "block_6_expand_relu", "dropout": 0.2, "seed": 1}
AUGMENTATION = Augmentation(rotation_degrees=5, zoom=0.05, shift=0.03, intensity=0.05)
OPTIMISATION = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "epochs": 3,
    "batch_size": 16,
}


def pytest_collection_modifyitems(items):
    """Let Keras turn TensorFlow's tensors to arrays: they lack the `copy` of NumPy 2's `__array__`."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))


@pytest.fixture(scope="session")
def small_model():
    return lambda **changes: build_model(**{**MODEL, **changes})


@pytest.fixture(scope="session")
def quick():
    return lambda **changes: Optimisation(**{**OPTIMISATION, **changes})


@pytest.fixture(scope="session")
def write_cohort():
    def write(folder: Path, subjects: int) -> list[SliceRef]:
        rng = np.random.default_rng(0)
        refs = []
        for number in range(subjects):
            label = ("CN", "AD")[number % 2]
            packed = rng.integers(80, 140, (SLICES, SIZE, SIZE)).astype(np.uint8)
            if label == "AD":
                packed[:, 8:20, 4:16] //= 2
            path = folder / f"scan-{number:02}.npy"
            np.save(path, packed[..., np.newaxis])
            refs += [SliceRef(path, index, label, f"s{number:02}") for index in range(SLICES)]
        return refs

    return write


@pytest.fixture(scope="session")
def cohort(tmp_path_factory, write_cohort) -> list[SliceRef]:
    """Write 24 scans of 8 slices."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), 24)


@pytest.fixture(scope="session")
def slices_of():
    return lambda refs: np.stack([np.load(ref.path)[ref.index] for ref in refs])


@pytest.fixture(scope="session")
def fit(small_model, quick, cohort):
    """Return a function that trains a small network; keywords change the training."""

    def fit(
        model=None, *, training=cohort[:128], validation=cohort[128:], augmentation=AUGMENTATION,
        monitor="val_loss", checkpoint=None, on_epoch=None, on_device=None, **options,
    ):  # fmt: skip
        model = model or small_model()
        history = train(
            model, training, validation, optimisation=quick(**options), augmentation=augmentation,
            monitor=monitor, seed=3, checkpoint=checkpoint, on_epoch=on_epoch, on_device=on_device,
        )  # fmt: skip
        return model, history

    return fit
