"""Servers on loopback that tests start, wait for, and end with all their children."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

START_S, STOP_S = 180.0, 60.0
# A busy machine takes its time to show a page.
BROWSER_PATIENCE_MS = 180_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=2).ok
    except requests.RequestException:
        return False


@contextmanager
def running(
    command: list, log: Path, ready: Callable[[], bool], *, stop: int = signal.SIGKILL, **options
) -> Iterator[subprocess.Popen]:
    """Run a server as soon as it is `ready`, and stop it with all its children."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + START_S
        while not ready():
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, f"no answer in {START_S:.0f} s; see {log}"
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def serving(version: str, store: Path, folder: Path, **variables: str) -> Iterator[str]:
    """Let MLflow serve a registered version, with its log in a folder, and yield the address."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", version),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"} | variables
    with running(command, folder / "log", lambda: answers(f"{address}/ping"), cwd=folder, env=environment):
        yield address
