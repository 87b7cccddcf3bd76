import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from adpet.errors import TrackingError
from adpet.tracking import runs, sender, writers
from adpet.tracking.models import DIGEST, model_digest, ready_models
from adpet.tracking.runs import append_to_run, find_run, open_run
from adpet.tracking.store import current

EXAMPLE = np.zeros((2, 8, 8, 1), dtype=np.uint8)


def all_stored(lineage="a1", kind="train"):
    """The runs of a lineage, the newest first."""
    query = f"tags.`adpet.lineage` = '{lineage}' and tags.`adpet.kind` = '{kind}'"
    return current().client.search_runs([current().experiment_id], query, order_by=["start_time DESC"])


def stored(lineage="a1", kind="train"):
    (run,) = all_stored(lineage, kind)
    return run


def curve(key, lineage="a1", kind="train"):
    history = current().client.get_metric_history(stored(lineage, kind).info.run_id, key)
    return [(one.step, one.value) for one in history]


class TestLife:
    def test_a_run_ends_as_finished_with_what_was_logged(self, project):
        with open_run(
            lineage="a1",
            kind="train",
            name="first",
            tags={"adpet.seed": 7},
            params={"train": {"learning_rate": 0.002, "schedule": "cosine"}},
        ) as run:
            run.log_metrics({"loss": 0.5, "val": {"auc": 0.9}}, step=0)
        seen = stored()
        assert seen.info.status == "FINISHED"
        assert seen.info.run_name == "first"
        assert seen.data.params == {"train.learning_rate": "0.002", "train.schedule": "cosine"}
        assert seen.data.metrics == {"loss": 0.5, "val.auc": 0.9}
        assert seen.data.tags["adpet.seed"] == "7"
        assert seen.data.tags["adpet.lineage"] == "a1"
        assert find_run("a1", "train") == seen.info.run_id

    @pytest.mark.parametrize(
        ("raised", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
    )
    def test_a_run_that_stops_early_says_how_and_is_not_found_as_finished(self, project, raised, status):
        with pytest.raises(raised), open_run(lineage="a1", kind="train", name="x"):
            raise raised
        assert stored().info.status == status
        assert find_run("a1", "train") is None

    def test_free_names_of_parameters_metrics_tags_and_data_arrive(self, project, tiny_model):
        """Diagnoses, sites and folders have the names that people gave them."""
        diagnoses = {"Alzheimer's disease": "AD", "CN (control)": "CN", "MCI, late": "AD", "x" * 300: "CN"}
        with open_run(
            lineage="a1", kind="train", name="x", params={"map": diagnoses}, tags={"a (b)": 1}
        ) as run:
            run.log_metrics({"site": {"St. Mary's": 0.5}}, step=0)
            run.log_dataset("n" * 600, "d" * 60, "data/raw")
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        seen = stored()
        assert seen.info.status == "FINISHED"
        assert sorted(seen.data.params.values()) == ["AD", "AD", "CN", "CN"]
        assert list(seen.data.metrics.values()) == [0.5]
        assert len(seen.inputs.dataset_inputs) == 1
        assert ready_models(seen.info.run_id)[0].params == seen.data.params
        assert not sender.refusals()

    def test_more_parameters_than_one_request_holds_are_logged(self, project):
        with open_run(lineage="a1", kind="tune", name="x", params={f"p{i}": i for i in range(250)}):
            pass
        assert len(stored("a1", "tune").data.params) == 250

    def test_trials_are_nested_below_their_search(self, project):
        with (
            open_run(lineage="a1", kind="tune", name="search") as search,
            open_run(lineage="a1.0", kind="trial", name="trial 0", parent=search),
        ):
            pass
        assert stored("a1.0", "trial").data.tags["mlflow.parentRunId"] == stored("a1", "tune").info.run_id


class TestContinuing:
    def test_the_run_of_a_killed_process_is_continued_without_a_doubled_step(self, project, tmp_path):
        script = (
            "import os, signal, sys; from pathlib import Path\n"
            "from adpet.tracking.store import connect; from adpet.tracking.runs import open_run\n"
            "connect(Path(sys.argv[1]))\n"
            "with open_run(lineage='a1', kind='train', name='x', params={'alpha': 0.5}) as run:\n"
            "    for step in range(3): run.log_metrics({'loss': 1 / (1 + step)}, step)\n"
            "    print('told', flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        package = str(Path(runs.__file__).parents[2])
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        killed = subprocess.run(
            [sys.executable, "-c", script, str(project)],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": package},
            capture_output=True,
            text=True,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        assert not list(elsewhere.iterdir())  # no stray database where one happens to stand
        assert killed.stdout == "told\n"
        with open_run(lineage="a1", kind="train", name="x", params={"alpha": 0.5, "more": 1}) as run:
            for step in range(5):
                run.log_metrics({"loss": 1 / (1 + step)}, step)
        assert curve("loss") == [(step, 1 / (1 + step)) for step in range(5)]
        assert stored().info.status == "FINISHED"
        assert stored().data.params == {"alpha": "0.5", "more": "1"}
        assert stored().data.tags["adpet.resumed"] == "1"

    @pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
    def test_a_run_that_failed_or_was_interrupted_is_continued(self, project, raised):
        with pytest.raises(raised), open_run(lineage="a1", kind="train", name="x"):
            raise raised
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        assert stored().info.status == "FINISHED"

    def test_a_finished_run_stays_and_another_begins(self, project):
        for _ in range(2):
            with open_run(lineage="a1", kind="train", name="x"):
                pass
        newest, older = all_stored()
        assert find_run("a1", "train") == newest.info.run_id != older.info.run_id

    def test_a_finished_run_is_continued_where_that_is_asked(self, project):
        for _ in range(2):
            with open_run(lineage="a1", kind="train", name="x", reopen=True):
                pass
        assert stored().data.tags["adpet.resumed"] == "1"

    def test_a_trial_that_is_run_again_after_its_end_is_shown_once(self, project):
        with open_run(lineage="a1", kind="tune", name="search") as search:
            for _ in range(2):
                with open_run(lineage="a1.0", kind="trial", name="trial 0", parent=search) as trial:
                    trial.log_metrics({"loss": 0.5}, step=0)
        assert curve("loss", "a1.0", "trial") == [(0, 0.5)]

    @pytest.mark.parametrize(("lineage", "kind"), [("b2", "train"), ("a1", "tune")])
    def test_another_lineage_or_kind_has_a_run_of_its_own(self, project, lineage, kind):
        with pytest.raises(ValueError, match="stop"), open_run(lineage="a1", kind="train", name="x"):
            raise ValueError("stop")
        with open_run(lineage=lineage, kind=kind, name="x"):
            pass
        assert (stored().info.status, stored(lineage, kind).info.status) == ("FAILED", "FINISHED")

    @pytest.mark.parametrize("elsewhere", [False, True])
    def test_a_run_of_another_living_process_is_left_alone(self, project, elsewhere):
        """One of another machine counts as living: from here nobody can tell."""
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            host = "another machine" if elsewhere else writers.owner().rsplit(":", 2)[0]
            owner = f"{host}:{sleeper.pid}:{writers._started(sleeper.pid)}"
            taken = current().client.create_run(
                current().experiment_id,
                tags={"adpet.lineage": "a1", "adpet.kind": "train", "adpet.owner": owner},
            )
            with open_run(lineage="a1", kind="train", name="x"):
                pass
            ours, theirs = all_stored()
            assert (theirs.info.run_id, theirs.info.status) == (taken.info.run_id, "RUNNING")
            assert ours.info.status == "FINISHED"
        finally:
            sleeper.kill()
            sleeper.wait()

    def test_a_run_of_a_process_that_is_gone_is_continued(self, project):
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        owner = f"{writers.owner().rsplit(':', 2)[0]}:{gone.pid}:1"
        tags = {"adpet.lineage": "a1", "adpet.kind": "train", "adpet.owner": owner}
        current().client.create_run(current().experiment_id, tags=tags)
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        assert stored().info.status == "FINISHED"


class TestMetrics:
    def test_a_result_is_logged_again_only_when_it_changed(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run:
            for value in (0.8, 0.8, float("nan"), float("nan"), 0.9):
                run.log_metrics({"auc": value})
        # Those of one millisecond come in no order.
        assert sorted(str(value) for _, value in curve("auc")) == ["0.8", "0.9", "nan"]
        assert stored().data.metrics == {"auc": 0.9}

    def test_an_infinite_result_is_not_logged_again_by_a_later_session(self, project):
        """MLflow keeps the largest number in place of infinity."""
        for _ in range(2):
            with open_run(lineage="a1", kind="train", name="x", reopen=True) as run:
                run.log_metrics({"ratio": float("inf"), "least": float("-inf")})
        assert (len(curve("ratio")), len(curve("least"))) == (1, 1)

    def test_an_undefined_metric_is_left_out_and_a_word_is_refused(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_metrics({"auc": None, "n": np.int64(3)}, step=0)
            with pytest.raises(TrackingError, match="metric auc: required a number; received 'high'"):
                run.log_metrics({"auc": "high"}, step=0)
        assert stored().data.metrics == {"n": 3.0}

    def test_threads_log_to_one_run_without_losing_or_doubling_a_step(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda step: run.log_metrics({"loss": step}, step % 20), range(40)))
        assert sorted(step for step, _ in curve("loss")) == list(range(20))

    def test_results_are_added_to_a_finished_run_and_to_its_model(self, project, tiny_model, tmp_path):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        picture = tmp_path / "roc.png"
        picture.write_bytes(b"png")
        with append_to_run("a1") as tracked:
            tracked.log_metrics({"test": {"auc": 0.95}})
            tracked.log_artifact(picture, "evaluate")
        assert stored().info.status == "FINISHED"
        assert stored().data.metrics["test.auc"] == 0.95
        (model,) = ready_models(stored().info.run_id)
        assert [one.key for one in model.metrics] == ["test.auc"]
        listed = current().client.list_artifacts(stored().info.run_id, "evaluate")
        assert [one.path for one in listed] == ["evaluate/roc.png"]

    def test_the_files_of_a_folder_are_kept_in_theirs(self, project, tmp_path):
        (tmp_path / "maps" / "inner").mkdir(parents=True)
        (tmp_path / "maps" / "one.txt").write_text("1")
        (tmp_path / "maps" / "inner" / "two.txt").write_text("2")
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_artifact(tmp_path / "maps", "explain")
        folder = next((project / "mlartifacts").rglob("explain"))
        kept = {path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")}
        assert kept == {"one.txt", "inner/two.txt"}

    def test_adding_to_a_run_that_is_not_there_says_how_to_get_it(self, project):
        with pytest.raises(TrackingError, match="dvc repro --force train"), append_to_run("0" * 16):
            pass


class TestInputsAndModels:
    def test_the_dataset_carries_dvcs_hash_once(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run:
            for _ in range(2):
                run.log_dataset(
                    "raw", "d41d8cd98f00b204e9800998ecf8427e.dir", "data/simulated/raw", counts={"scans": 24}
                )
        (used,) = stored().inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("raw", "d41d8cd98f00b204e9800998ecf8427e.dir")
        assert used.dataset.source == '{"uri": "data/simulated/raw"}'
        assert used.dataset.profile == '{"scans": 24}'
        assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]

    def test_the_model_is_saved_in_keras_format_and_nothing_as_a_pickle(self, project, tiny_model):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={"window": (0.0, 2.0)})
        files = [path for path in (project / "mlartifacts").rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"MLmodel", "model.keras", "requirements.txt"}
        assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".h5", ".pt", ".joblib"}]
        assert not [path for path in files if b"cloudpickle" in path.read_bytes()]

    def test_the_signature_says_uint8_and_any_number_of_slices(self, project, tiny_model):
        from mlflow.models import Model

        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_model(
                tiny_model, signature_example=EXAMPLE, metadata={}, pip_requirements=["keras==3.15.1"]
            )
        (folder,) = (project / "mlartifacts").rglob("MLmodel")
        (inputs,) = Model.load(folder.parent).signature.inputs.inputs
        assert (inputs.type, inputs.shape) == (np.dtype("uint8"), (-1, 8, 8, 1))
        assert "keras==3.15.1" in (folder.parent / "requirements.txt").read_text()

    def test_a_model_is_logged_once_and_a_half_logged_one_is_completed(self, project, tiny_model):
        client = current().client
        with open_run(lineage="a1", kind="train", name="x") as run:
            pass
        run_id = stored().info.run_id
        half = client.create_logged_model(
            current().experiment_id,
            name="model",
            source_run_id=run_id,
            tags={DIGEST: model_digest(tiny_model)},
        )
        for _ in range(2):
            with open_run(lineage="a1", kind="train", name="x", reopen=True) as run:
                for _ in range(2):
                    run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        (logged,) = client.search_logged_models([current().experiment_id])
        assert logged.model_id == half.model_id
        assert ready_models(run_id)[0].model_id == logged.model_id
        assert [one.model_id for one in stored().outputs.model_outputs] == [logged.model_id]
