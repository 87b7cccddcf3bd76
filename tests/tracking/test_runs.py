"""Runs in the project's own store: continued after a kill, each step once."""

import json
import signal
import time
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model
from programs import run_code

from adpet.errors import TrackingError
from adpet.tracking import runs
from adpet.tracking.models import DIGEST, model_digest, ready_models
from adpet.tracking.runs import append_to_run, find_run, open_run, safe_name
from adpet.tracking.store import local

EXAMPLE = np.zeros((2, 8, 8, 1), dtype=np.uint8)


def stored(lineage="a1", kind="train"):
    (run,) = runs.search(local(), lineage, kind)
    return run


def curve(key, lineage="a1", kind="train"):
    history = local().client.get_metric_history(stored(lineage, kind).info.run_id, key)
    return [(each.step, each.value) for each in history]


class TestLife:
    def test_a_run_ends_as_finished_with_what_was_logged(self, project):
        nested = {"train": {"learning_rate": 0.002, "schedule": "cosine"}}
        with open_run(lineage="a1", kind="train", name="first", tags={"adpet.seed": 7}, params=nested) as run:
            run.log_metrics({"loss": 0.5, "val": {"auc": 0.9}}, step=0)
        seen = stored()
        assert (seen.info.status, seen.info.run_name) == ("FINISHED", "first")
        assert seen.data.params == {"train.learning_rate": "0.002", "train.schedule": "cosine"}
        assert seen.data.metrics == {"loss": 0.5, "val.auc": 0.9}
        assert (seen.data.tags["adpet.seed"], seen.data.tags["adpet.lineage"]) == ("7", "a1")
        assert find_run("a1", "train") == seen.info.run_id

    @pytest.mark.parametrize(
        ("raised", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
    )
    def test_a_run_that_stops_early_says_how_and_is_continued(self, project, raised, status):
        with pytest.raises(raised), open_run(lineage="a1", kind="train", name="x"):
            raise raised
        assert (stored().info.status, find_run("a1", "train")) == (status, None)
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        assert stored().info.status == "FINISHED"

    def test_load_of_the_machine_is_logged_where_mlflow_is_told_to(self, project, monkeypatch):
        monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
        for asked in ("false", "true"):
            monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", asked)
            with open_run(lineage=asked, kind="train", name="x"):
                time.sleep(0.5)
        assert stored("false").data.metrics == {}
        assert "system/cpu_utilization_percentage" in stored("true").data.metrics

    def test_more_parameters_than_one_request_holds_are_logged(self, project):
        with open_run(lineage="a1", kind="tune", name="x", params={f"p{i}": i for i in range(250)}):
            pass
        assert len(stored("a1", "tune").data.params) == 250

    def test_trials_are_runs_below_their_search_shown_once(self, project):
        with open_run(lineage="a1", kind="tune", name="search") as search:
            for _ in range(2):
                with open_run(lineage="a1.0", kind="trial", name="trial 0", parent=search.run_id) as trial:
                    trial.log_metrics({"loss": 0.5}, step=0)
        assert stored("a1.0", "trial").data.tags["mlflow.parentRunId"] == stored("a1", "tune").info.run_id
        assert curve("loss", "a1.0", "trial") == [(0, 0.5)]


class TestContinuing:
    def test_the_run_of_a_killed_process_is_continued_without_a_doubled_step(self, project, tmp_path):
        script = (
            "import os, signal, sys; from pathlib import Path\n"
            "from adpet.tracking.store import connect; from adpet.tracking.runs import open_run\n"
            "connect(Path(sys.argv[1]))\n"
            "with open_run(lineage='a1', kind='train', name='x', params={'alpha': 0.5}) as run:\n"
            "    for step in range(3): run.log_metrics({'loss': 1 / (1 + step)}, step)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        (elsewhere := tmp_path / "elsewhere").mkdir()
        assert run_code(script, project, cwd=elsewhere).returncode == -signal.SIGKILL
        assert not list(elsewhere.iterdir())  # no stray database where one happens to stand
        with open_run(lineage="a1", kind="train", name="x", params={"alpha": 0.5, "more": 1}) as run:
            for step in range(5):
                run.log_metrics({"loss": 1 / (1 + step)}, step)
        assert curve("loss") == [(step, 1 / (1 + step)) for step in range(5)]
        assert stored().info.status == "FINISHED"
        assert stored().data.params == {"alpha": "0.5", "more": "1"}


class TestMetrics:
    def test_a_result_is_logged_again_only_when_it_changed(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run:
            for value in (0.8, 0.8, float("nan"), float("nan"), 0.9):
                run.log_metrics({"auc": value})
            for _ in range(2):
                run.log_metrics({"ratio": float("inf"), "least": float("-inf")})
        # Those of one millisecond come in no order.
        assert sorted(str(value) for _, value in curve("auc")) == ["0.8", "0.9", "nan"]
        assert (len(curve("ratio")), len(curve("least"))) == (1, 1)

    def test_an_undefined_metric_is_left_out_and_a_word_is_refused(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_metrics({"auc": None, "n": np.int64(3)}, step=0)
            with pytest.raises(TrackingError, match="metric auc: required a number; received 'high'"):
                run.log_metrics({"auc": "high"}, step=0)
        assert stored().data.metrics == {"n": 3.0}


class TestAppending:
    def test_results_are_added_to_a_finished_run_and_to_its_model(self, project, tiny_model, tmp_path):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        (tmp_path / "maps" / "inner").mkdir(parents=True)
        (tmp_path / "maps" / "inner" / "roc.png").touch()
        with append_to_run("a1") as tracked:
            tracked.log_metrics({"test": {"auc": 0.95}})
            tracked.log_artifact(tmp_path / "maps", "evaluate")
        assert (stored().info.status, stored().data.metrics["test.auc"]) == ("FINISHED", 0.95)
        (model,) = ready_models(stored().info.run_id)
        assert [each.key for each in model.metrics] == ["test.auc"]
        listed = local().client.list_artifacts(stored().info.run_id, "evaluate/inner")
        assert [each.path for each in listed] == ["evaluate/inner/roc.png"]

    def test_a_table_replaces_the_one_before_and_is_listed_as_mlflows_own(self, project):
        for auc in ("0.800", "0.900"):
            with append_to_run("a1") as tracked:
                tracked.log_table("baselines", pd.DataFrame({"Model": ["Network"], "AUC": [auc]}))
        info, tags = stored().info, stored().data.tags
        shown = local().client.load_table(info.experiment_id, "baselines.json", [info.run_id], ["run_id"])
        assert shown.values.tolist() == [["Network", 0.9, info.run_id]]
        assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "baselines.json", "type": "table"}]

    def test_results_of_a_training_in_another_clone_get_a_run_that_is_found(self, project):
        for _ in range(2):
            with append_to_run("a1") as tracked:
                tracked.log_metrics({"test.auc": 0.95})
        assert curve("test.auc") == [(0, 0.95)]
        assert find_run("a1", "train") == stored().info.run_id


class TestNames:
    def test_free_names_of_parameters_metrics_tags_and_data_arrive(self, project, tiny_model):
        """Diagnoses, sites and folders have the names that people gave them."""
        diagnoses = {"Alzheimer's disease": "AD", "CN (control)": "CN", "MCI, late": "AD", "x" * 300: "CN"}
        with open_run(
            lineage="a1", kind="train", name="x", params={"map": diagnoses}, tags={"a (b)": 1}
        ) as run:
            run.log_metrics({"site": {"St. Mary's": 0.5}}, step=0)
            run.log_dataset("n" * 600, "d" * 60, "data/raw", counts={})
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        seen = stored()
        assert sorted(seen.data.params.values()) == ["AD", "AD", "CN", "CN"]
        assert list(seen.data.metrics.values()) == [0.5]
        assert len(seen.inputs.dataset_inputs) == 1
        assert ready_models(seen.info.run_id)[0].params == seen.data.params

    @pytest.mark.parametrize("name", ["train.learning_rate", "a b/c-d:e_f", "Größe", "x" * 250])
    def test_a_name_that_mlflow_takes_stays(self, name):
        assert safe_name(name) == name

    @pytest.mark.parametrize("name", ["a//b", "../a", "/a", ".", "a,b", "a/./b", "", "x" * 251, "é(1)"])
    def test_a_name_that_it_refuses_is_changed_into_one_that_it_takes(self, name):
        from mlflow.utils.validation import _validate_param_name

        _validate_param_name(safe_name(name))
        assert safe_name(name) != safe_name(f"{name} ") != name


class TestInputsAndModels:
    def test_the_dataset_carries_dvcs_hash_once(self, project):
        digest = "d41d8cd98f00b204e9800998ecf8427e.dir"
        with open_run(lineage="a1", kind="train", name="x") as run:
            for _ in range(2):
                run.log_dataset("raw", digest, "data/raw", counts={"scans": 24})
        (used,) = stored().inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("raw", digest)
        assert (used.dataset.source, used.dataset.profile) == ('{"uri": "data/raw"}', '{"scans": 24}')
        assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]

    def test_a_model_has_its_signature_and_requirements_and_is_no_pickle(self, project, tiny_model):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        files = [path for path in (project / "mlartifacts").rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"MLmodel", "model.keras", "requirements.txt"}
        assert not [path for path in files if b"cloudpickle" in path.read_bytes()]
        (described,) = (path for path in files if path.name == "MLmodel")
        (inputs,) = Model.load(described.parent).signature.inputs.inputs
        assert (inputs.type, inputs.shape) == (np.dtype("uint8"), (-1, 8, 8, 1))
        assert f"keras=={version('keras')}" in (described.parent / "requirements.txt").read_text()

    def test_a_model_is_logged_once_and_a_half_logged_one_is_completed(self, project, tiny_model):
        with open_run(lineage="a1", kind="train", name="x") as run:
            half = local().client.create_logged_model(
                local().experiment_id,
                name="model",
                source_run_id=run.run_id,
                tags={DIGEST: model_digest(tiny_model)},
            )
            for _ in range(2):
                run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        (model,) = ready_models(run.run_id)
        assert model.model_id == half.model_id
        assert [each.model_id for each in stored().outputs.model_outputs] == [half.model_id]
