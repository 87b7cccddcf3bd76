"""One id stands for everything that a result follows from."""

import subprocess

import pytest

from adpet.tracking.lineage import UNVERSIONED, commit, data_hash, lineage


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (
        "git init --quiet",
        "git config user.name test",
        "git config user.email test@example.org",
        "git add params.yaml dvc.lock",
        "git commit --quiet -m begin",
    ):
        (tmp_path / "params.yaml").write_text("seed: 1\n")
        (tmp_path / "dvc.lock").write_text("stages: {}\n")
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    return tmp_path


def facts(**changes):
    return lineage(**{"params": {"alpha": 1}, "raw": "data/raw", "split_hash": "ab", "seed": 1} | changes)


def test_the_id_changes_with_each_fact(repository):
    ids = {
        facts()["id"],
        facts(params={"alpha": 2})["id"],
        facts(split_hash="cd")["id"],
        facts(seed=2)["id"],
    }
    assert len(ids) == 4
    assert facts()["id"] == facts()["id"]


def test_the_commit_says_whether_the_files_differ_from_it(repository):
    clean = commit()
    assert len(clean) == 40
    (repository / "params.yaml").write_text("seed: 2\n")
    assert commit() == f"{clean}-dirty"


def test_what_dvc_rewrites_does_not_make_the_code_another_one(repository):
    (repository / "dvc.lock").write_text("stages: {ingest: {}}\n")
    assert not commit().endswith("-dirty")


def test_outside_of_git_and_dvc_results_are_unversioned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (commit(), data_hash("data/raw")) == (UNVERSIONED, UNVERSIONED)


@pytest.mark.parametrize("spelled", ["data/raw", "data/raw/", "./data/raw"])
def test_the_data_hash_does_not_depend_on_how_the_folder_is_spelled(tmp_path, spelled):
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages: {ingest: {deps: [{path: data/raw, md5: ab12.dir}]}}\n")
    assert data_hash(spelled, lock=lock) == "ab12.dir"


def test_the_data_hash_is_the_one_that_dvc_locked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  ingest:\n    deps:\n    - path: data/raw\n      md5: 0123.dir\n"
    )
    assert data_hash("data/raw") == "0123.dir"
    assert data_hash("data/other") == UNVERSIONED
