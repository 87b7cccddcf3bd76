"""Kill every stage at random moments: ``python benchmarks/kills.py [--kills 5] [--stages train ...]``.

Runs the pipeline undisturbed on the tests' handful of phantom subjects, and again in a copy of the workspace
where ``kill -9`` hits DVC and the stage at random moments, as often as asked, before the stage may end. Then
the stage's outputs must be the same bytes, MLflow must hold the same runs with the same curves, none of them
RUNNING, and no half-written file may be left. Prints how many kills each stage survived.
"""

import argparse
import importlib.util
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from ruamel.yaml import YAML

PROJECT = Path(__file__).parents[1]


def main() -> None:
    options = _options()
    tests = _tests_helpers()
    chance = random.Random(options.seed)  # noqa: S311 (moments, not secrets)
    with tempfile.TemporaryDirectory() as folder:
        calm = tests.begun(Path(folder) / "calm", PROJECT, {})
        shutil.copytree(calm.root, Path(folder) / "killed", symlinks=True)
        killed = tests.Workspace(Path(folder) / "killed")
        print(f"{'stage':<14}{'kills survived':>16}{'undisturbed':>14}", flush=True)
        for stage, outs in _stages(calm.root):
            started = time.monotonic()
            calm.run("dvc", "repro", "--single-item", stage)
            seconds = time.monotonic() - started
            wanted = options.kills if not options.stages or stage.partition("@")[0] in options.stages else 0
            kills = sum(_kill(killed, stage, chance.uniform(0.2, 1.0) * seconds) for _ in range(wanted))
            killed.run("dvc", "repro", "--single-item", stage)
            _require_same(stage, outs, calm, killed)
            print(f"{stage:<14}{kills:>16}{seconds:>12.1f} s", flush=True)


def _kill(workspace: Any, stage: str, seconds: float) -> bool:
    """Start a stage and kill it after so many seconds; return whether it was killed before it ended."""
    process = workspace.start("dvc", "repro", "--single-item", stage)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise SystemExit(f"{stage}: it failed after a kill; see {workspace.root}")
    return False


def _require_same(stage: str, outs: list[str], calm: Any, killed: Any) -> None:
    """Stop at the first difference that the kills have made."""
    differing = [
        path
        for path, content in calm.content(outs).items()
        if not (killed.root / path).is_file() or (killed.root / path).read_bytes() != content
    ]
    left = [str(path) for path in killed.root.rglob(".partial-*")]
    waiting = [str(path) for path in (killed.root / ".adpet/outbox").glob("*")]
    runs = _runs(killed.root) == _runs(calm.root)
    if differing or left or waiting or not runs:
        raise SystemExit(
            f"{stage}: differing {differing}, half-written {left}, not sent {waiting}, the same runs: "
            f"{runs}: {_runs(killed.root)} and undisturbed {_runs(calm.root)}"
        )


def _runs(root: Path) -> Counter[tuple[str, ...]]:
    """Return MLflow's runs: kind, lineage, status, and the steps of each curve."""
    if not (root / "mlflow.db").exists():
        return Counter()
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    found: Counter[tuple[str, ...]] = Counter()
    for run in client.search_runs(experiments):
        curves = {
            key: [one.step for one in client.get_metric_history(run.info.run_id, key)]
            for key in sorted(run.data.metrics)
        }
        tags = run.data.tags
        found[(tags["adpet.kind"], tags["adpet.lineage"], run.info.status, str(curves))] += 1
    return found


def _stages(root: Path) -> list[tuple[str, list[str]]]:
    """Return the stages in the order in which they run, each with its outputs."""
    stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
    found = []
    for name, stage in stages.items():
        outs = [*stage.get("outs", []), *stage.get("metrics", [])]
        paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
        for number in stage.get("matrix", {"number": [None]})["number"]:
            shown = name if number is None else f"{name}@{number}"
            found.append((shown, [path.replace("${item.number}", str(number)) for path in paths]))
    return found


def _tests_helpers() -> Any:
    """Return the module in which the tests make their workspaces."""
    spec = importlib.util.spec_from_file_location("workspaces", PROJECT / "tests/conftest.py")
    if spec is None or spec.loader is None:
        raise SystemExit("required tests/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5, help="of each stage")
    parser.add_argument("--stages", nargs="+", default=[], help="that are killed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
