"""MLflow UI: loopback only, on a free port, without a password in sight."""

import os
import shutil
import socket
import sys

import psutil
import pytest
from servers import answers, free_port, running

from adpet.commands.ui import _require_free
from adpet.errors import TrackingError


def test_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"port {port} cannot be used .*try another --port"):
            _require_free(port)
    _require_free(port)


def test_number_beyond_ports_is_refused():
    with pytest.raises(TrackingError, match="required 1 to 65535; received 99999"):
        _require_free(99999)


@pytest.mark.server
def test_ui_listens_on_loopback_alone(tmp_path, project_root):
    """The operating system's list of sockets decides."""
    shutil.copy(project_root / "params.yaml", tmp_path)
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    command = [sys.executable, "-m", "adpet", "ui", "--port", str(port)]
    options = {"cwd": tmp_path, "env": environment | {"PYTHONPATH": str(project_root / "src")}}
    with running(
        command, tmp_path / "log", lambda: answers(f"http://127.0.0.1:{port}/health"), **options
    ) as ui:
        processes = [psutil.Process(ui.pid), *psutil.Process(ui.pid).children(recursive=True)]
        listening = {
            connection.laddr
            for process in processes
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {("127.0.0.1", port)}
