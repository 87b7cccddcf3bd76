"""Cross-validation as a user runs it: folds as stages side by side, one killed and gone on with, all pooled."""

import os
import shutil
import signal
import sys
import time

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score

FOLDS = 3  # of `asked_for`
# What the validated network and the refitted one leave.
TRAINED = [f"results/train/{name}" for name in ("model.keras", "history.csv", "run.json", "validation.csv")]


@pytest.fixture
def trained(asked_for, tmp_path):
    """The same once more, to go on from."""
    shutil.copytree(asked_for.root, tmp_path / "copy", symlinks=True)
    return type(asked_for)(tmp_path / "copy", asked_for.names)


def fold_alone(number):
    return ("dvc", "--wait-for-lock", "repro", "--single-item", f"fold@{number}")


def locked(workspace):
    """The folds that are done, as DVC knows them."""
    stages = YAML(typ="safe").load(workspace.root / "dvc.lock")["stages"]
    done = {}
    for number in range(FOLDS):
        (out,) = stages[f"fold@{number}"]["outs"]
        fold = workspace.root / out["path"] / "fold.json"
        done[number] = fold.exists() and workspace.read_json(f"{out['path']}/fold.json")["used"]
    return {number for number, used in done.items() if used}


def wait_for(pattern, workspace, process):
    """Return the file of unfinished work as soon as it is there."""
    while True:
        found = next((workspace.root / ".adpet").glob(pattern), None)
        if found:
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def runs_of(workspace, kind):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace.root}/mlflow.db")
    experiment = client.get_experiment_by_name("adpet").experiment_id
    runs = client.search_runs([experiment], f"tags.`adpet.kind` = '{kind}'")
    return client, sorted(runs, key=lambda run: run.info.start_time)


def test_without_cross_validation_the_folds_are_stages_that_do_nothing(finished):
    assert finished.read_json("results/cross-validation/summary.json") == {"folds": 0}
    for fold in range(5):
        left = finished.read_json(f"results/cross-validation/fold-{fold}/fold.json")
        assert left == {"fold": fold, "used": False}


@pytest.mark.long
class TestTheFolds:
    def test_side_by_side_a_killed_one_goes_on_and_all_subjects_are_tested_once(self, trained):
        both = [trained.start(*fold_alone(number)) for number in (0, 1)]
        unfinished = [wait_for(f"fold-{number}/*", trained, both[number]) for number in (0, 1)]
        assert unfinished[0].exists(), "fold 0 had ended before fold 1 began"
        wait_for("fold-1/*/checkpoint.npz", trained, both[1])
        kill(both[1])
        printed = both[0].communicate()
        assert both[0].returncode == 0, printed
        assert locked(trained) == {0}
        undisturbed = trained.content(["results/cross-validation/fold-0"])

        # The next ones beside each other too; DVC takes up what the killed one had locked.
        both = [trained.start(*fold_alone(number)) for number in (1, 2)]
        for process in both:
            printed = process.communicate()
            assert process.returncode == 0, printed
        assert locked(trained) == {0, 1, 2}
        assert not unfinished[1].exists()
        repeated = trained.run("dvc", "repro", "pool").stdout
        for number in range(FOLDS):
            assert f"Stage 'fold@{number}' didn't change, skipping" in repeated
        assert trained.content(["results/cross-validation/fold-0"]) == undisturbed

        # From the beginning, the same bytes.
        resumed = trained.content(["results/cross-validation/fold-1"])
        trained.adpet("fold", "1")
        assert trained.content(["results/cross-validation/fold-1"]) == resumed
        self.assert_pooled(trained)

    def assert_pooled(self, workspace):
        subjects = pd.read_csv(workspace.root / "results/cross-validation/subjects.csv")
        scans = pd.read_csv(workspace.root / "data/interim/scans.csv")
        assert sorted(subjects["subject"]) == sorted(set(scans["subject"]))
        summary = workspace.read_json("results/cross-validation/summary.json")
        pooled = roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"])
        assert summary["pooled"]["auc"]["value"] == pytest.approx(pooled)
        split = pd.read_csv(workspace.root / "data/processed/split.csv")
        tested = set(split.loc[split["part"] == "test", "subject"])
        assert set(subjects.loc[~subjects["searched"], "subject"]) == tested
        assert "cross-validation" in workspace.adpet("summary").stdout

    def test_they_are_nested_runs_of_the_training(self, trained):
        trained.run(*fold_alone(2))
        client, trainings = runs_of(trained, "train")
        _, (fold,) = runs_of(trained, "fold")
        assert fold.data.tags["mlflow.parentRunId"] == trainings[-1].info.run_id
        assert fold.info.run_name == "fold 2"
        assert len(client.get_metric_history(fold.info.run_id, "val_loss")) == trained.small["train.epochs"]
        facts = trained.read_json("results/cross-validation/fold-2/fold.json")
        predictions = pd.read_csv(trained.root / "results/cross-validation/fold-2/predictions.csv")
        assert set(predictions["part"]) == {"test", "validation"}
        assert len(facts["trained_on"]) + predictions["subject"].nunique() == 16
        assert np.isfinite(predictions["probability"]).all()


@pytest.mark.long
class TestTheRefit:
    """The model of a run with cross-validation: another network, trained on all training subjects."""

    def test_the_model_knows_all_training_subjects_and_no_tested_one(self, asked_for):
        from adpet.stages.common.checks import hashed

        split = pd.read_csv(asked_for.root / "data/processed/split.csv")
        run = asked_for.read_json("results/train/run.json")
        validating, tested = split["part"] == "fold-0", split["part"] == "test"
        assert run["trained_on"] == hashed(split.loc[~tested, "subject"])
        assert run["validated_on"] == hashed(split.loc[validating, "subject"])
        assert run["before_refit"] == {"trained_on": hashed(split.loc[~validating & ~tested, "subject"])}

    def test_it_is_another_network_and_what_was_validated_stays_as_without_it(self, finished, asked_for):
        same = ["results/train/history.csv", "results/train/validation.csv"]
        assert asked_for.content(same) == finished.content(same)
        weights = ["results/train/model.keras"]
        assert asked_for.content(weights) != finished.content(weights)
        facts = [workspace.read_json("results/train/run.json") for workspace in (finished, asked_for)]
        assert facts[0]["final"] == facts[1]["final"]
        assert facts[0]["lineage"]["id"] != facts[1]["lineage"]["id"]

    def test_its_epochs_are_those_up_to_the_best_and_have_curves_of_their_own(self, asked_for):
        client, (plain, refitted) = runs_of(asked_for, "train")
        assert (plain.data.tags["adpet.refit"], refitted.data.tags["adpet.refit"]) == ("false", "true")
        epochs = asked_for.read_json("results/train/run.json")["best_epoch"] + 1
        assert len(client.get_metric_history(refitted.info.run_id, "refit.loss")) == epochs
        assert client.get_metric_history(plain.info.run_id, "refit.loss") == []
        rates = [
            [point.value for point in client.get_metric_history(refitted.info.run_id, name)]
            for name in ("learning_rate", "refit.learning_rate")
        ]
        assert rates[1][0] == rates[0][0]

    @pytest.mark.parametrize("begun", ["train/*/checkpoint.npz", "train/*/refit.npz"])
    def test_killed_in_either_training_it_comes_to_the_same_bytes(self, asked_for, trained, begun):
        killed = trained.start(sys.executable, "-m", "adpet", "train")
        wait_for(begun, trained, killed)
        kill(killed)
        trained.adpet("train")
        assert trained.content(TRAINED) == asked_for.content(TRAINED)
        assert not list((trained.root / ".adpet").glob("train/*"))

    def test_the_evaluation_takes_the_threshold_from_the_validated_network(self, finished, trained):
        trained.adpet("evaluate")
        trained.adpet("report")
        tables = [
            pd.read_csv(workspace.root / "results/evaluate/predictions.csv")
            for workspace in (finished, trained)
        ]
        validation, test = zip(
            *((table[table["part"] != "test"], table[table["part"] == "test"]) for table in tables),
            strict=True,
        )
        pd.testing.assert_frame_equal(*validation)
        assert not np.allclose(test[0]["probability"], test[1]["probability"])
        thresholds = [
            workspace.read_json("results/evaluate/metrics.json")["threshold"]
            for workspace in (finished, trained)
        ]
        assert thresholds[0] == thresholds[1]
        for name in ("report.html", "MODEL_CARD.md"):
            text = (trained.root / "results/report" / name).read_text()
            assert "trained anew in the same way on all training subjects" in text

    def test_a_validating_subject_that_the_first_network_knew_stops_the_evaluation(self, trained):
        path = trained.root / "results/train/run.json"
        facts = trained.read_json("results/train/run.json")
        # As if the fold had been dealt out anew since.
        path.write_text(
            path.read_text().replace(facts["before_refit"]["trained_on"][0], facts["validated_on"][0])
        )
        done = trained.adpet("evaluate", status=1)
        assert "to be evaluated, but trained on" in done.stderr
