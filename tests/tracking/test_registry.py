import shutil

import numpy as np
import pytest

from adpet.errors import TrackingError
from adpet.tracking.registry import load_model, promote, register_version, version_of
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import current

EXAMPLE = np.arange(128, dtype=np.uint8).reshape(2, 8, 8, 1)


@pytest.fixture
def log(project, tiny_model):
    """Log a training run with its model, and return the run's id."""

    def log(lineage="a1", **tags):
        marks = {f"adpet.{key}": value for key, value in tags.items()}
        with open_run(lineage=lineage, kind="train", name=lineage, tags=marks) as run:
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={"slice": {"window": [0.0, 2.0]}})
        return find_run(lineage, "train")

    return log


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


class TestPromote:
    def test_the_champion_moves_and_both_numbers_are_returned(self, log):
        register_version(run_id=log("a1"))
        assert promote() == (None, 1)
        register_version(run_id=log("b2"))
        assert promote("challenger") == (1, 2)
        assert promote("1") == (2, 1)
        assert promote(1) == (1, 1)
        assert version_of("models:/adpet@champion").number == 1
        assert version_of("models:/adpet/1").aliases == ("champion",)

    def test_a_leaky_model_is_refused_unless_allowed(self, log):
        register_version(run_id=log(leaky="true"))
        with pytest.raises(TrackingError, match="its split leaked subjects"):
            promote()
        assert promote(allow_leaky=True) == (None, 1)

    def test_a_model_whose_audit_is_invalid_is_refused_even_where_a_leak_is_allowed(self, log):
        register_version(run_id=log(), tags={"adpet.audit": "invalid"})
        with pytest.raises(TrackingError, match="models:/adpet/1: required a valid leakage audit") as refused:
            promote(allow_leaky=True)
        assert "\n" not in str(refused.value)
        with pytest.raises(TrackingError, match="no version was promoted yet"):
            version_of("models:/adpet@champion")

    def test_the_mark_of_an_invalid_audit_is_found_on_the_run_too(self, log):
        register_version(run_id=log(audit="invalid"), tags={"adpet.audit": "clean"})
        with pytest.raises(TrackingError, match="required a valid leakage audit"):
            promote()

    @pytest.mark.parametrize("audit", ["clean", "inconclusive"])
    def test_a_model_whose_audit_found_nothing_may_be_promoted(self, log, audit):
        register_version(run_id=log(), tags={"adpet.audit": audit})
        assert promote() == (None, 1)

    def test_the_leaky_mark_cannot_be_washed_off(self, log):
        run_id = log()
        register_version(run_id=run_id, tags={"adpet.leaky": "true"})
        register_version(run_id=run_id, tags={"adpet.leaky": "false"})
        assert version_of("models:/adpet@challenger").leaky
        other = log("b2", leaky="true")
        register_version(run_id=other, tags={"adpet.leaky": "false"})
        current().client.delete_model_version_tag("adpet", "2", "adpet.leaky")
        with pytest.raises(TrackingError, match="leaked"):
            promote(2)


class TestLoad:
    def test_the_champion_predicts_as_the_trained_model_with_its_metadata(self, log, tiny_model):
        register_version(run_id=log())
        promote()
        model, metadata = load_model()
        assert metadata == {"slice": {"window": [0.0, 2.0]}}
        np.testing.assert_array_equal(
            model.predict(EXAMPLE, verbose=0), tiny_model.predict(EXAMPLE, verbose=0)
        )

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("models:/adpet@champion", "no version was promoted yet .version 1.; run: adpet promote"),
            ("models:/other@champion", "'other' has no version yet; run: dvc repro"),
            ("models:/adpet/9", "required a version that exists; 'adpet' has version 1"),
            ("models:/adpet@best", "required the alias 'best'; 'adpet' has version 1"),
            ("adpet", "required models:/NAME@ALIAS or models:/NAME/VERSION; received 'adpet'"),
        ],
    )
    def test_what_is_not_there_is_named_with_what_to_do(self, log, uri, said):
        register_version(run_id=log())
        with pytest.raises(TrackingError, match=said) as failure:
            load_model(uri)
        assert "\n" not in str(failure.value)

    def test_files_that_were_removed_are_named(self, log, project):
        register_version(run_id=log())
        shutil.rmtree(project / "mlartifacts")
        with pytest.raises(TrackingError, match="required the files of version 1"):
            load_model("models:/adpet@challenger")
