import shutil

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from adpet.errors import TrackingError
from adpet.tracking.registry import is_marked, load_model, register_version, version_of
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import current

EXAMPLE = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)


def make_champion(number):
    current().client.set_registered_model_alias("adpet", "champion", str(number))


class TestRegister:
    def test_a_version_carries_tags_metrics_description_and_the_challenger_alias(self, log):
        run_id = log()
        number = register_version(
            run_id=run_id, tags={"adpet.data": "abc"}, metrics={"subject.auc": 0.951234}, description="good"
        )
        version = version_of("models:/adpet@challenger")
        assert (version.number, version.run_id, number) == (1, run_id, 1)
        assert version.tags["adpet.data"] == "abc"
        assert version.tags["metric.subject.auc"] == "0.951234"
        assert version.description == "good"
        assert not version.leaky

    def test_registering_a_run_again_returns_its_version_and_updates_it(self, log):
        run_id = log()
        register_version(run_id=run_id, metrics={"auc": 0.9})
        other = register_version(run_id=log("b2"))
        assert register_version(run_id=run_id, metrics={"auc": 0.95}, description="later") == 1
        assert other == 2
        version = version_of("models:/adpet@challenger")
        assert (version.number, version.tags["metric.auc"], version.description) == (1, "0.95", "later")
        assert len(current().client.search_model_versions("name='adpet'")) == 2

    @pytest.mark.parametrize("missing", [None, "0" * 32])
    def test_a_run_that_is_not_there_is_refused_in_one_line(self, project, missing):
        with pytest.raises(TrackingError) as failure:
            register_version(run_id=missing)
        assert "\n" not in str(failure.value)

    def test_a_run_without_a_model_says_how_to_log_it(self, project):
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        with pytest.raises(TrackingError, match="none there; log it again with: dvc repro --force train"):
            register_version(run_id=find_run("a1", "train"))

    def test_the_leaky_mark_cannot_be_washed_off(self, log):
        run_id = log()
        register_version(run_id=run_id, tags={"adpet.leaky": "true"})
        register_version(run_id=run_id, tags={"adpet.leaky": "false"})
        assert version_of("models:/adpet@challenger").leaky
        register_version(run_id=log("b2", leaky="true"), tags={"adpet.leaky": "false"})
        current().client.delete_model_version_tag("adpet", "2", "adpet.leaky")
        assert is_marked(version_of("models:/adpet/2"), "adpet.leaky", "true")


class TestLoad:
    def test_the_champion_predicts_as_the_trained_model_with_its_metadata(self, log, tiny_model):
        make_champion(register_version(run_id=log()))
        model, metadata = load_model("models:/adpet@champion")
        assert metadata == {"slice": {"window": [0.0, 2.0]}}
        np.testing.assert_array_equal(
            model.predict(EXAMPLE, verbose=0), tiny_model.predict(EXAMPLE, verbose=0)
        )

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("models:/adpet@champion", "but there is none .version 1.; run: adpet promote VERSION"),
            ("models:/other@champion", "'other' has no version yet; run: dvc repro"),
            ("models:/adpet/9", "required a version that exists; 'adpet' has version 1"),
            ("models:/adpet@best", "required the alias 'best'; .* version 1; .* run: adpet promote VERSION"),
            ("adpet", "required models:/NAME@ALIAS or models:/NAME/VERSION; received 'adpet'"),
        ],
    )
    def test_what_is_not_there_is_named_with_what_to_do(self, log, uri, said):
        register_version(run_id=log())
        with pytest.raises(TrackingError, match=said) as failure:
            load_model(uri)
        assert "\n" not in str(failure.value)

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("models:/other/1", "'other' has no version yet; run: dvc repro"),
            ("models:/adpet/1", "the server does not let user .* do this"),
        ],
    )
    def test_a_server_that_forbids_a_version_may_have_no_such_model(self, log, monkeypatch, uri, said):
        def forbidden(name, version):
            raise MlflowException("Permission denied", PERMISSION_DENIED)

        register_version(run_id=log())
        monkeypatch.setattr(current().client, "get_model_version", forbidden)
        with pytest.raises(TrackingError, match=said):
            version_of(uri)

    def test_files_that_were_removed_are_named(self, log, project):
        register_version(run_id=log())
        shutil.rmtree(project / "mlartifacts")
        with pytest.raises(TrackingError, match=r"models:/adpet/1: required its files in .*mlartifacts"):
            load_model("models:/adpet@challenger")


class TestFiles:
    """A file that was changed after registration is not opened."""

    @pytest.fixture
    def folder(self, log, project):
        register_version(run_id=log())
        return next(project.glob("mlartifacts/**/MLmodel")).parent

    @pytest.mark.parametrize("name", ["data/model.keras", "MLmodel", "requirements.txt"])
    def test_a_changed_file_is_refused_in_one_line(self, folder, name):
        with (folder / name).open("ab") as file:
            file.write(b"#")
        with pytest.raises(
            TrackingError, match="models:/adpet/1: required its files as they were"
        ) as refused:
            load_model("models:/adpet/1")
        assert "one was changed since; bring it back, or name another version" in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_file_that_was_put_beside_them_or_taken_away_is_refused(self, folder):
        added = folder / "data" / "custom_objects.cloudpickle"
        added.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        with pytest.raises(TrackingError, match="one was changed since"):
            load_model("models:/adpet/1")
        added.unlink()
        load_model("models:/adpet/1")
        (folder / "input_example.json").unlink()
        with pytest.raises(TrackingError, match="one was changed since"):
            load_model("models:/adpet/1")

    def test_registering_again_does_not_make_a_changed_file_right(self, folder):
        run_id = version_of("models:/adpet/1").run_id
        with (folder / "data/model.keras").open("ab") as file:
            file.write(b"#")
        with pytest.raises(TrackingError, match="one was changed since"):
            register_version(run_id=run_id)

    def test_a_version_that_does_not_say_which_files_it_had_is_refused(self, folder):
        current().client.delete_model_version_tag("adpet", "1", "adpet.files_digest")
        with pytest.raises(TrackingError, match="a version without it; register it again"):
            load_model("models:/adpet/1")
        register_version(run_id=version_of("models:/adpet/1").run_id)
        load_model("models:/adpet/1")
