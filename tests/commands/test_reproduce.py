"""A version is made again from git and the DVC cache alone, and its weights are compared."""

import re
import shutil
import subprocess
import sys

import pytest

from adpet.cli import main
from adpet.commands import reproduce
from adpet.commands.reproduce import place_data
from adpet.errors import InputError
from adpet.params import read_yaml
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
class TestData:
    def test_data_come_from_the_cache_by_their_hash(self, digest, tmp_path):
        assert place_data(digest, tmp_path / "worktree", raw="data/raw")
        for name, content in FILES.items():
            assert (tmp_path / "worktree/data/raw" / name).read_text() == content

    def test_data_that_the_cache_does_not_know_are_left_to_the_commit(self, digest, tmp_path):
        assert not place_data(f"{'0' * 32}.dir", tmp_path / "worktree", raw="data/raw")
        assert not place_data("unversioned", tmp_path / "worktree", raw="data/raw")
        assert not (tmp_path / "worktree").exists()

    def test_data_with_a_file_missing_in_the_cache_are_refused(self, project, digest, tmp_path):
        next(path for path in project.glob(".dvc/cache/files/md5/*/*") if path.suffix != ".dir").unlink()
        text = "1 files are not in the DVC cache; get them with: dvc fetch --all-commits data/raw"
        with pytest.raises(InputError, match=text):
            place_data(digest, tmp_path / "worktree", raw="data/raw")
        assert not (tmp_path / "worktree").exists()

    @pytest.mark.parametrize("raw", ["../outside", "/outside"])
    def test_data_are_not_written_outside_of_the_project(self, digest, tmp_path, raw):
        with pytest.raises(InputError, match=r"cohort.raw: required a path inside the project"):
            place_data(digest, tmp_path / "worktree", raw=raw)


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

    def test_what_a_killed_one_left_in_git_is_pruned(self, project):
        commit = git("rev-parse", "HEAD")
        left = project.parent / "left"
        git("worktree", "add", "--detach", str(left), commit)
        shutil.rmtree(left)
        with reproduce._worktree(commit, "models:/adpet/1"):
            assert str(left) not in git("worktree", "list")

    @pytest.mark.parametrize("commit", ["0" * 40, "unversioned"])
    def test_a_commit_that_is_not_here_is_refused(self, project, commit):
        with (
            pytest.raises(InputError, match=r"required its commit .*; received none; get it with: git fetch"),
            reproduce._worktree(commit, "models:/adpet/1"),
        ):
            pass


class TestSettings:
    """A worktree gets the version's parameters, and the files that they name."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(reproduce, "cache_folder", lambda: tmp_path / "cache")
        monkeypatch.setattr(reproduce, "_run", lambda *_: None)
        (tmp_path / "weights.h5").write_bytes(b"weights")
        (tmp_path / "worktree").mkdir()
        (tmp_path / "worktree/params.yaml").write_text("seed: 1\nmodel: {weights: none, alpha: 1.0}\n")
        return tmp_path / "worktree"

    def facts(self, digest):
        return {"params": {"seed": 2, "model": {"weights": "weights.h5"}}, "weights_digest": digest}

    def test_parameters_are_those_of_the_version(self, folder):
        reproduce._settle(folder, self.facts(file_digest("weights.h5")))
        weights = str(folder.parent / "weights.h5")
        assert read_yaml(folder / "params.yaml") == {"seed": 2, "model": {"weights": weights, "alpha": 1.0}}

    def test_another_weights_file_is_refused(self, folder):
        with pytest.raises(InputError, match=r"model.weights: required the file .* bring it back to"):
            reproduce._settle(folder, self.facts("0" * 64))


@pytest.mark.slow
@pytest.mark.dvc
class TestAPipelineThatHasRun:
    def test_the_registered_weights_are_made_again_bit_by_bit(self, finished):
        before = finished.run("git", "worktree", "list").stdout
        done = finished.adpet("reproduce", "1")
        assert done.stdout.endswith("the weights are the same, bit by bit\n")
        assert finished.run("git", "worktree", "list").stdout == before

    def test_another_code_or_a_commit_that_is_not_here_is_refused_in_one_line(self, copied):
        shutil.rmtree(copied.root / ".git")
        for command in ("init", "add params.yaml", "-c user.name=t -c user.email=t commit -m x"):
            copied.run("git", *command.split())
        refused = copied.adpet("reproduce", "1", status=1)
        assert "in this repository; received none; get it with: git fetch --all" in refused.stderr
        assert refused.stderr.count("\n") == 1

    def test_lineage_is_printed_and_all_here(self, finished):
        text = finished.adpet("lineage", "models:/adpet@challenger").stdout
        assert "NOT HERE" not in text
        assert finished.read_json("results/train/run.json")["lineage"]["id"] in text


@pytest.fixture(scope="module")
def refitted(asked_for, tmp_path_factory):
    """The same with its network, trained on all training subjects, as version 2."""
    root = tmp_path_factory.mktemp("refitted") / "project"
    shutil.copytree(asked_for.root, root, symlinks=True)
    workspace = type(asked_for)(root, asked_for.names)
    for stage in ("evaluate", "export", "register"):
        workspace.adpet(stage)
    assert workspace.read_json("results/register/version.json")["version"] == 2
    return workspace


@pytest.mark.slow
@pytest.mark.dvc
class TestARefittedModel:
    """Another setting than the commit's made it so, which the version has to remember."""

    def test_its_lineage_shows_the_setting_that_made_it_so(self, refitted):
        text = refitted.adpet("lineage", "models:/adpet@challenger").stdout
        assert "NOT HERE" not in text
        assert "* evaluate.cross_validation: 3" in text
        first = refitted.adpet("lineage", "1").stdout
        assert "cross_validation" not in first

    def test_it_is_made_again_bit_by_bit_whatever_the_settings_are_now(self, refitted):
        refitted.set_params({"evaluate.cross_validation": 0})
        done = refitted.adpet("reproduce", "2")
        assert done.stdout.endswith("the weights are the same, bit by bit\n")


@pytest.mark.slow
@pytest.mark.dvc
def test_weights_that_differ_are_printed_with_how_far_and_exit_status_1(
    finished, asked_for, monkeypatch, capsys
):
    """As if version 1 had come out as the refitted network did."""
    monkeypatch.chdir(finished.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def train(folder, facts, *, with_data):
        assert with_data
        for name in ("results/train/model.keras", "dvc.lock"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(asked_for.root / name, folder / name)

    monkeypatch.setattr(reproduce, "_train", train)
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "1"])
    assert ended.value.code == (
        "adpet reproduce: required the same weights as those registered; received others, as said above"
    )
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert float(re.fullmatch(r"the weights differ, by ([0-9.e-]+) at most", last)[1]) > 0.001
    assert finished.run("git", "worktree", "list").stdout.count("\n") == 1
