"""A version is made again from git and the DVC cache alone, and its weights are compared."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adpet.cli import main
from adpet.commands import reproduce
from adpet.commands.reproduce import place_data
from adpet.errors import InputError
from adpet.tracking.lineage import git

LIST = f"{'c' * 32}.dir"
FILES = {"a" * 32: ("sub-1/scan.nii", b"one"), "b" * 32: ("participants.tsv", b"two")}


def kept(cache, digest):
    return cache / "files/md5" / digest[:2] / digest[2:]


@pytest.fixture
def cache(tmp_path):
    """DVC's cache of a folder with two files."""
    cache = tmp_path / "cache"
    listing = json.dumps([{"md5": digest, "relpath": name} for digest, (name, _) in FILES.items()]).encode()
    for digest, content in {
        LIST: listing,
        **{digest: content for digest, (_, content) in FILES.items()},
    }.items():
        kept(cache, digest).parent.mkdir(parents=True)
        kept(cache, digest).write_bytes(content)
    return cache


def placed(cache, project):
    return place_data(cache, LIST, project, raw="data/raw")


def test_the_data_come_out_of_the_cache_by_their_hash(cache, tmp_path):
    assert placed(cache, tmp_path)
    for name, content in FILES.values():
        assert (tmp_path / "data/raw" / name).read_bytes() == content


def test_data_that_are_not_in_the_cache_are_left_to_the_commit(cache, tmp_path):
    kept(cache, LIST).unlink()
    assert not placed(cache, tmp_path)
    assert not (tmp_path / "data").exists()


def test_data_of_which_the_cache_has_a_part_are_refused_before_any_is_written(cache, tmp_path):
    kept(cache, "b" * 32).unlink()
    said = "1 of 2 files are missing in the DVC cache; get them with: dvc fetch --all-commits data/raw"
    with pytest.raises(InputError, match=said):
        placed(cache, tmp_path)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["../outside.nii", "a/../../outside.nii", "/outside.nii"])
def test_a_list_that_names_a_file_elsewhere_is_refused(cache, tmp_path, name):
    first, second = json.loads(kept(cache, LIST).read_text())
    name = f"{tmp_path}{name}" if name.startswith("/") else name
    kept(cache, LIST).write_text(json.dumps([first, second | {"relpath": name}]))
    with pytest.raises(InputError, match=rf"{LIST}: required a path inside of raw.*received {name}"):
        placed(cache, tmp_path)
    assert not (tmp_path / "data").exists()


class TestWorktree:
    @pytest.fixture(autouse=True)
    def commit(self, tmp_path, monkeypatch):
        """A project under git and DVC with one commit."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".gitignore").write_text("/.adpet/\n")
        (tmp_path / "dvc.yaml").write_text("stages: {ingest: {cmd: 'true'}}\n")
        for command in (
            *("git init --quiet", f"{sys.executable} -m dvc init --quiet", "git add --all"),
            "git -c user.name=t -c user.email=t@example.org commit --quiet -m begin",
        ):
            subprocess.run(command.split(), check=True)
        return git("rev-parse", "HEAD")

    def test_nothing_of_a_killed_one_stays_once_its_stage_has_ended(self, commit, tmp_path):
        script = (
            "import sys; from adpet.commands.reproduce import _run, _worktree\n"
            "with _worktree(sys.argv[1], 'models:/adpet/1') as folder:\n"
            "    print(folder, flush=True)\n"
            "    stage = 'import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(600)'\n"
            "    _run(folder, {}, sys.executable, '-c', stage)"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, commit], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        left, stage = Path(process.stdout.readline().strip()), int(process.stderr.readline())
        process.kill()
        process.wait()
        assert left.is_relative_to(tmp_path / ".adpet/tmp")
        os.kill(stage, signal.SIGKILL)
        process.communicate()  # its end is that of the stage, too
        with reproduce._worktree(commit, "models:/adpet/1"):
            assert not left.exists()
            assert git("worktree", "list").count("\n") == 1
        assert "\n" not in git("worktree", "list")
        assert list((tmp_path / ".adpet/tmp").iterdir()) == []

    def test_dvc_knows_the_stages_of_the_project_and_of_the_worktree_apart(self, commit):
        command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
        with reproduce._worktree(commit, "models:/adpet/1") as folder:
            here, there = (
                subprocess.check_output(command, cwd=place, text=True).split() for place in (None, folder)
            )
            root = subprocess.check_output(
                [sys.executable, "-m", "dvc", "root"], cwd=folder, text=True
            ).strip()
        assert here == there == ["ingest"]
        assert root == "."


@pytest.mark.slow
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

    def test_the_lineage_is_told_and_is_all_here(self, finished):
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


@pytest.mark.long
class TestARefittedModel:
    """Another setting than the commit's made it so, which the version has to remember."""

    def test_its_lineage_tells_what_made_it_so_and_how_to_do_it_again(self, refitted):
        text = refitted.adpet("lineage", "models:/adpet@challenger").stdout
        assert "NOT HERE" not in text
        assert "evaluate.cross_validation: 3" in text
        assert "-S evaluate.cross_validation=3" in text
        first = refitted.adpet("lineage", "1").stdout
        assert "cross_validation" not in first

    def test_it_is_made_again_bit_by_bit_whatever_the_settings_are_now(self, refitted):
        refitted.set_params({"evaluate.cross_validation": 0})
        done = refitted.adpet("reproduce", "2")
        assert done.stdout.endswith("the weights are the same, bit by bit\n")


@pytest.mark.long
def test_weights_that_differ_are_told_with_how_far_and_end_with_status_1(
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
