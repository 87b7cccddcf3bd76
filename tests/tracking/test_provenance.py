"""What a version was made from is told from its run alone, and held against what is here."""

import json
import shlex
import subprocess

import pytest
from dvc.utils.hydra import apply_overrides

from adpet.commands import lineage as lineage_command
from adpet.errors import TrackingError
from adpet.params import load_params, read_yaml
from adpet.storage import fingerprint
from adpet.tracking import provenance
from adpet.tracking.lineage import lineage
from adpet.tracking.provenance import changed_settings, checks, facts_of
from adpet.tracking.registry import Version, register_version, version_of
from adpet.tracking.runs import append_to_run
from adpet.tracking.sync import shared_run

DATA = f"{'ab12' * 8}.dir"
PARAMS = {"seed": 1, "cohort": {"raw": "data/raw"}, "train": {"learning_rate": 0.002}}


@pytest.fixture
def repository(project, monkeypatch):
    """A project under git and, but for its cache, DVC."""
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text("seed: 1\ncohort: {raw: data/raw}\ntrain: {learning_rate: tuned}\n")
    (project / "dvc.lock").write_text(f"stages: {{ingest: {{deps: [{{path: data/raw, md5: {DATA}}}]}}}}\n")
    for command in (
        "git init --quiet",
        "git add params.yaml dvc.lock",
        "git -c user.name=t -c user.email=t@example.org commit --quiet -m begin",
    ):
        subprocess.run(command.split(), check=True)
    monkeypatch.setattr(provenance, "cache_folder", lambda: project / "cache")
    return project


@pytest.fixture
def facts(repository):
    return lineage(params=PARAMS, raw="data/raw", split_hash="cd34", seed=1)


@pytest.fixture
def registered(facts, log, tmp_path):
    """A version whose run says what it was made from."""

    def registered(changes=None, *, document=None):
        told = facts | (changes or {})
        log(told["id"])
        file = tmp_path / "run.json"
        file.write_text(json.dumps(document or {"lineage": told}))
        with append_to_run(told["id"]) as run:
            run.log_artifact(file, provenance.FOLDER)
        register_version(run_id=shared_run(told["id"]), tags={"adpet.lineage": told["id"]})
        return version_of("models:/adpet/1")

    return registered


def with_its_id(facts):
    rest = {key: value for key, value in facts.items() if key != "id"}
    return {"id": fingerprint(rest), **rest}


class TestFacts:
    def test_they_are_those_that_the_training_had(self, registered, facts):
        assert facts_of(registered()) == facts

    def test_facts_that_were_changed_are_refused(self, registered):
        version = registered({"seed": 2})
        with pytest.raises(TrackingError, match="it was changed, so nothing follows from it") as refused:
            facts_of(version)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        "document",
        [[0], {"lineage": []}, {"lineage": "x"}, {"lineage": {"seed": 1}}, {"line": {}}],
    )
    def test_a_document_of_another_form_is_refused_in_one_line(self, registered, document):
        version = registered(document=document)
        with pytest.raises(TrackingError, match=r"required lineage/run.json .* received: lineage") as refused:
            facts_of(version)
        assert "dvc repro --force register" in str(refused.value)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize(
        "changes",
        [
            {"commit": "--output=written"},
            {"commit": "HEAD; touch written #"},
            {"commit": f"{'0' * 40}\n"},
            {"data": "../../../../etc"},
            {"data": "ab12.dir"},
            {"versions": ["numpy"]},
            {"params": {"cohort": {}}},
        ],
    )
    def test_facts_that_git_or_the_cache_would_take_for_something_else_are_refused(
        self, registered, facts, changes
    ):
        """Though they are those of the version's lineage id: whoever fills a registry can write both."""
        (name,) = changes
        version = registered(with_its_id(facts | changes))
        with pytest.raises(TrackingError, match=rf"received: lineage\.{name}") as refused:
            facts_of(version)
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("commit", ["unversioned", "0" * 40, f"{'0' * 40}-dirty", "0" * 64])
    @pytest.mark.parametrize("data", ["unversioned", DATA])
    def test_those_of_any_repository_and_of_none_are_taken(self, registered, facts, commit, data):
        wanted = with_its_id(facts | {"commit": commit, "data": data})
        assert facts_of(registered(wanted)) == wanted

    def test_a_version_from_before_they_were_kept_says_what_to_do(self, log):
        register_version(run_id=log())
        with pytest.raises(TrackingError, match=r"required lineage/run.json .* dvc repro --force register"):
            facts_of(version_of("models:/adpet/1"))


def found(facts):
    return {check.name: (check.here, check.text) for check in checks(facts)}


class TestChecks:
    def test_what_is_here_is_said_to_be(self, facts, repository):
        folder = repository / "cache/files/md5/ab"
        folder.mkdir(parents=True)
        listing, kept = folder / DATA[2:], folder / DATA[2:].removesuffix(".dir")
        listing.write_text(json.dumps([{"md5": DATA.removesuffix(".dir"), "relpath": "scan.nii"}]))
        assert found(facts)["data"] == (
            False,
            "1 of 1 files are missing in the DVC cache; get them with: dvc fetch --all-commits data/raw",
        )
        kept.touch()
        assert all(here for here, _ in found(facts).values())
        assert found(facts)["data"] == (True, "in the DVC cache")

    def test_data_may_lie_in_the_workspace_instead(self, facts, repository):
        assert found(facts)["data"] == (
            False,
            "not in the DVC cache; get them with: dvc fetch --all-commits data/raw",
        )
        (repository / "data/raw").mkdir(parents=True)
        assert found(facts)["data"] == (True, "in the workspace")

    def test_what_is_not_here_is_told_with_what_is_there_instead(self, facts, monkeypatch):
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        other = facts | {
            "commit": "0" * 40 + "-dirty",
            "code": "0" * 16,
            "versions": {"numpy": "0.1", "no": "1"},
        }
        seen = found(other)
        assert seen["commit"] == (False, "not here")
        assert seen["code"] == (False, "src/ has other code now")
        assert seen["backend"] == (False, "here jax")
        assert seen["packages"][1].startswith("here numpy ")
        assert seen["packages"][1].endswith(", no missing")

    def test_data_outside_of_dvc_are_nowhere(self, facts):
        assert not found(facts | {"data": "unversioned"})["data"][0]

    def test_only_settings_that_the_commit_has_otherwise_must_be_given(self, facts):
        assert changed_settings(facts) == {"train.learning_rate": 0.002}
        assert changed_settings(facts | {"commit": "0" * 40})["cohort.raw"] == "data/raw"


def test_the_command_tells_everything_and_how_to_make_it_again(
    registered, facts, repository, monkeypatch, project_root
):
    version = registered()
    cache = repository / "in a cache of all projects; touch written"
    monkeypatch.setattr(lineage_command, "cache_folder", lambda: cache)
    monkeypatch.setattr(lineage_command, "connect", lambda *_, **__: None)
    params = load_params(project_root / "params.yaml")
    monkeypatch.setattr(lineage_command, "load_params", lambda: params)
    text = lineage_command.run(str(version.number))
    commit = facts["commit"]
    for part in (
        f"adpet version 1, lineage {facts['id']}",
        f"NOT HERE data        {DATA} (data/raw): not in the DVC cache",
        f"here     commit      {commit}: in this repository",
        "split       cd34",
        "train.learning_rate: 0.002",
        "  adpet reproduce 1",
        f"  git worktree add --detach ../adpet-1 {commit}",
        "  cd ../adpet-1",
        f"  dvc cache dir --local {shlex.quote(str(cache))}",
        "  dvc exp run -S train.learning_rate=0.002 train",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("value", "spelled"),
    [("adamw", "adamw"), ("data/my scans", '"data/my scans"'), ("null", '"null"'), ("12", '"12"'), (None, "null"),
     (True, "true"), (0.002, "0.002"), ([0.0, 2.0], "[0.0,2.0]"), (["a b"], '["a b"]')],
)  # fmt: skip
def test_a_setting_is_spelled_as_dvc_reads_it(facts, monkeypatch, tmp_path, value, spelled):
    monkeypatch.setattr(lineage_command, "changed_settings", lambda _: {"train.what": value})
    monkeypatch.setattr(lineage_command, "cache_folder", lambda: tmp_path)
    *_, last = lineage_command.by_hand(Version("adpet", 1, "", "", (), {}, ""), facts | {"backend": "jax"})
    words = shlex.split(last)
    assert words == ["env", "KERAS_BACKEND=jax", "dvc", "exp", "run", "-S", f"train.what={spelled}", "train"]
    path = tmp_path / "params.yaml"
    path.write_text("train: {what: 1}")
    apply_overrides(path, words[6:7])
    assert read_yaml(path) == {"train": {"what": value}}


def test_a_setting_whose_name_dvc_does_not_take_is_left_to_the_editor(facts, monkeypatch, tmp_path):
    settings = {"cohort.diagnosis_map.Alzheimer's disease": "AD"}
    monkeypatch.setattr(lineage_command, "changed_settings", lambda _: settings)
    monkeypatch.setattr(lineage_command, "cache_folder", lambda: tmp_path)
    *_, edit, last = lineage_command.by_hand(Version("adpet", 1, "", "", (), {}, ""), facts)
    assert edit == "# write into params.yaml: cohort.diagnosis_map.Alzheimer's disease: AD"
    assert last == "dvc exp run train"
