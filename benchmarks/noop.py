"""Measure a `dvc repro` with nothing to do against that of a project with one stage.

    python benchmarks/noop.py [PROJECT]
    python benchmarks/noop.py --scans 4000

PROJECT (default: this folder) must be up to date. Both run in turns, and the least processor time of each
counts: what else the machine does can only add to it. Exits with 1 if the ratio is above `MOST`.

With --scans, these stages are measured with as many files of one byte as that many scans would give, also
against one stage that depends on the folder of scans.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ruamel.yaml import YAML

MOST = 1.8
ROUNDS = 7

HERE = Path(__file__).parents[1]
STAGES = ("dvc.yaml", "data/simulated/dvc.yaml")
ONE_STAGE = """\
stages:
  copy:
    cmd: cp in.txt out.txt
    deps: [DEPENDENCY]
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


def commit(folder: Path) -> Path:
    """Make a folder a project with nothing to do."""
    for command in (
        ("git", "init", "--quiet"),
        ("dvc", "init", "--quiet"),
        ("dvc", "config", "core.analytics", "false"),
        ("dvc", "config", "core.check_update", "false"),
        ("dvc", "commit", "--force", "--quiet"),
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder


def fill(folder: Path, names: Iterable[str]) -> None:
    """Write files of one byte."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1")


def raw_files(scans: int) -> list[str]:
    """Return files in the folders of a BIDS tree; every sixth scan is a second visit."""
    visits = [f"sub-{scan - scan % 6 // 5}/ses-{scan % 6 // 5}/pet" for scan in range(scans)]
    return [f"{visit}/{name}" for visit in visits for name in ("pet.nii.gz", "pet.json")]


def one_stage_project(folder: Path, *, scans: int = 0) -> Path:
    """Make a project of one stage, which depends on a file or on scans."""
    folder.mkdir()
    (folder / "dvc.yaml").write_text(ONE_STAGE.replace("DEPENDENCY", "raw" if scans else "in.txt"))
    fill(folder, ["in.txt", "out.txt", *(f"raw/{name}" for name in raw_files(scans))])
    return commit(folder)


def this_project(folder: Path, *, scans: int) -> Path:
    """Make a project of this folder's stages, with the files of `scans`."""
    for name in ("src", *STAGES, "params.yaml", ".dvcignore"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if name == "src" else shutil.copy)(HERE / name, folder / name)
    each = [f"{scan}.nii" for scan in range(scans)]
    files = dict.fromkeys(("data/interim/volumes", "data/processed/slices", "data/simulated/truth"), each)
    files["data/simulated/raw"] = raw_files(scans)
    # Two fifths of the scans are tested, and each of these has three maps.
    files["results/explain/volumes"] = [f"{number}.nii" for number in range(scans * 6 // 5)]
    fill(folder / "data", ["external/x", "templates/x", "atlases/x", "weights/x"])
    for stage in (stage for name in STAGES for stage in YAML().load(folder / name)["stages"].values()):
        for out in (*stage["outs"], *stage.get("plots", ()), *stage.get("metrics", ())):
            path = next(iter(out)) if isinstance(out, dict) else out
            fill(folder, [path] if Path(path).suffix else [f"{path}/{name}" for name in files.get(path, "x")])
    return commit(folder)


def compare(project: Path, floor: Path, name: str) -> float:
    """Print both times and their ratio; return it."""
    for each in (project, floor):
        processor_s(each)  # fills DVC's cache of hashes
    rounds = [(processor_s(project), processor_s(floor)) for _ in range(ROUNDS)]
    whole, one = (min(times) for times in zip(*rounds, strict=True))
    print(f"this project {whole:.2f} s, {name} {one:.2f} s, ratio {whole / one:.2f}; required {MOST} or less")
    return whole / one


def main() -> None:
    """Compare the project with one stage, or with two of one stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("project", nargs="?", default=".", type=Path)
    parser.add_argument("--scans", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = this_project(folder / "all", scans=asked.scans) if asked.scans else asked.project
        ratio = compare(project, one_stage_project(folder / "one"), "one stage")
        if asked.scans:
            compare(project, one_stage_project(folder / "raw", scans=asked.scans), "one stage on its scans")
    sys.exit(ratio > MOST)


if __name__ == "__main__":
    main()
