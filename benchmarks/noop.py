"""Measure a `dvc repro` with nothing to do against that of a project with one stage.

    python benchmarks/noop.py [PROJECT]

PROJECT (default: this folder) must be up to date. Both run in turns, and the least processor time of each
counts: what else the machine does can only add to it. Exits with 1 if the ratio is above `MOST`.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

MOST = 1.8
ROUNDS = 7

ONE_STAGE = """\
stages:
  copy:
    cmd: cp in.txt out.txt
    deps: [in.txt]
    outs: [out.txt]
"""


def processor_s(project: Path) -> float:
    """Run `dvc repro` where it has nothing to do; return its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A project's own code comes first on the path of its stages, not on that of DVC.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DVC")}
    done = subprocess.run(
        ["dvc", "repro"], cwd=project, env=environment, check=True, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Running stage" in done.stdout:
        sys.exit(f"{project}: it had something to do; run `dvc repro` there, then this again")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_stage_project(folder: Path) -> Path:
    """Make a project of one stage, and run it."""
    (folder / "dvc.yaml").write_text(ONE_STAGE)
    (folder / "in.txt").write_text("in\n")
    for command in (
        ("git", "init", "--quiet"),
        ("dvc", "init", "--quiet"),
        ("dvc", "config", "core.analytics", "false"),
        ("dvc", "config", "core.check_update", "false"),
        ("dvc", "repro", "--quiet"),
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def main() -> None:
    """Print both times and their ratio."""
    project = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    with tempfile.TemporaryDirectory() as folder:
        floor = one_stage_project(Path(folder))
        processor_s(project)  # fills DVC's cache of hashes
        rounds = [(processor_s(project), processor_s(floor)) for _ in range(ROUNDS)]
    whole, one = (min(times) for times in zip(*rounds, strict=True))
    ratio = whole / one
    print(f"this project {whole:.2f} s, one stage {one:.2f} s, ratio {ratio:.2f}; required {MOST} or less")
    sys.exit(ratio > MOST)


if __name__ == "__main__":
    main()
