"""Command line: quick help, old names, and errors of the user in one line."""

import errno
import os
import subprocess
import sys

import pytest
from programs import run_code

from adpet import cli
from adpet.commands import summary


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "scans.csv"), "scans.csv: Permission denied"),
    ],
)
def test_error_of_the_system_is_one_line(monkeypatch, error, message):
    def fail():
        raise error

    monkeypatch.setattr(summary, "main", fail)
    with pytest.raises(SystemExit, match=rf"^adpet summary: {message}$"):
        cli.main(["summary"])


def test_closed_pipe_ends_without_a_message(project_root):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "adpet", "preset"],
        cwd=project_root, stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_help_loads_no_library():
    code = (
        "import sys\nfrom adpet.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "loaded = {'numpy', 'pandas', 'pydantic', 'mlflow', 'keras', 'optuna', 'nibabel', 'joblib'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = run_code(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stage: simulate the built-in cohort" in done.stdout


@pytest.mark.parametrize("command", [*cli.STAGES, *cli.COMMANDS])
def test_every_command_has_its_own_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: adpet {command}" in capsys.readouterr().out


@pytest.mark.parametrize(("old", "new"), cli.OLD_STAGES.items())
def test_old_name_of_a_stage_is_accepted_with_a_warning(old, new, capsys):
    with pytest.raises(SystemExit):
        cli.main([old, "--help"])
    shown = capsys.readouterr()
    assert f"adpet {old} is now named adpet {new}" in shown.err
    assert f"usage: adpet {new}" in shown.out


@pytest.mark.parametrize("stage", ["evaluate", "train"])
def test_stage_before_its_turn_says_what_to_run(stage, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=rf"^adpet {stage}: results/.*: required.* dvc repro"):
        cli.main([stage])
