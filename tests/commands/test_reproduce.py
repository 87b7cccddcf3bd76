"""A version is made again from git and the DVC cache alone, and its weights are compared."""

import shutil
import subprocess
import sys

import pytest

from adpet.cli import main
from adpet.commands import reproduce
from adpet.commands.reproduce import place_data
from adpet.errors import InputError
from adpet.params import load_params
from adpet.storage import read_yaml
from adpet.tracking.lineage import file_digest, git

FILES = {"sub-1/scan.nii": "one", "participants.tsv": "two"}


def dvc(*arguments):
    return subprocess.check_output([sys.executable, "-m", "dvc", *arguments], text=True).strip()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project under git and DVC with one commit, and a folder in DVC's cache alone."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "dvc.yaml").write_text("stages: {ingest: {cmd: 'true'}}\n")
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc("init", "--quiet")
    for name, content in FILES.items():
        (root / "data/raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data/raw" / name).write_text(content)
    dvc("add", "--quiet", "data/raw")
    shutil.rmtree(root / "data/raw")
    subprocess.run(["git", "add", "dvc.yaml", ".dvc/config"], check=True)
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *author, "commit", "--quiet", "-m", "begin"], check=True)
    return root


@pytest.fixture
def digest(project):
    """Hash of the folder; the workspace does not name it any more."""
    document = project / "data/raw.dvc"
    digest = read_yaml(document)["outs"][0]["md5"]
    document.unlink()
    return digest


@pytest.mark.dvc
def test_data_come_whole_from_the_cache_by_their_hash(project, digest, tmp_path):
    whole, other = tmp_path / "whole", tmp_path / "other"
    assert place_data(digest, whole, raw="data/raw")
    for name, content in FILES.items():
        assert (whole / "data/raw" / name).read_text() == content
    for unknown in (f"{'0' * 32}.dir", "unversioned"):
        assert not place_data(unknown, other, raw="data/raw")
    for raw in ("../outside", "/outside"):
        with pytest.raises(InputError, match=r"cohort.raw: required a path inside the project"):
            place_data(digest, other, raw=raw)
    next(path for path in project.glob(".dvc/cache/files/md5/*/*") if path.suffix != ".dir").unlink()
    text = "1 files are not in the DVC cache; get them with: dvc fetch --all-commits data/raw"
    with pytest.raises(InputError, match=text):
        place_data(digest, other, raw="data/raw")
    assert not other.exists()


@pytest.mark.dvc
class TestWorktree:
    def test_a_worktree_is_a_project_of_its_own_and_is_removed(self, project):
        commit = git("rev-parse", "HEAD")
        with pytest.raises(KeyboardInterrupt), reproduce._worktree(commit, "models:/adpet/1") as folder:
            assert dvc("--cd", str(folder), "root") == "."
            assert (folder / "dvc.yaml").is_file()
            raise KeyboardInterrupt
        assert not folder.exists()
        assert "\n" not in git("worktree", "list")

    def test_a_commit_that_is_not_here_is_refused(self, project):
        for commit in ("0" * 40, "unversioned"):
            with (
                pytest.raises(InputError, match=r"required its commit .* received none; .* git fetch"),
                reproduce._worktree(commit, "models:/adpet/1"),
            ):
                pass


def test_worktree_gets_the_parameters_of_the_version_and_the_files_they_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce.lineage, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(reproduce, "_run", lambda *_: None)
    weights, folder = tmp_path / "data/weights/own.h5", tmp_path / "worktree"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    folder.mkdir()
    text = (
        "seed: 1\nmodel: {weights: none, alpha: 1.0}\ntune: {trials: 3, space: {dropout: {choices: [0.1]}}}\n"
    )
    (folder / "params.yaml").write_text(text)
    facts = {
        "params": {"seed": 2, "model": {"weights": "data/weights/own.h5"}},
        "weights_digest": file_digest(weights),
    }
    reproduce._settle(folder, facts)
    assert read_yaml(folder / "params.yaml") == {
        "seed": 2, "model": {"weights": "data/weights/own.h5", "alpha": 1.0}, "tune": {"trials": 3, "space": {}},
    }  # fmt: skip
    assert (folder / load_params(folder / "params.yaml").model.weights).read_bytes() == b"weights"
    weights.write_bytes(b"others")
    with pytest.raises(InputError, match=r"model.weights: required the file .* bring it back to"):
        reproduce._settle(folder, facts)


@pytest.mark.slow
@pytest.mark.dvc
class TestAPipelineThatHasRun:
    def test_lineage_is_all_here_and_weights_are_made_again_bit_by_bit(self, finished_by_dvc):
        text = finished_by_dvc.adpet("lineage", "models:/adpet@challenger").stdout
        assert "NOT HERE" not in text
        assert finished_by_dvc.read_json("results/train/run.json")["lineage"]["id"] in text
        before = finished_by_dvc.run("git", "worktree", "list").stdout
        done = finished_by_dvc.adpet("reproduce", "1")
        assert done.stdout.endswith("the weights are the same, bit by bit\n")
        assert finished_by_dvc.run("git", "worktree", "list").stdout == before

    def test_other_weights_are_printed_with_how_far_they_are_and_exit_status_1(
        self, finished_by_dvc, monkeypatch, capsys
    ):
        def train(folder, facts, *, with_data):
            assert with_data
            for name in ("results/train/model.keras", "dvc.lock"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(finished_by_dvc.root / name, folder / name)

        monkeypatch.chdir(finished_by_dvc.root)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setattr(reproduce, "_train", train)
        monkeypatch.setattr(reproduce, "weights_difference", lambda *_: 0.25)
        with pytest.raises(SystemExit, match="required the same weights as those registered"):
            main(["reproduce", "1"])
        assert capsys.readouterr().out.endswith("the weights differ, by 0.25 at most\n")

    def test_a_version_is_made_again_whatever_the_settings_are_now(self, copied_from_dvc):
        """Another setting than the commit's made it, which the version has to remember."""
        copied_from_dvc.set_params({"train.epochs": 2})
        copied_from_dvc.run("dvc", "repro", "register")
        copied_from_dvc.set_params({"train.epochs": 1})
        assert "* train.epochs: 2" in copied_from_dvc.adpet("lineage", "2").stdout
        done = copied_from_dvc.adpet("reproduce", "2")
        assert done.stdout.endswith("the weights are the same, bit by bit\n")
