"""A version is made again from git and the DVC cache alone, and its weights are compared."""

import json
import shutil

import pytest

from adpet.commands.reproduce import place_data


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
