"""MLflow UI of the project's runs, on loopback."""

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from adpet.errors import TrackingError
from adpet.params import load_params
from adpet.tracking.store import complete_experiment, connect, current
from adpet.tracking.ui_notes import run_list

# No telemetry, and no workers for jobs that this project does not have.
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

LAST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--port", type=int, default=5000, help="on loopback (default: 5000)")


def main(*, port: int) -> NoReturn:
    """Serve the UI until it is interrupted."""
    # First: a missing store is made with its folder of artifacts.
    connect(Path.cwd(), experiment=load_params().tracking.experiment)
    opened = current()
    if opened.is_server:
        raise TrackingError(f"MLFLOW_TRACKING_URI names a server that has a UI already: open {opened.uri}")
    _require_free(port)
    complete_experiment()
    address = f"http://127.0.0.1:{port}/{run_list(opened.experiment_id)}"
    print(f"The runs in {opened.shown} are shown on {address} (stop with Ctrl-C)", flush=True)
    server = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # One process serves one person, and is there sooner than MLflow's four.
    server += ["--workers", "1"]
    # Every user of the machine sees arguments, and a database's address may have its password in it.
    environment = os.environ | ENVIRONMENT | {"MLFLOW_BACKEND_STORE_URI": opened.uri}
    # In this process's place, so that stopping it stops the server.
    os.execve(sys.executable, server, environment)


def _require_free(port: int) -> None:
    """Refuse a port in use, in one line."""
    if not 0 < port <= LAST_PORT:
        raise TrackingError(f"--port: required 1 to {LAST_PORT}; received {port}")
    try:
        # An earlier server's closed connections do not count: the next one may take the port as well.
        with socket.create_server(("127.0.0.1", port)):
            return
    except OSError as error:
        raise TrackingError(
            f"port {port} cannot be used ({str(error.strerror).lower()}); try another --port"
        ) from error
