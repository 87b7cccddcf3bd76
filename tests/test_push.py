"""What `dvc push` sends away: nothing of a participant, unless whoever keeps the scans takes a line out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

# Of all participants together, without a name.
SHARED = {
    "data/processed/split.json",
    "results/tune/best.json",
    "results/tune/trials.csv",
    "results/tune/search.png",
    "results/train/model.keras",
    "results/train/history.csv",
    "results/train/curves.png",
    "results/evaluate/findings.json",
    "results/evaluate/position_weights.json",
    "results/evaluate/subgroups.csv",
    "results/evaluate/roc.csv",
    "results/evaluate/roc_band.csv",
    "results/evaluate/precision_recall.csv",
    "results/evaluate/calibration.csv",
    *(f"results/evaluate/{name}.png" for name in ("roc", "precision_recall", "calibration", "confusion")),
    *(f"results/evaluate/{name}.png" for name in ("probabilities", "baselines", "subgroups")),
    "results/export",
    "results/explain/groups",
    "results/explain/regions.csv",
    "results/explain/cam.json",
    "results/leakage/leak.png",
    "results/report/report.html",
    "results/report/MODEL_CARD.md",
    "results/register/version.json",
}


def outs_of(project_root):
    stages = YAML(typ="safe").load(project_root / "dvc.yaml")["stages"].values()
    return [
        out
        for stage in stages
        for number in stage.get("matrix", {"number": [None]})["number"]
        for out in numbered(stage["outs"], number)
    ]


def numbered(outs, number):
    """The outputs of one of a stage's parts."""
    text = "${item.number}"
    return [
        out.replace(text, str(number))
        if isinstance(out, str)
        else {name.replace(text, str(number)): options for name, options in out.items()}
        for out in outs
    ]


def names_of(outs):
    return {out if isinstance(out, str) else next(iter(out)) for out in outs}


class Repository:
    """A project with this project's outputs, which are made of one line each, and a remote in a folder."""

    def __init__(self, root: Path, project_root: Path) -> None:
        self.root, self.remote = root / "project", root / "remote"
        self.remote.mkdir()
        self.root.mkdir()
        shutil.copy(project_root / "params.yaml", self.root)
        outs = outs_of(project_root)
        command = " && ".join(
            f"mkdir -p $(dirname {name}) && echo content of {name} > {name}"
            for name in sorted(names_of(outs))
        )
        with (self.root / "dvc.yaml").open("w") as file:
            YAML().dump({"stages": {"all": {"cmd": command, "outs": outs}}}, file)
        self.dvc("init", "--no-scm", "--quiet")
        self.dvc("config", "core.analytics", "false")
        self.dvc("remote", "add", "--default", "here", str(self.remote))

    def dvc(self, *arguments: str) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC")}
        command = [str(Path(sys.executable).with_name("dvc")), *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def pushed(self) -> set[str]:
        self.dvc("repro")
        self.dvc("push")
        contents = [path.read_text() for path in self.remote.rglob("*") if path.is_file()]
        return {text.strip().removeprefix("content of ") for text in contents}


@pytest.fixture
def repository(tmp_path, project_root):
    return Repository(tmp_path, project_root)


def test_nothing_of_a_participant_is_pushed(repository):
    assert repository.pushed() == SHARED


def test_a_lab_that_takes_the_lines_out_sends_all(repository, project_root):
    file = repository.root / "dvc.yaml"
    file.write_text(file.read_text().replace("push: false", "push: true"))
    assert repository.pushed() == names_of(outs_of(project_root))


@pytest.mark.parametrize(("line", "sent"), [("  push: false\n", set()), ("", {"a participant"})])
def test_of_added_scans_the_line_that_ingest_asks_for_decides(repository, line, sent):
    (repository.root / "data/raw").mkdir(parents=True)
    (repository.root / "data/raw/scan.nii").write_text("a participant")
    repository.dvc("add", "data/raw")
    file = repository.root / "data/raw.dvc"
    file.write_text(file.read_text().replace("path: raw\n", f"path: raw\n{line}"))
    found = {text for text in repository.pushed() if "scan.nii" not in text}
    assert found == SHARED | sent
