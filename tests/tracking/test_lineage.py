"""One id stands for all that a result follows from; what is here of it is compared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adpet.commands import lineage as lineage_command
from adpet.errors import InputError, TrackingError
from adpet.params import load_params, read_yaml
from adpet.paths import RUN
from adpet.storage import code_digest
from adpet.tracking.lineage import (
    FOLDER,
    UNVERSIONED,
    cache_folder,
    changed_settings,
    checks,
    commit,
    data_hash,
    facts_of,
    how_to_get,
    lineage,
    lineage_id,
    read_facts,
)
from adpet.tracking.registry import register_version, version_of
from adpet.tracking.runs import append_to_run
from adpet.tracking.sync import shared_run

DATA = f"{'ab12' * 8}.dir"
PARAMS = {"seed": 1, "cohort": {"raw": "data/raw"}, "train": {"learning_rate": 0.002}}


def git(*arguments):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], check=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A project under git and DVC, with the code of two stages."""
    root = tmp_path / "a repository"
    for name in ("src/net/model.py", "src/pages/page.py", ".dvc/config"):
        (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    monkeypatch.chdir(root)
    (root / "params.yaml").write_text("seed: 1\ncohort: {raw: data/raw}\ntrain: {learning_rate: tuned}\n")
    (root / "dvc.yaml").write_text(
        "stages: {train: {cmd: x, deps: [src/net]}, web: {cmd: x, deps: [src/pages]}}\n"
    )
    (root / "dvc.lock").write_text(f"stages: {{ingest: {{deps: [{{path: data/raw, md5: {DATA}}}]}}}}\n")
    git("init", "--quiet")
    git("add", "params.yaml", "dvc.lock")
    git("commit", "--quiet", "-m", "begin")
    return root


@pytest.fixture
def facts(repository):
    return make_facts()


def make_facts(**changes):
    known = {"stage": "train", "params": PARAMS, "raw": "data/raw", "split_hash": "cd34", "seed": 1}
    return lineage(**(known | changes))


def with_id(facts):
    return facts | {"id": lineage_id(facts)}


class TestId:
    def test_id_changes_with_each_fact(self, repository, monkeypatch):
        changes = ({}, {"params": {"alpha": 2}}, {"split_hash": "cd"}, {"seed": 2})
        ids = {make_facts(**each)["id"] for each in changes}
        Path("src/net/model.py").write_text("changed")
        ids.add(make_facts()["id"])
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        ids.add(make_facts()["id"])
        (repository / "dvc.lock").unlink()
        ids.add(make_facts()["id"])
        assert len(ids) == 7
        assert make_facts() == make_facts()

    def test_id_stays_when_git_or_the_code_of_another_stage_moves_on(self, repository):
        before = make_facts()
        (repository / "params.yaml").write_text("seed: 2\n")
        (repository / "src/pages/page.py").write_text("changed")
        dirty = make_facts()
        git("commit", "--quiet", "--all", "-m", "another")
        after = make_facts()
        assert len({before["commit"], dirty["commit"], after["commit"]}) == 3
        assert before["id"] == dirty["id"] == after["id"]

    @pytest.mark.parametrize(
        ("fact", "section", "name"),
        [
            ("weights_digest", "model", "weights"),
            ("template_digest", "normalize", "template"),
            ("atlas_digest", "explain", "atlas"),
        ],
    )
    def test_id_changes_with_the_bytes_of_a_file_that_a_parameter_names(
        self, repository, fact, section, name
    ):
        params = PARAMS | {section: {name: "a file.h5"}}
        assert make_facts(params=params)[fact] is None
        Path("a file.h5").write_bytes(b"one")
        first = make_facts(params=params)
        Path("a file.h5").write_bytes(b"two")
        second = make_facts(params=params)
        assert (len(first[fact]), first[fact] == second[fact]) == (64, False)
        assert first["id"] != second["id"]


def test_code_digest_follows_from_names_and_bytes_of_modules_wherever_they_lie(tmp_path):
    for name in ("one/net/a.py", "one/net/deep/b.py", "one/cli.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    code = tmp_path / "one"
    digests = [code_digest([code / "net", code / "cli.py"])]
    (code / "net/notes.txt").touch()
    code = code.rename(tmp_path / "two")
    assert code_digest([code / "cli.py", code / "net"]) == digests[0]
    for change in (
        (code / "net/c.py").touch,
        lambda: (code / "net/c.py").rename(code / "net/d.py"),
        lambda: (code / "net/d.py").write_text("x"),
    ):
        change()
        digests.append(code_digest([code / "net", code / "cli.py"]))
    assert len(set(digests)) == 4


class TestVersions:
    def test_commit_is_dirty_if_files_differ_but_for_what_dvc_rewrites(self, repository):
        clean = commit()
        assert len(clean) == 40
        (repository / "dvc.lock").write_text("stages: {}\n")
        assert commit() == clean
        (repository / "params.yaml").write_text("seed: 2\n")
        assert commit() == f"{clean}-dirty"

    def test_results_outside_of_git_and_dvc_are_unversioned(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert (commit(), data_hash("data/raw")) == (UNVERSIONED, UNVERSIONED)
        with pytest.raises(InputError, match=r"required a DVC project here; received: .*; run: dvc init"):
            cache_folder()

    def test_data_hash_is_the_one_that_dvc_locked_however_the_folder_is_spelled(self, repository):
        assert {data_hash(raw) for raw in ("data/raw", "data/raw/", "./data/raw")} == {DATA}
        assert data_hash("data/other") == UNVERSIONED

    def test_cache_lies_where_dvc_is_configured(self, repository):
        assert cache_folder() == repository / ".dvc/cache"
        (repository / ".dvc/config").write_text("[cache]\n    dir = ../../shared\n")
        assert cache_folder() == repository.parent / "shared"


@pytest.fixture
def registered(facts, log, tmp_path):
    """Register a version whose run has the facts."""

    def registered(changes=None, *, document=None):
        changed = facts | (changes or {})
        log(changed["id"])
        file = tmp_path / RUN.name
        file.write_text(json.dumps(document or {"lineage": changed}))
        with append_to_run(changed["id"]) as run:
            run.log_artifact(file, FOLDER)
        register_version(run_id=shared_run(changed["id"]), tags={"adpet.lineage": changed["id"]})
        return version_of("models:/adpet/1")

    return registered


class TestFactsOfAVersion:
    def test_facts_are_those_of_the_training(self, registered, facts):
        assert facts_of(registered()) == facts

    def test_changed_facts_are_refused(self, registered):
        with pytest.raises(
            TrackingError, match=r"required the facts of lineage .* it was changed"
        ) as refused:
            facts_of(registered({"seed": 2}))
        assert "\n" not in str(refused.value)

    def test_a_malformed_or_missing_document_is_refused_in_one_line(self, registered, log):
        version = registered(document={"lineage": []})
        register_version(run_id=log("b2"))
        for each in (version, version_of("models:/adpet/2")):
            with pytest.raises(TrackingError, match=r"required lineage/run.json .* received: ") as refused:
                facts_of(each)
            assert "dvc repro --force register" in str(refused.value)
            assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        "changes",
        [
            {"commit": "--output=written"},
            {"commit": f"{'0' * 40}\n"},
            {"data": "../../../../etc"},
            {"versions": ["numpy"]},
            {"params": {"cohort": {}}},
        ],
    )
    def test_facts_that_git_or_dvc_could_misread_are_refused(self, facts, changes):
        """Though they may be those of a lineage id: who fills a registry can write both."""
        (name,) = changes
        with pytest.raises(ValueError, match=rf"^lineage: {name}"):
            read_facts(json.dumps({"lineage": with_id(facts | changes)}))

    @pytest.mark.parametrize(
        "changes", [{"commit": UNVERSIONED, "data": UNVERSIONED}, {"commit": f"{'0' * 64}-dirty"}]
    )
    def test_facts_of_a_training_without_git_or_a_clean_commit_are_read(self, facts, changes):
        changed = with_id(facts | changes)
        assert read_facts(json.dumps({"lineage": changed})) == changed


def found(facts):
    return {check.name: (check.here, check.text) for check in checks(facts)}


class TestChecks:
    @pytest.mark.dvc
    def test_data_are_here_if_the_cache_has_every_file(self, facts, repository):
        raw = repository / "data/raw"
        raw.mkdir(parents=True)
        for name in ("a.nii", "b.nii"):
            (raw / name).write_text(name)
        (repository / "dvc.yaml").unlink()  # DVC would look for the rest of it in dvc.lock
        subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "data/raw"], check=True)
        cached = facts | {"data": read_yaml(repository / "data/raw.dvc")["outs"][0]["md5"]}
        (repository / "data/raw.dvc").unlink()
        assert all(here for here, _ in found(cached).values())
        assert found(cached)["data"] == (True, "in the DVC cache")
        next(path for path in repository.glob(".dvc/cache/files/md5/*/*") if path.suffix != ".dir").unlink()
        assert found(cached)["data"] == (
            False,
            "1 files are not in the DVC cache; get them with: dvc fetch --all-commits data/raw",
        )

    def test_data_are_here_if_the_workspace_has_them(self, facts, repository):
        assert found(facts)["data"] == (
            False,
            "not in the DVC cache; get them with: dvc fetch --all-commits data/raw",
        )
        (repository / "data/raw").mkdir(parents=True)
        assert found(facts)["data"] == (True, "in the workspace")
        assert not found(facts | {"data": UNVERSIONED})["data"][0]

    def test_what_is_not_here_is_named_with_what_is_there_instead(self, facts, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        other = facts | {
            "commit": "0" * 40 + "-dirty",
            "code": "0" * 16,
            "versions": {"numpy": "0.1", "no": "1"},
            "weights_digest": "0" * 64,
        }
        seen = found(other)
        assert seen["commit"] == (False, "not here")
        assert seen["code"] == (False, "src/ has other code now")
        assert seen["backend"] == (False, "here jax")
        assert seen["weights"] == (False, "no such file")
        assert seen["packages"][1].startswith("here numpy ")
        assert seen["packages"][1].endswith(", no missing")

    def test_settings_that_differ_from_the_commit_are_found(self, facts):
        assert changed_settings(facts) == {"train.learning_rate": 0.002}
        assert changed_settings(facts | {"commit": "0" * 40})["cohort.raw"] == "data/raw"

    def test_scans_that_no_remote_has_are_added_by_hand(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "my raw.dvc").touch()
        assert how_to_get("a raw") == "get them with: dvc fetch --all-commits 'a raw'"
        assert how_to_get("my raw/").endswith("copy them to my raw/ and run: dvc add 'my raw/'")


def test_command_prints_every_fact_and_how_to_reproduce(registered, facts, monkeypatch, project_root):
    version = registered()
    monkeypatch.setattr(lineage_command, "connect", lambda *_, **__: None)
    params = load_params(project_root / "params.yaml")
    monkeypatch.setattr(lineage_command, "load_params", lambda: params)
    text = lineage_command.main(version=str(version.number))
    for part in (
        f"adpet version 1, lineage {facts['id']}",
        f"NOT HERE data        {DATA} (data/raw): not in the DVC cache",
        f"here     commit      {facts['commit']}: in this repository",
        "split       cd34",
        "  cohort.raw: data/raw",
        "* train.learning_rate: 0.002",
        "  adpet reproduce 1",
    ):
        assert part in text
