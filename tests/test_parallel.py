"""Work over many items keeps its order, shows how far it is, and is quiet where nobody looks."""

import os
import pty
import select
import subprocess
import sys
import termios
import time

import pytest

from adpet.parallel import epochs_shown, map_in_processes, progress, workers_ended
from adpet.processes import is_running
from adpet.temporary import SHARED, semaphores_of


def square(number):
    return number * number


def fail(number):
    raise ValueError(number)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers):
    assert list(map_in_processes(square, range(7), workers=workers)) == [n * n for n in range(7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_worker_reaches_the_caller(workers):
    # Two workers fail at the same time: either may be heard first.
    with pytest.raises(ValueError, match=r"^[012]$"):
        list(map_in_processes(fail, range(3), workers=workers))


BUSY = """
import os, sys, time
from adpet.parallel import map_in_processes

def busy(number):
    print(os.getpid(), flush=True)
    time.sleep(600)

list(map_in_processes(busy, range(2), workers=2))
"""


def test_workers_end_with_a_process_that_is_killed_whatever_they_are_at():
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True) as starter:
        workers = [int(starter.stdout.readline()) for _ in range(2)]
        assert all(map(is_running, workers))
        starter.kill()
    last = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < last:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


@pytest.mark.skipif(not SHARED.is_dir(), reason="this system does not show semaphores")
def test_what_workers_share_goes_with_them_also_when_an_error_ends_the_work():
    with workers_ended():
        list(map_in_processes(square, range(3), workers=2))
        assert semaphores_of(os.getpid())
    assert not semaphores_of(os.getpid())
    with pytest.raises(ValueError, match=r"^[012]$"), workers_ended():
        list(map_in_processes(fail, range(3), workers=2))
    assert not semaphores_of(os.getpid())


def test_progress_is_silent_where_stderr_is_no_terminal(capfd):
    assert list(progress(range(3), label="slice", unit="scan")) == [0, 1, 2]
    with epochs_shown(2, label="train", on_epoch=lambda *_: None) as shown:
        shown(0, {"loss": 1.0, "val_subject_log_loss": 1.0})
    assert capfd.readouterr().err == ""


def test_a_terminal_sees_how_far_it_is(monkeypatch):
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


def test_epochs_pass_on_what_the_callback_answers():
    with epochs_shown(2, label="train", on_epoch=lambda epoch, _: epoch == 1) as shown:
        row = {"loss": 1.0, "val_subject_log_loss": 1.0}
        assert [shown(0, row), shown(1, row)] == [False, True]
