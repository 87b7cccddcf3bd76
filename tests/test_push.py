"""The two DVC remotes: data of single participants goes to `lab` alone, all else to the default one."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workspace import Workspace

# Of all participants together, or under hashed ids: no name, no scan, no single result.
SHARED = {
    "data/processed/split.json",
    "results/tune/best.json",
    "results/tune/trials.csv",
    "results/tune/search.png",
    "results/train/model.keras",
    "results/train/history.csv",
    "results/train/run.json",
    "results/train/curves.png",
    "results/evaluate/evaluation.json",
    "results/evaluate/baselines.json",
    "results/evaluate/findings.json",
    "results/evaluate/pooling.json",
    "results/evaluate/subgroups.csv",
    "results/evaluate/roc.csv",
    "results/evaluate/roc_band.csv",
    "results/evaluate/precision_recall.csv",
    "results/evaluate/calibration.csv",
    *(f"results/evaluate/{name}.png" for name in ("roc", "precision_recall", "calibration", "confusion")),
    *(f"results/evaluate/{name}.png" for name in ("probabilities", "baselines", "subgroups")),
    "results/export",
    "results/score/groups.json",
    *(f"results/score/{name}.png" for name in ("groups", "conversion")),
    "results/explain/groups",
    "results/explain/regions.csv",
    "results/explain/cam.json",
    "results/leakage/leak.png",
    "results/leakage/leakage.json",
    "results/cross-validation/history.csv",
    "results/cross-validation/folds.json",
    "results/cross-validation/summary.json",
    *(
        f"results/external/{name}"
        for name in ("subgroups.csv", "decisions.csv", "report.html", "external.json")
    ),
    "results/report/report.html",
    "results/report/MODEL_CARD.md",
    "results/register/version.json",
}


def outputs_of(project_root):
    """Every cached output of dvc.yaml, with its options."""
    stages = YAML(typ="safe").load(project_root / "dvc.yaml")["stages"].values()
    outs = [out for stage in stages for kind in ("outs", "plots", "metrics") for out in stage.get(kind, [])]
    named = dict(({out: {}} if isinstance(out, str) else out).popitem() for out in outs)
    return {name: options for name, options in named.items() if options.get("cache", True)}


def test_what_is_of_single_participants_is_kept_for_the_lab(project_root):
    outputs = outputs_of(project_root)
    assert {name for name, options in outputs.items() if options == {}} == SHARED
    assert all(options == {"remote": "lab"} for name, options in outputs.items() if name not in SHARED)


@pytest.mark.dvc
class TestRemotes:
    """A project with this project's outputs, one line each, and its remotes: folders next to it."""

    @pytest.fixture
    def project(self, tmp_path, project_root):
        root = tmp_path / "project"
        (root / ".dvc").mkdir(parents=True)
        (root / "data/raw").mkdir(parents=True)
        for name in (".dvc/config", ".dvc/.gitignore"):
            shutil.copy(project_root / name, root / name)
        outputs = outputs_of(project_root)
        command = " && ".join(
            f"mkdir -p $(dirname {name}) && echo content of {name} > {name}" for name in sorted(outputs)
        )
        stage = {
            "cmd": command,
            "deps": ["data/raw"],
            "outs": [{name: options} for name, options in outputs.items()],
        }
        with (root / "dvc.yaml").open("w") as file:
            YAML().dump({"stages": {"all": stage}}, file)
        (root / "data/raw/scan.nii").write_text("content of data/raw\n")
        self.run(root, "git", "init", "--quiet")
        self.run(root, "dvc", "add", "data/raw")
        with (root / "data/raw.dvc").open("a") as file:
            file.write("  remote: lab\n")
        self.run(root, "dvc", "repro")
        Workspace(root).commit_all()
        self.run(root, "dvc", "push")
        return root

    def run(self, root: Path, *command: str, status: int = 0) -> str:
        done = Workspace(root).run(*command, status=status)
        return done.stdout + done.stderr

    def clone(self, project):
        self.run(project.parent, "git", "clone", "--quiet", "project", "clone")
        return project.parent / "clone"

    def contents(self, folder):
        texts = [path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".dir"]
        return {text.strip().removeprefix("content of ") for text in texts}

    def test_each_output_is_pushed_to_its_own_remote_alone(self, project, project_root):
        assert self.contents(project.parent / "adpet-storage") == SHARED
        private = set(outputs_of(project_root)) - SHARED | {"data/raw"}
        assert self.contents(project.parent / "adpet-lab") == private

    def test_with_both_remotes_a_clone_pulls_all_and_repeats_nothing(self, project, project_root):
        clone = self.clone(project)
        self.run(clone, "dvc", "pull")
        assert all((clone / name).exists() for name in (*outputs_of(project_root), "data/raw/scan.nii"))
        assert "Data and pipelines are up to date" in self.run(clone, "dvc", "repro")

    def test_with_the_default_remote_alone_a_clone_pulls_what_is_shared(self, project, project_root):
        clone = self.clone(project)
        self.run(clone, "dvc", "remote", "modify", "--local", "lab", "url", str(project.parent / "none"))
        said = self.run(clone, "dvc", "pull", "--allow-missing")
        assert "Some of the cache files do not exist neither locally nor on remote" in said
        assert {name for name in outputs_of(project_root) if (clone / name).exists()} == SHARED
        assert "Data and pipelines are up to date" in self.run(clone, "dvc", "repro", "--allow-missing")

    def test_a_push_to_the_default_remote_by_name_leaves_the_lab_out(self, project):
        shutil.rmtree(project.parent / "adpet-storage")
        self.run(project, "dvc", "push", "--remote", "storage")
        assert self.contents(project.parent / "adpet-storage") == SHARED
