"""Whether a process runs is known also where it has ended and its parent has not taken note of it."""

import os
import subprocess
import sys

import pytest

from adpet.processes import is_running, lock, locked


def test_a_process_runs_until_it_has_ended_whether_or_not_somebody_took_note_of_it():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert is_running(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(child.pid)
    assert not is_running(child.pid)


def test_one_process_at_a_time_has_a_lock(tmp_path):
    with locked(tmp_path), pytest.raises(BlockingIOError):
        lock(tmp_path, wait=False)
    os.close(lock(tmp_path, wait=False))
