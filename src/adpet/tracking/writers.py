"""Who writes: the person, and the process, of which others can tell whether it lives still."""

import os
import socket
from getpass import getuser
from pathlib import Path

from adpet.processes import is_running


def owner() -> str:
    """Return this process as HOST:NUMBER:START, as `is_alive` reads it."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Say whether another process of this machine is `owner`, and runs still."""
    host, process, started = owner.rsplit(":", 2) if owner.count(":") >= 2 else ("", "", "")
    if host != socket.gethostname() or int(process) == os.getpid():
        return False
    return is_running(int(process)) and _started(int(process)) == started


def is_elsewhere(owner: str) -> bool:
    """Say whether `owner` is a process of another machine, of which nothing can be told from here."""
    return owner.rsplit(":", 2)[0] != socket.gethostname()


def user() -> str:
    """Return the name that the MLflow server asks the person for, or else that of the operating system."""
    from mlflow.utils.credentials import read_mlflow_creds

    known: str | None = read_mlflow_creds().username
    if known:
        return known
    try:
        return getuser()
    except OSError:  # a container's user without a name
        return "unknown"


def _started(process: int) -> str:
    """Return when a process started, in ticks since the boot: a number is given to a new process some day.

    Linux only (proc(5), field 22 of ``stat``); empty elsewhere, where the number alone has to do.
    """
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""
