"""Kill every stage at random moments: ``python benchmarks/kills.py [--kills 10] [--stages train ...]``.

On the tests' handful of simulated subjects, each stage runs undisturbed first. Then the workspace is put back
to what it was before the stage, and ``kill -9`` hits at random moments, again and again, until the stage ends
before its moment; then all is compared and put back once more, until all moments are used. Half of the
moments are spread over the stage's whole duration, the other half over its end: from its first output to the
end of ``dvc repro``. Both are told by processor time, which is the same on a busy machine. One kill in three
hits the stage alone, the others DVC and all its processes.

A kill is survived where ``dvc repro`` then leads to the same bytes in every output, to the same runs in
MLflow (curves but for seconds, parameters, tags but for how often it was resumed, artifacts, models,
versions), one each and none RUNNING, the run that was begun being the one that ended, to the same trials in
Optuna's study, and leaves no other file, in the workspace, in the folder for temporary files or in shared
memory. Stages that keep no unfinished work are killed half as often.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ruamel.yaml import YAML

PROJECT = Path(__file__).parents[1]
SIMULATED = "data/simulated/dvc.yaml:simulate"
LOOK_S = 0.2
SHARED = Path("/dev/shm")  # noqa: S108 - nothing is written there
TICKS = os.sysconf("SC_CLK_TCK")

# Which stages keep unfinished work, and what is counted of it.
KEPT = {
    "phantom": "scans",
    "normalize": "scans",
    "tune": "trials",
    "train": "epochs",
    "fold": "epochs",
    "audit": "epochs",
}

# So that folds and pool have work to do, and every way of training is taken.
VALUES = {
    "simulation.ad_subjects": 6,
    "simulation.cn_subjects": 6,
    "split.folds": 2,
    "simulation.followup_fraction": 0.0,
    "normalize.grid_mm": 6.0,
    "evaluate.cross_validation": 3,
    "train.mix": 0.5,
}

# Of DVC, git and MLflow: what differs from run to run. MLflow's tables are compared in their place.
NOT_COMPARED = (".git/", ".dvc/tmp/", ".dvc/cache/", "mlartifacts/", "mlflow.db", "dvc.lock")


@dataclass
class Outcome:
    """What the kills of one stage came to."""

    moments: int
    landed: int = 0
    survived: int = 0
    kept: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    options = _options()
    chance = random.Random(options.seed)  # noqa: S311 (moments, not secrets)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        place = _Place(Path(folder), VALUES | dict(_setting(text) for text in options.set))
        heads = f"{'stage':<12}{'alone':>8}{'processor':>10}{'kills':>7}{'survived':>10}"
        print(f"{heads}  {'went on from':<18}in all", flush=True)
        for stage, outs in _stages(place.root):
            started = time.monotonic()
            calm = _Undisturbed(place, stage, outs)
            name = stage.rpartition(":")[2]
            kind = name.partition("@")[0]
            chosen = not options.stages or kind in options.stages
            wanted = (options.kills if kind in KEPT else (options.kills + 1) // 2) if chosen else 0
            outcome = _Kills(place, calm, chance).all(wanted)
            place.restore("after")
            took = time.monotonic() - started
            print(
                f"{name:<12}{calm.seconds:>6.1f} s{calm.processor_s:>8.1f} s{outcome.landed:>7}"
                f"{outcome.survived:>10}  {_span(outcome.kept, kind):<18}{took:>4.0f} s",
                flush=True,
            )
            for problem in outcome.problems:
                print(f"    {problem}", flush=True)
            failed |= bool(outcome.problems)
    sys.exit(failed)


class _Place:
    """One workspace at one path, with copies of earlier states of it, and a folder for temporary files."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        tests = _tests_helpers()
        self.root, self._copies, self.temporary = folder / "project", folder / "copies", folder / "temporary"
        self._output = folder / "output"
        self.processes: set[int] = set()
        self._copies.mkdir()
        self.temporary.mkdir()
        self.workspace = tests.begun(self.root, PROJECT, values, phantom=False)

    def start(self, stage: str) -> subprocess.Popen[str]:
        """Run one stage by DVC, in a session of its own."""
        environment = self.workspace.environment() | {"TMPDIR": str(self.temporary)}
        with self._output.open("w") as output:
            return subprocess.Popen(
                ("dvc", "repro", "--single-item", stage), cwd=self.root, env=environment, text=True,
                start_new_session=True, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def said(self) -> str:
        """Return what the stage that ran last has said."""
        return self._output.read_text()

    def copy(self, name: str) -> None:
        """Keep the present state under a name; times stay, since checkpoints go with those of their data."""
        shutil.rmtree(self._copies / name, ignore_errors=True)
        subprocess.run(("cp", "-a", self.root, self._copies / name), check=True)

    def restore(self, name: str) -> None:
        """Return to a state that was kept, once nobody mends DVC's files any more in the present one."""
        while any(str(self.root) in (one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])):
            time.sleep(LOOK_S)
        shutil.rmtree(self.root)
        subprocess.run(("cp", "-a", self._copies / name, self.root), check=True)
        shutil.rmtree(self.temporary)
        self.temporary.mkdir()


class _Undisturbed:
    """One stage as it is without kills: how long it takes, when its end begins, and what it leaves."""

    def __init__(self, place: _Place, stage: str, outs: list[str]) -> None:
        self.stage, self.outs = stage, outs
        place.copy("before")
        started = time.monotonic()
        process = place.start(stage)
        written = _changes([place.root / out for out in outs])
        watched = _Watched(process.pid, place.processes)
        first = last = 0.0
        while process.poll() is None:
            last = max(last, watched.processor_s())
            first = first or (last if written() else 0.0)
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"{stage}: it fails undisturbed: {place.said()}")
        self.seconds = time.monotonic() - started
        self.processor_s, self.end_s = last, last - first
        self.state = _state(place)
        place.copy("after")


class _Kills:
    """Kills a stage again and again, and compares what it comes to."""

    def __init__(self, place: _Place, calm: _Undisturbed, chance: random.Random) -> None:
        self._place, self._calm, self._chance = place, calm, chance
        self._runs: set[str] = set()

    def all(self, count: int) -> Outcome:
        """Kill the stage at `count` moments, however often it has to be begun anew for that."""
        outcome = Outcome(count)
        since: list[str] = []  # kills since the stage was begun anew
        self._begin_anew()
        for moment in self._moments(count):
            kind, share, alone = moment
            # What is left of a killed stage may be too short for a late moment.
            for earlier in (1.0, 1.0, 0.7):
                name = f"{kind} {earlier * share:.2f}{' alone' if alone else ''}"
                landed = self._kill(kind, earlier * share, alone=alone)
                kept = _kept(self._place.root)
                print(f"{self._calm.stage}: {name}: {f'{kept} kept' if landed else 'ended'}", file=sys.stderr)
                if landed:
                    since.append(name)
                    outcome.kept.append(kept)
                    break
                self._end(outcome, since)
        if since:
            self._place.start(self._calm.stage).wait()
            self._end(outcome, since)
        return outcome

    def _moments(self, count: int) -> list[tuple[str, float, bool]]:
        """Return moments as a share of the whole or of the end, one in each stratum, and whom to kill."""
        whole, end = (count + 1) // 2, count // 2
        moments = [("whole", (i + self._chance.random()) / whole) for i in range(whole)]
        moments += [("end", (i + self._chance.random()) / end) for i in range(end)]
        self._chance.shuffle(moments)
        return [(*moment, i % 3 == 2) for i, moment in enumerate(moments)]

    def _kill(self, kind: str, share: float, *, alone: bool) -> bool:
        """Start the stage and kill it at that moment; return whether it was killed before it ended."""
        written = _changes([self._place.root / out for out in self._calm.outs])
        process = self._place.start(self._calm.stage)
        watched = _Watched(process.pid, self._place.processes)
        moment = share * self._calm.processor_s if kind == "whole" else None
        while process.poll() is None:
            spent = watched.processor_s()
            if moment is None and written():
                moment = spent + share * self._calm.end_s
            if moment is not None and spent >= moment:
                break
            time.sleep(0.01)
        if process.poll() is not None:
            return False
        stage = watched.stage() if alone else None
        if stage is None:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(stage, signal.SIGKILL)
        process.wait()
        self._runs |= _run_ids(self._place.root)
        return process.returncode != 0

    def _end(self, outcome: Outcome, since: list[str]) -> None:
        """Hold what the stage came to against what it is undisturbed, and begin anew."""
        there, expected = _state(self._place), self._calm.state
        differing = [
            f"{kind} {key}: {_difference(there[kind].get(key), expected[kind].get(key))}"
            for kind in there
            for key in sorted(there[kind].keys() | expected[kind].keys())
            if there[kind].get(key) != expected[kind].get(key)
        ]
        lost = self._runs - _run_ids(self._place.root)
        if lost:
            differing.append(f"runs that were begun and are gone: {sorted(lost)}")
        if differing:
            differing.insert(0, f"it said: {self._place.said().strip().splitlines()[-3:]}")
        outcome.landed += len(since)
        outcome.survived += 0 if differing else len(since)
        outcome.problems += [f"after {', '.join(since)}: {one}" for one in differing[:20]]
        since.clear()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._place.restore("before")
        self._runs.clear()


def _changes(outs: list[Path]) -> Callable[[], bool]:
    """Return what tells whether one of the outputs was written since."""
    before = {out: _identity(out) for out in outs}
    return lambda: any(_identity(out) not in (None, before[out]) for out in outs)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


class _Watched:
    """The processes of one session, as ``/proc/PID/stat`` shows them (Linux only)."""

    def __init__(self, session: int, seen: set[int]) -> None:
        self._session = session
        self._seen = seen
        self._ticks: dict[Path, int] = {}
        self._looked = 0.0

    def processor_s(self) -> float:
        """Return the processor time of all processes that were seen, those that have ended too."""
        if time.monotonic() - self._looked > LOOK_S:
            found = (path for path in Path("/proc").glob("[0-9]*") if path not in self._ticks)
            ours = [path for path in found if _stat(path)[3:4] == [str(self._session)]]
            self._ticks |= dict.fromkeys(ours, 0)
            self._seen.update(int(path.name) for path in ours)
            self._looked = time.monotonic()
        for path in self._ticks:
            self._ticks[path] = max(self._ticks[path], sum(map(int, _stat(path)[11:13])))
        return sum(self._ticks.values()) / TICKS

    def stage(self) -> int | None:
        """Return the stage's own process below DVC's, or None where it does not run."""
        for path in self._ticks:
            with suppress(OSError):
                if (path / "cmdline").read_bytes().split(b"\0")[1:3] == [b"-m", b"adpet"]:
                    return int(path.name)
        return None


def _stat(path: Path) -> list[str]:
    """Return the fields from the third on, none of a process that has ended."""
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _kept(root: Path) -> int:
    """Count what a killed stage has kept of its work: scans, trials or epochs."""
    work = root / ".adpet"
    epochs = 0
    for path in [*work.glob("*/*/*.npz")]:
        with np.load(path) as stored:
            epochs += len(json.loads(str(stored["facts"]))["rows"])
    trials = 0
    for study in work.glob("tune/*/study.db"):
        with closing(sqlite3.connect(study)) as database:
            trials += database.execute("select count(*) from trials").fetchone()[0]
    scans = len([*work.glob("normalize/*/*.json"), *work.glob("phantom/*/raw/**/*.nii.gz")])
    return epochs + trials + scans


def _span(kept: list[int], kind: str) -> str:
    return f"{min(kept)} to {max(kept)} {KEPT[kind]}" if kind in KEPT and kept else "its beginning"


def _state(place: _Place) -> dict[str, dict[str, Any]]:
    """Return all that must be as it is undisturbed: files by digest, MLflow's tables, the study."""
    files = {}
    for path in sorted(place.root.rglob("*")):
        name = path.relative_to(place.root).as_posix()
        if path.is_file() and not name.startswith(NOT_COMPARED) and "__pycache__" not in name:
            files[name] = _digest(path) if not name.startswith(".adpet/") else "there"
            if path.suffix == ".log":  # somebody complains
                files[name] = path.read_text()[-300:]
    study = place.root / "results/tune/study.db"
    if study.exists():
        files["results/tune/study.db"] = "compared by its trials"
    cache = [path.name for path in (place.root / ".dvc/cache").rglob("*") if path.is_file()]
    odd = [
        name
        for name in cache
        if not set(name.partition(".")[0]) <= set("0123456789abcdef") and name != "meta"
    ]
    return {
        "file": files,
        "lock": _lock(place.root),
        "run": _runs(place.root),
        "trial": _trials(study),
        "temporary file": {path.name: "there" for path in place.temporary.iterdir()},
        "shared memory": {path.name: "there" for path in _shared(place.processes)},
        "in DVC's cache": dict.fromkeys(odd, "there"),
    }


def _shared(processes: set[int]) -> list[Path]:
    """Return the semaphores and folders of arrays that joblib has named after one of the processes."""
    named = [
        (path, re.match(r"(?:sem\.loky-|joblib_memmapping_folder_)(\d+)", path.name))
        for path in SHARED.glob("*")
    ]
    return [path for path, match in named if match and int(match[1]) in processes]


def _lock(root: Path) -> dict[str, Any]:
    path = root / "dvc.lock"
    document = YAML(typ="safe").load(path) if path.exists() else {"stages": {}}
    return dict(document["stages"]) if document else {"dvc.lock": "empty"}


def _trials(study: Path) -> dict[str, Any]:
    if not study.exists():
        return {}
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(study)) as database:
        for number, trial, state in database.execute("select number, trial_id, state from trials order by 1"):
            values = [
                sorted(database.execute(f"select {columns} from {table} where trial_id = ?", (trial,)))  # noqa: S608
                for table, columns in (
                    ("trial_values", "value"),
                    ("trial_params", "param_name, param_value"),
                    ("trial_intermediate_values", "step, intermediate_value"),
                )
            ]
            key = str(number) if str(number) not in found else f"{number} again"
            found[key] = (state, *values)
    return found


# By columns of MLflow's tables, without times and MLflow's own ids.
_OF_RUNS = {
    "metrics": "select key, step, value, is_nan from metrics where run_uuid = ? order by 1, 2, 3",
    "latest": "select key, step, value from latest_metrics where run_uuid = ? order by 1",
    "params": "select key, value from params where run_uuid = ? order by 1",
    "tags": "select key, value from tags where run_uuid = ? order by 1",
    "models": "select name, status, lifecycle_stage from logged_models where source_run_id = ? order by 1, 2",
    "versions": "select name, version, current_stage from model_versions where run_id = ? order by 1, 2",
}
_OWN_TAGS = ("adpet.owner", "adpet.session", "adpet.resumed", "mlflow.parentRunId")
# What a clock says.
_TIMES = ("seconds", "refit.seconds")
# The digest of a model's files, among which is one with MLflow's ids.
_OWN_MARKS = ("adpet.files_digest",)
_ID = re.compile(r"\b(m-)?[0-9a-f]{32}\b(?!\.dir)")


def _runs(root: Path) -> dict[str, Any]:
    """Return every run by kind and lineage: status, curves, parameters, tags, artifacts, models, versions."""
    found: dict[str, Any] = {}
    if not (root / "mlflow.db").exists():
        return found
    with closing(sqlite3.connect(root / "mlflow.db")) as database:
        runs = database.execute("select run_uuid, status, lifecycle_stage, artifact_uri from runs").fetchall()
        named = {run: dict(database.execute(_OF_RUNS["tags"], (run,))) for run, *_ in runs}
        for run, status, lifecycle, artifacts in sorted(runs):
            facts = {name: database.execute(query, (run,)).fetchall() for name, query in _OF_RUNS.items()}
            facts["tags"] = [
                (key, _ID.sub("ID", value)) for key, value in facts["tags"] if key not in _OWN_TAGS
            ]
            for curves in ("metrics", "latest"):
                facts[curves] = [row for row in facts[curves] if row[0] not in _TIMES]
            parent = named.get(named[run].get("mlflow.parentRunId", ""), {}).get("adpet.lineage")
            key = f"{named[run].get('adpet.kind')} {named[run].get('adpet.lineage')}"
            while key in found:
                key += " again"
            folder = Path(artifacts.removeprefix("file://"))
            paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
            files = [(str(path.relative_to(folder)), _digest(path)) for path in paths]
            found[f"{key}: status"] = (status, lifecycle, parent)
            found |= {f"{key}: {name}": rows for name, rows in (*facts.items(), ("artifacts", files))}
            found[key] = "there"
        found["aliases"] = database.execute(
            "select name, alias, version from registered_model_aliases"
        ).fetchall()
        marks = "select name, version, key, value from model_version_tags order by 1, 2, 3"
        found["marks"] = [row for row in database.execute(marks) if row[2] not in _OWN_MARKS]
    models = root / "mlartifacts/models"
    if models.exists():
        inside = sorted(path.name for path in models.rglob("*") if path.is_file())
        found["files of models"] = inside
    return found


def _run_ids(root: Path) -> set[str]:
    if not (root / "mlflow.db").exists():
        return set()
    try:
        with closing(sqlite3.connect(root / "mlflow.db")) as database:
            return {
                run
                for (run,) in database.execute("select run_uuid from runs where lifecycle_stage = 'active'")
            }
    except sqlite3.OperationalError:  # killed while the tables were made
        return set()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _difference(there: Any, expected: Any) -> str:
    """Tell two values that differ; of two lists what is in one of them alone."""
    if isinstance(there, list) and isinstance(expected, list):
        there, expected = (
            [row for row in there if row not in expected],
            [row for row in expected if row not in there],
        )
    return f"{_short(there)}, undisturbed {_short(expected)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 300 else f"{text[:140]} ... {text[-140:]}"


def _stages(root: Path) -> list[tuple[str, list[str]]]:
    """Return the stages in the order in which they run, each with its outputs."""
    found = []
    for prefix, file in (("data/simulated/dvc.yaml:", "data/simulated/dvc.yaml"), ("", "dvc.yaml")):
        for name, stage in YAML(typ="safe").load(root / file)["stages"].items():
            outs = [*stage.get("outs", []), *stage.get("metrics", [])]
            paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
            for number in stage.get("matrix", {"number": [None]})["number"]:
                shown = name if number is None else f"{name}@{number}"
                found.append(
                    (prefix + shown, [path.replace("${item.number}", str(number)) for path in paths])
                )
    return found


def _tests_helpers() -> Any:
    """Return the module in which the tests make their workspaces."""
    spec = importlib.util.spec_from_file_location("workspaces", PROJECT / "tests/conftest.py")
    if spec is None or spec.loader is None:
        raise SystemExit("required tests/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, YAML(typ="safe").load(value)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10, help="of each stage of 10 s or more")
    parser.add_argument("--stages", nargs="+", default=[], help="that are killed (default: all)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the pipeline")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
