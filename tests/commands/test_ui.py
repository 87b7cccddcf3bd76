"""The UI is served on loopback, on a port that is free, or refused in one line."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import psutil
import pytest

from adpet.commands.ui import _require_free
from adpet.errors import TrackingError


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"port {port} cannot be used .*try another --port"):
            _require_free(port)
    _require_free(port)


def test_a_number_that_is_no_port_is_refused():
    with pytest.raises(TrackingError, match="required 1 to 65535; received 99999"):
        _require_free(99999)


def test_it_listens_on_loopback_alone(tmp_path, project_root):
    """What the operating system says of the sockets, not what the command line says."""
    shutil.copy(project_root / "params.yaml", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    ui = subprocess.Popen(
        [sys.executable, "-m", "adpet", "ui", "--port", str(port)],
        cwd=tmp_path, env=environment | {"PYTHONPATH": str(project_root / "src")}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while True:
            assert ui.poll() is None, "the UI ended"
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                break
            time.sleep(0.1)
        processes = [psutil.Process(ui.pid), *psutil.Process(ui.pid).children(recursive=True)]
        listening = {
            connection.laddr
            for process in processes
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", port)}
    finally:
        os.killpg(ui.pid, signal.SIGKILL)
        ui.wait()
