"""Files are whole or not there; unfinished work belongs to data, parameters and the stage's code."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from adpet.errors import InputError
from adpet.storage import (
    KEEP_DAYS,
    atomic_write,
    code_folders,
    fingerprint,
    read_json,
    temporary_files,
    work_dir,
    write_json,
)

FACTS = {"id": "a1", "data": "5e.dir", "params": {"grid_mm": 3.0}, "commit": "c0ffee", "code": "0123"}


class TestAtomicWrite:
    def test_failed_write_leaves_the_old_file_alone(self, tmp_path):
        path = tmp_path / "scans.csv"
        path.write_text("old")
        with pytest.raises(RuntimeError), atomic_write(path) as aside:
            aside.write_text("ne")
            raise RuntimeError
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_folder_is_replaced_whole_without_parts_of_a_killed_writer(self, tmp_path):
        path = tmp_path / "volumes"
        path.mkdir()
        (path / "stale.nii").touch()
        with atomic_write(path) as aside:
            aside.mkdir()
        aside.mkdir()
        (aside / "half.nii").touch()
        with atomic_write(path) as aside:
            assert not aside.exists()
            aside.mkdir()
            (aside / "fresh.nii").touch()
        assert [file.name for file in path.iterdir()] == ["fresh.nii"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose `normalize` depends on `imaging`, next to an unrelated `web`."""
    monkeypatch.chdir(tmp_path)
    for name in ("imaging", "web"):
        (tmp_path / "src/adpet" / name).mkdir(parents=True)
        (tmp_path / "src/adpet" / name / "code.py").write_text("x = 1\n")
    (tmp_path / "src/adpet/normalize.py").write_text("y = 1\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  normalize:\n    cmd: x\n    deps: [data/raw, src/adpet/normalize.py, src/adpet/imaging]\n"
    )
    return tmp_path


def interrupt(facts, *, stage="normalize"):
    """Leave one finished part of a stage behind, as a killed one does."""
    with pytest.raises(KeyboardInterrupt), work_dir(stage, facts) as work:
        (work / "scan.nii").touch()
        raise KeyboardInterrupt
    return work


def resumes(facts):
    with work_dir("normalize", facts) as work:
        return (work / "scan.nii").exists()


class TestWorkDir:
    def test_interrupted_stage_finds_its_work_and_removes_it_at_its_end(self, project):
        work = interrupt(FACTS)
        assert resumes(FACTS)
        assert not work.exists()

    def test_commit_or_edit_of_an_unrelated_package_keeps_the_work(self, project):
        interrupt(FACTS)
        (project / "src/adpet/web/code.py").write_text("x = 2\n")
        assert resumes(FACTS | {"commit": "decaf-dirty", "id": "b2", "code": "4567"})

    @pytest.mark.parametrize("file", ["normalize.py", "imaging/code.py"])
    def test_edit_of_the_stages_code_starts_over(self, project, file):
        interrupt(FACTS)
        (project / "src/adpet" / file).write_text("x = 2\n")
        assert not resumes(FACTS)

    def test_other_facts_start_over_and_leave_the_work_of_others(self, project):
        first = interrupt(FACTS)
        second = interrupt(FACTS | {"params": {"grid_mm": 2.0}})
        assert first != second
        assert resumes(FACTS)
        assert (second / "scan.nii").exists()

    def test_work_that_nothing_touched_for_long_is_removed(self, project):
        recent, old = (interrupt(FACTS | {"data": name}) for name in ("recent", "old"))
        days = (KEEP_DAYS + 1) * 24 * 3600
        os.utime(old, (old.stat().st_atime, old.stat().st_mtime - days))
        interrupt(FACTS)
        assert recent.exists()
        assert not old.exists()


class TestCodeFolders:
    def test_simulated_cohort_is_declared_in_its_own_file(self, project_root, monkeypatch):
        monkeypatch.chdir(project_root)
        assert Path("src/adpet/simulation") in code_folders("simulate")


class TestTemporaryFiles:
    def test_files_lie_in_the_project_and_are_removed(self, project):
        before = tempfile.gettempdir(), dict(os.environ)
        with temporary_files():
            assert Path(tempfile.mkdtemp()).is_relative_to(project / ".adpet/tmp")
        assert list((project / ".adpet/tmp").iterdir()) == []
        assert (tempfile.gettempdir(), dict(os.environ)) == before

    def test_next_start_removes_files_of_a_killed_process_alone(self, project):
        script = (
            "import time; from adpet.storage import temporary_files\n"
            "with temporary_files() as own:\n    print(own, flush=True); time.sleep(600)"
        )
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
            theirs = Path(process.stdout.readline().strip())
            with temporary_files():
                assert theirs.is_dir()
            process.kill()
        with temporary_files():
            assert not theirs.exists()


def test_fingerprint_ignores_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "metrics.json", {"auc": 0.9, "site": "Zürich"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auc": float("nan")})
    assert read_json(tmp_path / "metrics.json") == {"auc": 0.9, "site": "Zürich"}


@pytest.mark.parametrize(("content", "required"), [(None, "not there"), ("{", "required JSON")])
def test_unreadable_json_is_one_line_with_the_next_command(tmp_path, content, required):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=f"run.json: .*{required}.* run: dvc repro") as refused:
        read_json(tmp_path / "run.json")
    assert "\n" not in str(refused.value)
