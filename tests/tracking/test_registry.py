"""Versions are registered once, found by name, and used only with the files that were registered."""

import shutil

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from adpet.errors import TrackingError
from adpet.tracking import registry
from adpet.tracking.registry import exported_model, has_tag, load_model, register_version, version_of
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import current

EXAMPLE = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)
CHANGED = "models:/adpet/1: required its files as they were .* bring it back, or name another version"


@pytest.fixture
def folder(log, project):
    """Files of version 1 in the store."""
    register_version(run_id=log())
    return next(project.glob("mlartifacts/**/MLmodel")).parent


class TestRegister:
    def test_a_run_is_one_version_which_is_updated(self, log):
        run_id = log()
        register_version(run_id=run_id, tags={"adpet.data": "abc"}, metrics={"auc": 0.951234})
        first = version_of("models:/adpet@challenger")
        assert (first.number, first.run_id, first.leaky) == (1, run_id, False)
        assert (first.tags["adpet.data"], first.tags["metric.auc"]) == ("abc", "0.951234")
        assert register_version(run_id=log("b2")) == 2
        assert register_version(run_id=run_id, metrics={"auc": 0.95}, description="later") == 1
        first = version_of("models:/adpet@challenger")
        assert (first.number, first.tags["metric.auc"], first.description) == (1, "0.95", "later")

    @pytest.mark.parametrize("missing", [None, "0" * 32])
    def test_a_missing_run_is_refused_in_one_line(self, project, missing):
        with pytest.raises(TrackingError) as failure:
            register_version(run_id=missing)
        assert "\n" not in str(failure.value)

    def test_a_run_without_a_model_says_how_to_log_it(self, project):
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        with pytest.raises(TrackingError, match="none there; log it again with: dvc repro --force train"):
            register_version(run_id=find_run("a1", "train"))

    def test_the_leaky_tag_is_never_taken_away(self, log):
        run_id = log()
        register_version(run_id=run_id, tags={"adpet.leaky": "true"})
        register_version(run_id=run_id, tags={"adpet.leaky": "false"})
        assert version_of("models:/adpet@challenger").leaky
        register_version(run_id=log("b2", leaky="true"), tags={"adpet.leaky": "false"})
        current().client.delete_model_version_tag("adpet", "2", "adpet.leaky")
        assert has_tag(version_of("models:/adpet/2"), "adpet.leaky", "true")


class TestLoad:
    def test_a_registered_model_predicts_as_the_trained_one(self, log, tiny_model):
        register_version(run_id=log())
        model, metadata = load_model("models:/adpet@challenger")
        assert metadata == {"slice": {"window": [0.0, 2.0]}}
        np.testing.assert_array_equal(
            model.predict(EXAMPLE, verbose=0), tiny_model.predict(EXAMPLE, verbose=0)
        )

    def test_a_missing_version_is_named_with_what_to_do(self, log):
        register_version(run_id=log())
        for uri, text in {
            "models:/adpet@champion": "but there is none .version 1.; run: adpet promote VERSION",
            "models:/other@champion": "'other' has no version yet; run: dvc repro",
            "models:/adpet/9": "required a version that exists; 'adpet' has version 1",
            "models:/adpet@best": "required the alias 'best'; .* version 1; .* run: adpet promote VERSION",
            "adpet": "models:/NAME@ALIAS or models:/NAME/VERSION; received 'adpet'",
        }.items():
            with pytest.raises(TrackingError, match=text) as failure:
                load_model(uri)
            assert "\n" not in str(failure.value)

    def test_a_server_that_forbids_a_version_may_have_no_such_model(self, log, monkeypatch):
        def forbidden(name, version):
            raise MlflowException("Permission denied", PERMISSION_DENIED)

        register_version(run_id=log())
        monkeypatch.setattr(current().client, "get_model_version", forbidden)
        with pytest.raises(TrackingError, match="'other' has no version yet; run: dvc repro"):
            version_of("models:/other/1")
        with pytest.raises(TrackingError, match=r"the server does not let user .* do this"):
            version_of("models:/adpet/1")


class TestFiles:
    @pytest.mark.parametrize("name", ["data/model.keras", "MLmodel", "data/custom_objects.cloudpickle"])
    def test_a_changed_or_added_file_is_neither_opened_nor_registered(self, folder, name):
        with (folder / name).open("ab") as file:
            file.write(b"#")
        with pytest.raises(TrackingError, match=CHANGED) as refused:
            load_model("models:/adpet/1")
        assert "\n" not in str(refused.value)
        with pytest.raises(TrackingError, match=CHANGED):
            register_version(run_id=version_of("models:/adpet/1").run_id)

    def test_a_version_without_a_digest_is_registered_again_and_removed_files_are_named(self, folder):
        current().client.delete_model_version_tag("adpet", "1", "adpet.files_digest")
        with pytest.raises(TrackingError, match="a version without it; register it again"):
            load_model("models:/adpet/1")
        register_version(run_id=version_of("models:/adpet/1").run_id)
        load_model("models:/adpet/1")
        shutil.rmtree(folder)
        with pytest.raises(TrackingError, match=r"models:/adpet/1: required its files in .*mlartifacts"):
            load_model("models:/adpet@challenger")


class TestExportedModel:
    """What `predict` uses of a version, as a folder on this machine."""

    @pytest.fixture
    def original(self, log, project):
        """A version whose files have an exported model."""
        run_id = log()
        folder = next(project.glob("mlartifacts/**/MLmodel")).parent / "data/export"
        folder.mkdir()
        (folder / "model.json").write_text('{"threshold": 0.5}')
        register_version(run_id=run_id, tags={"adpet.leaky": "true"})
        return folder

    @pytest.fixture
    def fetch(self, project):
        return lambda uri="models:/adpet/1": exported_model(uri, root=project, experiment="adpet")

    def test_a_version_is_downloaded_once_and_again_if_its_copy_was_changed(
        self, original, project, fetch, monkeypatch
    ):
        folder, version = fetch("models:/adpet@challenger")
        assert (version.uri, version.leaky) == ("models:/adpet/1", True)
        assert (folder / "model.json").read_bytes() == (original / "model.json").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(registry, "registered_files", None)
            assert fetch()[0] == folder
        (folder / "model.json").write_text("{}")
        (folder / "other.json").touch()
        assert fetch()[0] == folder
        assert [path.name for path in folder.iterdir()] == ["model.json"]
        assert "threshold" in (folder / "model.json").read_text()
        assert len(list((project / ".adpet/models").iterdir())) == 1

    @pytest.mark.parametrize("digest", ["../../victim", ""])
    def test_neither_changed_files_nor_a_forged_digest_are_used(self, original, project, fetch, digest):
        victim = project.parent / "victim"
        victim.mkdir()
        current().client.set_model_version_tag("adpet", "1", "adpet.files_digest", digest)
        with pytest.raises(TrackingError, match="models:/adpet/1: required"):
            fetch()
        assert victim.is_dir()

    def test_a_version_without_an_exported_model_says_what_to_do(self, folder, fetch):
        with pytest.raises(
            TrackingError, match=r"required one exported model .* received none; name another"
        ):
            fetch()
        with pytest.raises(TrackingError, match="required a folder, models:/NAME@ALIAS"):
            fetch("models:/adpet")
