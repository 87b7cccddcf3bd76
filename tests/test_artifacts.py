"""Nothing half-written takes the place of something whole."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adpet.artifacts import (
    SHARED,
    fingerprint,
    move,
    read_json,
    resumable,
    temporary_files,
    write_json,
    written_aside,
)
from adpet.errors import InputError


class TestWrittenAside:
    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = tmp_path / "scans.csv"
        path.write_text("old")
        with pytest.raises(RuntimeError), written_aside(path) as aside:
            aside.write_text("ne")
            raise RuntimeError
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_finished_write_replaces_the_file(self, tmp_path):
        path = tmp_path / "new" / "scans.csv"
        with written_aside(path) as aside:
            aside.write_text("new")
        assert path.read_text() == "new"

    def test_a_folder_is_replaced_as_a_whole(self, tmp_path):
        path = tmp_path / "volumes"
        path.mkdir()
        (path / "stale.nii").touch()
        with written_aside(path) as aside:
            aside.mkdir()
            (aside / "fresh.nii").touch()
        assert [file.name for file in path.iterdir()] == ["fresh.nii"]

    def test_what_a_killed_writer_left_is_not_taken_for_the_file(self, tmp_path):
        path = tmp_path / "volumes"
        with written_aside(path) as aside:
            aside.mkdir()
            left_over = aside
        left_over.mkdir()
        (left_over / "half.nii").touch()
        with written_aside(path) as aside:
            assert not aside.exists()
            aside.mkdir()
        assert list(path.iterdir()) == []


class TestResumable:
    def test_a_stage_that_failed_finds_its_finished_work(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt), resumable("standardize", {"grid": 3}) as work:
            (work / "scan.nii").touch()
            raise KeyboardInterrupt
        with resumable("standardize", {"grid": 3}) as work:
            assert (work / "scan.nii").exists()
        assert not work.exists()

    def test_work_for_other_facts_is_not_taken_over(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt), resumable("standardize", {"grid": 3}) as other:
            raise KeyboardInterrupt
        with resumable("standardize", {"grid": 2}) as work:
            assert list(work.iterdir()) == []
        assert not other.exists()


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_json_holds_no_nan(tmp_path):
    write_json(tmp_path / "metrics.json", {"auc": 0.9, "site": "Zürich"})
    assert read_json(tmp_path / "metrics.json") == {"auc": 0.9, "site": "Zürich"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auc": float("nan")})
    assert read_json(tmp_path / "metrics.json")["auc"] == 0.9


@pytest.mark.parametrize(("content", "required"), [(None, "not there"), ("{", "required JSON")])
def test_json_that_cannot_be_read_is_one_line_that_says_what_to_do(tmp_path, content, required):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=f"run.json: .*{required}.* run: dvc repro") as refused:
        read_json(tmp_path / "run.json")
    assert "\n" not in str(refused.value)


def test_move_replaces_a_folder(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "stale").touch()
    move(tmp_path / "new", tmp_path / "old")
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    assert list((tmp_path / "old").iterdir()) == []


SUMS = (
    "import numpy; from adpet.artifacts import temporary_files; from adpet.workers import map_in_processes\n"
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
            "import tempfile, time; from adpet.artifacts import temporary_files\n"
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
