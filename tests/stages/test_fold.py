"""Cross-validation as a user runs it: folds as stages, one killed and gone on with, all pooled."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.slow

FOLDS = 3


def test_without_cross_validation_the_folds_are_stages_that_do_nothing(finished):
    assert finished.read_json("results/cross-validation/summary.json") == {"folds": 0}
    for fold in range(5):
        left = finished.read_json(f"results/cross-validation/fold-{fold}/fold.json")
        assert left == {"fold": fold, "used": False}


def test_a_killed_fold_goes_on_and_all_subjects_are_tested_once(copied):
    copied.set_params({"evaluate.cross_validation": FOLDS})
    copied.run("dvc", "repro", "fold@0")
    undisturbed = copied.content(["results/cross-validation/fold-0"])

    killed = copied.start("dvc", "repro", "--force", "--single-item", "fold@1")
    checkpoint = None
    while checkpoint is None:
        assert killed.poll() is None, killed.communicate()
        checkpoint = next((copied.root / ".adpet").glob("fold-1/*/checkpoint.npz"), None)
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    copied.run("dvc", "repro", "pool")
    assert not checkpoint.exists()
    assert copied.content(["results/cross-validation/fold-0"]) == undisturbed

    # From the beginning, the same bytes.
    resumed = copied.content(["results/cross-validation/fold-1"])
    copied.adpet("fold", "1")
    assert copied.content(["results/cross-validation/fold-1"]) == resumed

    subjects = pd.read_csv(copied.root / "results/cross-validation/subjects.csv")
    scans = pd.read_csv(copied.root / "data/interim/scans.csv")
    assert sorted(subjects["subject"]) == sorted(set(scans["subject"]))
    summary = copied.read_json("results/cross-validation/summary.json")
    pooled = roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"])
    assert summary["pooled"]["auc"]["value"] == pytest.approx(pooled)
    split = pd.read_csv(copied.root / "data/processed/split.csv")
    tested = set(split.loc[split["part"] == "test", "subject"])
    assert set(subjects.loc[~subjects["searched"], "subject"]) == tested
    assert "cross-validation" in copied.adpet("summary").stdout


def test_the_folds_are_nested_runs_of_the_training(copied):
    copied.set_params({"evaluate.cross_validation": FOLDS})
    copied.run("dvc", "repro", "fold@2")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{copied.root}/mlflow.db")
    experiment = client.get_experiment_by_name("adpet").experiment_id
    (training,) = client.search_runs([experiment], "tags.`adpet.kind` = 'train'")
    (fold,) = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{training.info.run_id}'")
    assert fold.info.run_name == "fold 2"
    assert len(client.get_metric_history(fold.info.run_id, "val_loss")) == copied.small["train.epochs"]
    trained = copied.read_json("results/cross-validation/fold-2/fold.json")
    predictions = pd.read_csv(copied.root / "results/cross-validation/fold-2/predictions.csv")
    assert set(predictions["part"]) == {"test", "validation"}
    assert len(trained["trained_on"]) + predictions["subject"].nunique() == 16
    assert np.isfinite(predictions["probability"]).all()
