"""A version is made again from git and the DVC cache alone, and its weights are compared."""

import json
import re
import shutil

import pytest

from adpet.cli import main
from adpet.commands import reproduce
from adpet.commands.reproduce import place_data
from adpet.errors import InputError


@pytest.fixture
def cache(tmp_path):
    """DVC's cache of a folder with two files."""
    files = {"aa11": ("sub-1/scan.nii", b"one"), "bb22": ("participants.tsv", b"two")}
    folder = tmp_path / "cache" / "files" / "md5"
    for digest, (_, content) in files.items():
        (folder / digest[:2]).mkdir(parents=True)
        (folder / digest[:2] / digest[2:]).write_bytes(content)
    listing = folder / "cc" / "33.dir"
    listing.parent.mkdir()
    listing.write_text(json.dumps([{"md5": md5, "relpath": name} for md5, (name, _) in files.items()]))
    return listing


def test_the_data_come_out_of_the_cache_by_their_hash(cache, tmp_path):
    assert place_data(cache, tmp_path / "raw")
    assert (tmp_path / "raw/sub-1/scan.nii").read_bytes() == b"one"
    assert (tmp_path / "raw/participants.tsv").read_bytes() == b"two"


def test_data_that_are_not_in_the_cache_are_left_to_the_commit(cache, tmp_path):
    assert not place_data(cache.with_name("44.dir"), tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("name", ["../outside.nii", "a/../../outside.nii", "/outside.nii"])
def test_a_list_that_names_a_file_elsewhere_is_refused(cache, tmp_path, name):
    (entry, *_) = json.loads(cache.read_text())
    name = f"{tmp_path}{name}" if name.startswith("/") else name
    cache.write_text(json.dumps([entry | {"relpath": name}]))
    with pytest.raises(InputError, match=rf"{cache.name}: required a path inside of raw.*received {name}"):
        place_data(cache, tmp_path / "raw")
    assert not (tmp_path / "outside.nii").exists()


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
