"""Project folders in which stages and commands run as processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from adpet.storage import set_by_key

PROJECT = Path(__file__).parents[2]
# The mean of 100 real FDG-PET scans, which is not part of the project.
REAL_MEAN_IMAGE = PROJECT.parent / "shared" / "real" / "TEMPLATE_FDGPET_100.nii"
SIMULATE_STAGE = "data/simulated/dvc.yaml:simulate"

# A pipeline of some seconds a stage.
SMALL = {
    "simulation.ad_subjects": 8,
    "simulation.cn_subjects": 8,
    # So few people all count: whole heads, one pattern of disease.
    "simulation.axial_fov": "full",
    "simulation.subtypes": {"typical": 1.0, "limbic": 0.0, "cortical": 0.0},
    "simulation.lateralised_fraction": 0.0,
    "simulation.mci_subjects": 0,
    "simulation.other_subjects": {"FTD": 0, "DLB": 0, "stroke": 0},
    "compute.workers": 2,
    "compute.threads": 1,
    "split.test_fraction": 0.25,
    "split.folds": 3,
    "model.input_size": 32,
    "model.alpha": 0.35,
    "slice.step_mm": 28.0,
    "slice.neighbours_mm": 4.0,
    "train.epochs": 3,
    "tune.trials": 2,
    "tune.startup_trials": 1,
    "tune.epochs": 2,
    "tune.workers": 1,
    "evaluate.resamples": 200,
    "explain.montages": 2,
    "leakage.subjects": 8,
    "leakage.step_mm": 15.0,
    "leakage.alpha": 0.35,
    "leakage.feature_layer": "block_4_expand_relu",  # a third of the time until it is compiled
    "leakage.epochs": 3,
    "leakage.batch_size": 8,
}

# As people have them in the environment; whoever looks for names finds these too.
SECRETS = {
    name: f"ROE-{name}"
    for name in (
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_FLASK_SERVER_SECRET_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "PGPASSWORD",
        "GITHUB_TOKEN",
    )
}


class Workspace:
    """A project folder with a copy of this checkout's code and parameters of its own.

    `output` has all that its commands printed, `names` those planted in its scans and tables, by place.
    """

    small = SMALL
    secrets = SECRETS

    def __init__(self, root: Path, names: dict[str, str] | None = None) -> None:
        self.root = root
        self.output: list[str] = []
        self.names = names or {}
        # What its user has set in the shell.
        self.variables: dict[str, str] = {}

    def save(self, path: Path) -> None:
        """Write what a test in another process needs beside the folder itself."""
        path.write_text(json.dumps({"names": self.names, "output": self.output}))

    @classmethod
    def restore(cls, root: Path, path: Path) -> "Workspace":
        document = json.loads(path.read_text())
        workspace = cls(root, document["names"])
        workspace.output = document["output"]
        return workspace

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DVC"))}
        binaries = str(Path(sys.executable).parent)
        paths = {"PATH": f"{binaries}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(self.root / "src")}
        return kept | SECRETS | paths | self.variables

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), text=True, capture_output=True, check=False
        )
        self.output += [done.stdout, done.stderr]
        assert done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def adpet(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", "adpet", *arguments, status=status)

    def set_params(self, values: dict) -> None:
        yaml = YAML()
        path = self.root / "params.yaml"
        document = yaml.load(path)
        for key, value in values.items():
            set_by_key(document, key, value)
        yaml.dump(document, path)

    def read_json(self, path: str):
        return json.loads((self.root / path).read_text())

    def content(self, paths: list[str]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for path in paths:
            full = self.root / path
            for file in sorted(full.rglob("*")) if full.is_dir() else [full]:
                files[str(file.relative_to(self.root))] = file.read_bytes()
        return files

    def commit_all(self) -> None:
        person = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        self.run("git", "add", "--all")
        self.run("git", *person, "commit", "--quiet", "-m", "begin")

    def copy_test_subjects(self, folder: Path) -> None:
        """Make a BIDS tree of the test subjects' scans: people who are new to the model."""
        raw, split = self.root / "data/simulated/raw", pd.read_csv(self.root / "data/processed/split.csv")
        folder.mkdir()
        shutil.copy(raw / "participants.tsv", folder)
        for subject in split.loc[split["part"] == "test", "subject"].unique():
            shutil.copytree(raw / f"sub-{subject}", folder / f"sub-{subject}")

    def client(self):
        """Return MLflow's client of the project's own store."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{self.root}/mlflow.db")

    def run_pipeline(self) -> None:
        """Run every stage after `simulate` in one process, without DVC."""
        self.run(
            sys.executable,
            "-c",
            "from adpet import cli\nfor stage in list(cli.STAGES)[1:]: cli.main([stage])",
        )


def begin_project(root: Path, values: dict, *, dvc: bool = True) -> Workspace:
    """Return a git project, and by default a DVC one, where no stage has run."""
    folders = [f"data/{name}/.gitkeep" for name in ("weights", "templates", "atlases", "external")]
    ignored = [path.relative_to(PROJECT) for path in PROJECT.glob("[dr]*/**/.gitignore")]
    for name in (
        "dvc.yaml",
        "params.yaml",
        ".dvcignore",
        ".gitignore",
        "data/simulated/dvc.yaml",
        *folders,
        *ignored,
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    # Stages depend on their code.
    shutil.copytree(PROJECT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    workspace = Workspace(root)
    workspace.set_params(SMALL | values)
    workspace.run("git", "init", "--quiet")
    if dvc:
        workspace.run("dvc", "init", "--quiet")
        workspace.run("dvc", "config", "core.analytics", "false")
        workspace.run("dvc", "remote", "add", "lab", "../lab")
    workspace.commit_all()
    return workspace


def copy_of(workspace: Workspace, root: Path) -> Workspace:
    """Return a copy of a project, to be changed."""
    shutil.copytree(workspace.root, root, symlinks=True)
    copy = Workspace(root, workspace.names)
    copy.output = list(workspace.output)
    return copy


def kill_when_there(pattern, workspace, *command):
    """Start a stage, and kill it with its workers as soon as a file of unfinished work is there."""
    process = workspace.start(sys.executable, "-m", "adpet", *command)
    while not next((workspace.root / ".adpet").glob(pattern), None):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def runs_of(workspace, kind):
    client = workspace.client()
    experiment = client.get_experiment_by_name("adpet").experiment_id
    runs = client.search_runs([experiment], f"tags.`adpet.kind` LIKE '{kind}'")
    return client, sorted(runs, key=lambda run: run.info.start_time)
