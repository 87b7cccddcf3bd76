"""Time and memory of every stage, one after the other, in a clone of this project.

    python benchmarks/stages.py FOLDER [--set KEY=VALUE ...]

FOLDER is made, with the last commit's code. `--set` changes its parameters, such as
simulation.ad_subjects=1000. "Most MB" is of the largest process of a stage, workers included.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

from adpet import paths
from adpet.storage import read_yaml, set_by_key

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print a row for each stage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if wrong := [changed for changed in options.set if "=" not in changed]:
        parser.error(f"--set: required KEY=VALUE; received {wrong[0]!r}")
    project = options.folder.resolve()
    subprocess.run(["git", "clone", "--quiet", ROOT, project], check=True)
    params = read_yaml(project / paths.PARAMS)
    for key, _, value in (changed.partition("=") for changed in options.set):
        set_by_key(params, key, YAML(typ="safe").load(value))
    YAML().dump(params, project / paths.PARAMS)
    print(f"{'stage':<16} {'s':>7} {'processor s':>12} {'most MB':>8}")
    for stage in ("simulate", *read_yaml(project / "dvc.yaml")["stages"]):
        began = time.perf_counter()
        used = _run(project, [sys.executable, "-m", "adpet", stage])
        seconds, megabytes = time.perf_counter() - began, used.ru_maxrss / 1024
        busy = used.ru_utime + used.ru_stime
        print(f"{stage:<16} {seconds:>7.1f} {busy:>12.1f} {megabytes:>8.0f}", flush=True)


def _run(project: Path, command: list[str]) -> resource.struct_rusage:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
    environment = kept | {"PYTHONPATH": str(project / "src")}
    process = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: failed; see above")
    return used


if __name__ == "__main__":
    main()
