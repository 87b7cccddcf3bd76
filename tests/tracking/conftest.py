import os
import shutil
import sys
from contextlib import ExitStack

import made_up
import numpy as np
import pytest
from servers import answers, free_port, running


class Server:
    """A tracking server, a process of its own, on one address whenever it runs."""

    def __init__(self, folder, backend):
        self.artifacts = folder / "kept by the server"
        self._folder, self._backend, self._port = folder, backend, free_port()
        self.uri = f"http://127.0.0.1:{self._port}"
        self._running = ExitStack()

    def start(self):
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)),
            *("--backend-store-uri", self._backend, "--workers", "1"),
            *("--artifacts-destination", str(self.artifacts)),
        ]
        ready, options = (
            lambda: answers(f"{self.uri}/health"),
            {"cwd": self._folder, "env": os.environ | quiet},
        )
        self._running.enter_context(running(command, self._folder / "log", ready, **options))

    def kill(self):
        self._running.close()


@pytest.fixture
def server(tmp_path, copy_store):
    """A server on SQLite that has not been started yet."""
    (tmp_path / "server").mkdir()
    address = copy_store(tmp_path / "server/server.db")
    server = Server(tmp_path / "server", address)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A new store; making its tables takes seconds, so it is made once and copied."""
    from adpet.tracking.store import connect

    root = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(root)
    return root / "mlflow.db"


@pytest.fixture(scope="session")
def copy_store(empty_store):
    """Copy the new store to a place of one's own, and return its address."""
    from mlflow import MlflowClient

    def copy_store(place):
        shutil.copy(empty_store, place)
        # The copied experiment keeps its artifacts where it was made: each copy gets one of its own.
        MlflowClient(f"sqlite:///{place}").rename_experiment("1", "of the copy")
        return f"sqlite:///{place}"

    return copy_store


@pytest.fixture
def project(tmp_path, monkeypatch, copy_store):
    """A project folder whose store is empty and connected."""
    from adpet.tracking import store

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "a project"
    root.mkdir()
    copy_store(root / "mlflow.db")
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


EXAMPLE = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)


@pytest.fixture
def log(project, tiny_model):
    """Log a training run with its model, and return the run's id."""
    from adpet.tracking.runs import find_run, open_run

    def log(lineage="a1", **tags):
        marks = {f"adpet.{key}": value for key, value in tags.items()}
        with open_run(lineage=lineage, kind="train", name=lineage, tags=marks) as run:
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={"slice": {"window": [0.0, 2.0]}})
        return find_run(lineage, "train")

    return log


@pytest.fixture
def version(log):
    """Register a version with made-up results, and return its number."""
    from adpet.tracking.registry import log_evidence, register_version
    from adpet.tracking.runs import append_to_run
    from adpet.tracking.sync import shared_run

    def version(lineage="a1", separation=2.0, tags=None, **changes):
        log(lineage)
        with append_to_run(lineage) as run:
            evidence = log_evidence(run, made_up.evidence(made_up.answers(separation), **changes))
        return register_version(run_id=shared_run(lineage), tags={**(tags or {}), **evidence})

    return version
