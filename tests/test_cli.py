"""What goes wrong on the command line is one line on stderr, without a traceback."""

import errno
import os
import subprocess
import sys

import pytest

from adpet import cli
from adpet.commands import summary


@pytest.fixture
def command(monkeypatch):
    """Run ``adpet summary``, whose work is what the test makes of it."""

    def run(work):
        monkeypatch.setattr(summary, "run", work)
        cli.main(["summary"])

    return run


def raising(error):
    def work():
        raise error

    return work


def test_a_full_disk_is_one_line(command):
    with pytest.raises(SystemExit, match=r"^adpet summary: No space left on device$"):
        command(raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


def test_a_file_that_cannot_be_read_is_named(command):
    with pytest.raises(SystemExit, match=r"^adpet summary: scans.csv: Permission denied$"):
        command(raising(PermissionError(errno.EACCES, "Permission denied", "scans.csv")))


def test_a_defect_of_the_program_is_not_hidden(command):
    with pytest.raises(OSError, match="no number"):
        command(raising(OSError("no number, so not the system's")))


def test_a_reader_that_has_gone_is_no_error_message(project_root):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "adpet", "preset"],
        cwd=project_root,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_stage_that_is_not_installed_says_its_version_all_the_same(monkeypatch, capsys):
    def not_installed(_):
        raise cli.PackageNotFoundError

    monkeypatch.setattr(cli, "version", not_installed)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == "adpet (not installed)\n"


@pytest.mark.parametrize("stage", ["evaluate", "explain", "register", "train"])
def test_a_stage_before_its_turn_says_what_to_run(stage, project_root, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text((project_root / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=rf"^adpet {stage}: results/.*: required") as refused:
        cli.main([stage])
    assert "dvc repro" in str(refused.value)
