"""Temporary files lie in the project while a stage runs, and nothing of a killed one stays."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adpet.temporary import SHARED, temporary_files

SUMS = (
    "import numpy; from adpet.temporary import temporary_files; from adpet.parallel import map_in_processes\n"
    "with temporary_files():\n"
    "    print(list(map_in_processes(numpy.sum, [numpy.ones(300_000)] * 3, workers=2)))\n"
)


class TestTemporaryFiles:
    @pytest.fixture(autouse=True)
    def _project(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    def test_they_lie_in_the_project_while_a_stage_runs_and_are_gone_after_it(self, tmp_path):
        before = tempfile.gettempdir(), dict(os.environ)
        with temporary_files():
            mine = Path(tempfile.mkdtemp())
            of_a_child = subprocess.check_output(
                [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"], text=True
            )
            assert mine.parent == Path(of_a_child.strip()) == Path(os.environ["JOBLIB_TEMP_FOLDER"])
            assert mine.is_relative_to(tmp_path / ".adpet/tmp")
        assert list((tmp_path / ".adpet/tmp").iterdir()) == []
        assert (tempfile.gettempdir(), dict(os.environ)) == before

    def test_those_of_a_killed_process_are_removed_by_the_next_one_and_of_a_living_one_are_not(
        self, tmp_path
    ):
        script = (
            "import tempfile, time; from adpet.temporary import temporary_files\n"
            "with temporary_files():\n    print(tempfile.mkdtemp(), flush=True); time.sleep(600)"
        )
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        theirs = Path(process.stdout.readline().strip())
        with temporary_files():
            assert theirs.is_dir()
        process.kill()
        process.communicate()
        assert theirs.is_dir()
        with temporary_files():
            assert [path.name for path in (tmp_path / ".adpet/tmp").iterdir()] == [
                Path(tempfile.gettempdir()).name
            ]
        assert not theirs.exists()

    def test_arrays_for_workers_are_shared_there_and_leave_no_complaint(self, tmp_path):
        done = subprocess.run([sys.executable, "-c", SUMS], capture_output=True, text=True, check=True)
        assert (done.stdout.count("300000"), done.stderr) == (3, "")
        assert list((tmp_path / ".adpet/tmp").iterdir()) == []

    @pytest.mark.skipif(not SHARED.is_dir(), reason="this system does not show semaphores")
    @pytest.mark.parametrize("listed", [False, True], ids=["gone from the list", "listed still"])
    def test_semaphores_of_a_killed_process_are_removed_by_the_next_one(self, listed):
        script = f"{SUMS}    print('done', flush=True); import time; time.sleep(600)"
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        while process.stdout.readline() != "done\n":
            pass
        os.killpg(process.pid, signal.SIGKILL)
        if listed:  # ended, and not taken note of
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            process.wait()
        assert Path("/proc", str(process.pid)).exists() == listed
        left = f"sem.loky-{process.pid}-*"
        assert list(SHARED.glob(left))
        with temporary_files():
            assert not list(SHARED.glob(left))
        process.communicate()

    def test_links_that_a_killed_dvc_was_trying_are_removed_and_those_of_a_running_one_are_not(
        self, tmp_path
    ):
        folders = [tmp_path / "data/processed", tmp_path / "results/train", tmp_path / "results"]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".ptnz1gNyFs_bbKouyHP-kw.tmp").touch()
            os.utime(folder / ".ptnz1gNyFs_bbKouyHP-kw.tmp", (0, 0))
            (folder / "mine.tmp").touch()
            os.utime(folder / "mine.tmp", (0, 0))
            (folder / ".AAAAAAAAAAAAAAAAAAAAAA.tmp").touch()
        with temporary_files():
            left = {path.name for folder in folders for path in folder.glob("*.tmp")}
        assert left == {"mine.tmp", ".AAAAAAAAAAAAAAAAAAAAAA.tmp"}
