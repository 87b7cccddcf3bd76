import shutil

import pytest


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A new store; making its tables takes seconds, so it is made once and copied."""
    from adpet.tracking.store import connect

    root = tmp_path_factory.mktemp("empty")
    (root / ".partial-mlflow.db").write_bytes(b"half made by a process that was killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(root)
    return root / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store):
    """A project folder whose store is empty and connected."""
    from mlflow import MlflowClient

    from adpet.tracking import store

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "a project"
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    # The copied experiment keeps its artifacts elsewhere: each test has one of its own.
    MlflowClient(f"sqlite:///{root}/mlflow.db").rename_experiment("1", "of the copy")
    store.connect(root)
    return root


@pytest.fixture(scope="session")
def tiny_model():
    """A Keras model of one layer: a logit from slices of 8 x 8 uint8 pixels."""
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="logit"),
        ]
    )
