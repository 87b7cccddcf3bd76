"""Cross-validation and the refit that goes with it: folds side by side, killed and resumed, pooled."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from workspace import SMALL, copy_of

from adpet.stages.common.checks import hashed
from adpet.storage import read_json, write_json

FOLDS = 3
PREDICTIONS = "results/cross-validation/predictions.csv"
OUTPUTS = [
    f"results/cross-validation/{name}"
    for name in ("predictions.csv", "history.csv", "folds.json", "subjects.csv", "summary.json")
]
TRAINED = [f"results/train/{name}" for name in ("model.keras", "history.csv", "run.json", "validation.csv")]


def test_no_folds_end_at_once_with_an_empty_summary(project_root, tmp_path):
    shutil.copy(project_root / "params.yaml", tmp_path)
    code = "import sys; from adpet.cli import main; main(['cross_validate']); print('keras' in sys.modules)"
    options = {"env": os.environ | {"PYTHONPATH": str(project_root / "src")}, "cwd": tmp_path, "text": True}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, **options)
    assert done.stdout.strip() == "False"
    assert (tmp_path / OUTPUTS[-1]).read_text() == '{\n  "folds": 0\n}\n'
    assert pd.read_csv(tmp_path / PREDICTIONS).empty


@pytest.fixture(scope="module")
def refitted(finished, tmp_path_factory):
    """The finished project, with folds asked for, and so with a refit."""
    refitted = copy_of(finished, tmp_path_factory.mktemp("refitted") / "project")
    refitted.set_params({"evaluate.cross_validation": FOLDS, "compute.workers": 2})
    refitted.adpet("train")
    return refitted


@pytest.fixture(scope="module")
def cross_validated(refitted, tmp_path_factory):
    """The same after `cross_validate`."""
    cross_validated = copy_of(refitted, tmp_path_factory.mktemp("cross-validated") / "project")
    cross_validated.adpet("cross_validate")
    return cross_validated


@pytest.fixture
def changed(refitted, tmp_path):
    """A copy of the refitted project, to be changed."""
    return copy_of(refitted, tmp_path / "copy")


def kill_when_there(pattern, workspace, *command):
    """Start a stage, and kill it with its workers as soon as a file of unfinished work is there."""
    process = workspace.start(sys.executable, "-m", "adpet", *command)
    while not (found := next((workspace.root / ".adpet").glob(pattern), None)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return found


def runs_of(workspace, kind):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace.root}/mlflow.db")
    experiment = client.get_experiment_by_name("adpet").experiment_id
    runs = client.search_runs([experiment], f"tags.`adpet.kind` = '{kind}'")
    return client, sorted(runs, key=lambda run: run.info.start_time)


@pytest.mark.slow
class TestTheFolds:
    def test_every_subject_is_tested_once_and_the_summary_pools_them(self, cross_validated):
        subjects = pd.read_csv(cross_validated.root / "results/cross-validation/subjects.csv")
        scans = pd.read_csv(cross_validated.root / "data/interim/scans.csv")
        assert sorted(subjects["subject"]) == sorted(set(scans["subject"]))
        summary = cross_validated.read_json("results/cross-validation/summary.json")
        pooled = roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"])
        assert summary["pooled"]["auc"]["value"] == pytest.approx(pooled)
        split = pd.read_csv(cross_validated.root / "data/processed/split.csv")
        tested = set(split.loc[split["part"] == "test", "subject"])
        assert set(subjects.loc[~subjects["searched"], "subject"]) == tested
        assert "cross-validation" in cross_validated.adpet("summary").stdout

    def test_no_fold_predicts_a_subject_that_it_was_trained_on(self, cross_validated):
        predictions = pd.read_csv(cross_validated.root / PREDICTIONS)
        assert np.isfinite(predictions["probability"]).all()
        for fold in cross_validated.read_json("results/cross-validation/folds.json"):
            scored = predictions[predictions["fold"] == fold["fold"]]
            assert set(scored["part"]) == {"test", "validation"}
            assert not set(fold["trained_on"]) & set(hashed(scored["subject"]))
            assert len(fold["trained_on"]) + scored["subject"].nunique() == 16

    def test_each_fold_is_a_run_below_the_training(self, cross_validated):
        client, trainings = runs_of(cross_validated, "train")
        _, folds = runs_of(cross_validated, "fold")
        assert sorted(fold.info.run_name for fold in folds) == [f"fold {number}" for number in range(FOLDS)]
        for fold in folds:
            assert fold.data.tags["mlflow.parentRunId"] == trainings[-1].info.run_id
            assert len(client.get_metric_history(fold.info.run_id, "val_loss")) == SMALL["train.epochs"]
        assert "cross_validation.pooled.auc.value" in client.get_run(trainings[-1].info.run_id).data.metrics

    def test_a_killed_stage_keeps_finished_folds_and_comes_to_the_same_bytes(self, cross_validated, changed):
        kill_when_there("cross_validate/*/fold-2.npz", changed, "cross_validate")
        work = changed.root / ".adpet/cross_validate"
        finished = {path: path.stat().st_mtime_ns for path in work.glob("*/*.json")}
        assert finished
        process = changed.start(sys.executable, "-m", "adpet", "cross_validate")
        while not (changed.root / PREDICTIONS).exists() and all(path.exists() for path in finished):
            assert all(path.stat().st_mtime_ns == time for path, time in finished.items() if path.exists())
            time.sleep(0.05)
        printed = process.communicate()
        assert process.returncode == 0, printed
        assert changed.content(OUTPUTS) == cross_validated.content(OUTPUTS)
        assert not list(work.iterdir())
        assert len(runs_of(changed, "fold")[1]) == FOLDS


@pytest.mark.slow
class TestTheRefit:
    """The model of a run with cross-validation: another network, trained on all training subjects."""

    def test_the_model_knows_all_training_subjects_and_no_tested_one(self, refitted):
        split = pd.read_csv(refitted.root / "data/processed/split.csv")
        run = refitted.read_json("results/train/run.json")
        validating, tested = split["part"] == "fold-0", split["part"] == "test"
        assert run["trained_on"] == hashed(split.loc[~tested, "subject"])
        assert run["validated_on"] == hashed(split.loc[validating, "subject"])
        assert run["before_refit"] == {"trained_on": hashed(split.loc[~validating & ~tested, "subject"])}

    def test_it_is_another_network_and_what_was_validated_stays_as_without_it(self, finished, refitted):
        content = [workspace.content(TRAINED) for workspace in (finished, refitted)]
        same = {name for name in TRAINED if content[0][name] == content[1][name]}
        assert same == {"results/train/history.csv", "results/train/validation.csv"}
        facts = [workspace.read_json("results/train/run.json") for workspace in (finished, refitted)]
        assert facts[0]["final"] == facts[1]["final"]
        assert facts[0]["lineage"]["id"] != facts[1]["lineage"]["id"]

    def test_its_epochs_are_those_up_to_the_best_and_have_curves_of_their_own(self, refitted):
        client, (plain, another) = runs_of(refitted, "train")
        assert (plain.data.tags["adpet.refit"], another.data.tags["adpet.refit"]) == ("false", "true")
        epochs = refitted.read_json("results/train/run.json")["best_epoch"] + 1
        assert len(client.get_metric_history(another.info.run_id, "refit.loss")) == epochs
        assert client.get_metric_history(plain.info.run_id, "refit.loss") == []

    @pytest.mark.parametrize("begun", ["train/*/checkpoint.npz", "train/*/refit.npz"])
    def test_killed_in_either_training_it_comes_to_the_same_bytes(self, refitted, changed, begun):
        kill_when_there(begun, changed, "train")
        changed.adpet("train")
        assert changed.content(TRAINED) == refitted.content(TRAINED)
        assert not list((changed.root / ".adpet").glob("train/*"))

    def test_the_evaluation_takes_the_threshold_from_the_validated_network(self, finished, changed):
        changed.adpet("evaluate")
        changed.adpet("report")
        folders = [workspace.root / "results" for workspace in (finished, changed)]
        tables = [pd.read_csv(folder / "evaluate/predictions.csv") for folder in folders]
        pd.testing.assert_frame_equal(*(table[table["part"] != "test"] for table in tables))
        tested = [table.loc[table["part"] == "test", "probability"] for table in tables]
        assert not np.allclose(*tested)
        metrics = [read_json(folder / "evaluate/metrics.json") for folder in folders]
        assert metrics[0]["threshold"] == metrics[1]["threshold"]
        for name in ("report.html", "MODEL_CARD.md"):
            assert "on all training subjects" in (folders[1] / "report" / name).read_text()

    def test_a_validating_subject_that_the_first_network_knew_stops_the_evaluation(self, changed):
        path = changed.root / "results/train/run.json"
        facts = read_json(path)
        # As if the fold had been assigned since.
        facts["before_refit"]["trained_on"][0] = facts["validated_on"][0]
        write_json(path, facts)
        assert "to be evaluated, but trained on" in changed.adpet("evaluate", status=1).stderr
