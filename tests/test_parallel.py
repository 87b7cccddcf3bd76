"""Parallel work keeps its order, ends with its parent, and shows progress on terminals only."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from adpet.parallel import epochs_shown, map_in_processes, progress


def square(number):
    return number * number


def fail(number):
    raise ValueError(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_lazily_in_the_order_of_items(workers):
    results = map_in_processes(square, range(7), workers=workers)
    assert next(results) == 0
    assert list(results) == [n * n for n in range(1, 7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_error_in_a_worker_reaches_the_caller(workers):
    # Two workers fail at the same time: either may be heard first.
    with pytest.raises(ValueError, match=r"^[012]$"):
        list(map_in_processes(fail, range(3), workers=workers))


BUSY = """
import os, signal, sys, time
from adpet.parallel import map_in_processes

def busy(number):
    os.write(1, f"{os.getpid()}\\n".encode())  # at once: two processes write here
    time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    list(map_in_processes(busy, range(2), workers=2, cluster=sys.argv[1] or None))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("cluster", ["", pytest.param("local", marks=pytest.mark.server)])
def test_interrupted_or_killed_process_ends_its_workers(sent, cluster):
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, cluster], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(sent)
    last = time.monotonic() + 30
    while _running(workers) and time.monotonic() < last:
        time.sleep(0.05)
    assert _running(workers) == []


def _running(pids):
    """Return the processes that run; one that has ended has no command line any more."""
    files = {pid: Path(f"/proc/{pid}/cmdline") for pid in pids}
    return [pid for pid, file in files.items() if file.exists() and file.read_bytes()]


def test_progress_is_silent_without_a_terminal(capfd):
    assert list(progress(range(3), label="slice", unit="scan")) == [0, 1, 2]
    with epochs_shown(2, label="train", on_epoch=lambda epoch, _: epoch == 1) as shown:
        row = {"loss": 1.0, "val_subject_log_loss": 1.0}
        assert [shown(0, row), shown(1, row)] == [False, True]
    assert capfd.readouterr().err == ""


def test_progress_shows_a_bar_on_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert list(progress(range(3), label="slice", unit="scan", total=3)) == [0, 1, 2]
        terminal.flush()
        shown = ""
        # The terminal hands over what was written piece by piece.
        while "3/3" not in shown and select.select([ours], [], [], 10)[0]:
            shown += os.read(ours, 100_000).decode(errors="replace")
    os.close(ours)
    assert "slice" in shown
    assert "3/3" in shown
