"""Cross-validation of all subjects: folds side by side, killed and resumed, pooled."""

import shutil
import sys
import time

import numpy as np
import pandas as pd
import pytest
from programs import run_code
from sklearn.metrics import roc_auc_score
from workspace import SMALL, copy_of, kill_when_there, runs_of

from adpet.stages.common.checks import hashed

FOLDS = 3
PREDICTIONS = "results/cross-validation/predictions.csv"
OUTPUTS = [
    f"results/cross-validation/{name}"
    for name in ("predictions.csv", "history.csv", "folds.json", "subjects.csv", "summary.json")
]


def test_no_folds_end_at_once_with_an_empty_summary(project_root, tmp_path):
    shutil.copy(project_root / "params.yaml", tmp_path)
    code = "import sys; from adpet.cli import main; main(['cross_validate']); print('keras' in sys.modules)"
    assert run_code(code, cwd=tmp_path, PYTHONPATH=str(project_root / "src")).stdout.strip() == "False"
    assert (tmp_path / OUTPUTS[-1]).read_text() == '{\n  "folds": 0\n}\n'
    assert pd.read_csv(tmp_path / PREDICTIONS).empty


@pytest.fixture(scope="module")
def asked(finished, tmp_path_factory):
    """The finished project, with folds asked for."""
    asked = copy_of(finished, tmp_path_factory.mktemp("asked") / "project")
    asked.set_params({"evaluate.cross_validation": FOLDS, "compute.workers": 2})
    return asked


@pytest.fixture(scope="module")
def cross_validated(asked, tmp_path_factory):
    """The same after `cross_validate`."""
    cross_validated = copy_of(asked, tmp_path_factory.mktemp("cross-validated") / "project")
    cross_validated.adpet("cross_validate")
    return cross_validated


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
        _, runs = runs_of(cross_validated, "fold")
        folds = [run for run in runs if run.info.run_name.startswith("cross-validation")]
        assert len(folds) == FOLDS
        for fold in folds:
            assert fold.data.tags["mlflow.parentRunId"] == trainings[-1].info.run_id
            assert len(client.get_metric_history(fold.info.run_id, "val_loss")) == SMALL["train.epochs"]
        metrics = client.get_run(trainings[-1].info.run_id).data.metrics
        assert metrics["cv_auc_ci_low"] <= metrics["cv_auc"] <= metrics["cv_auc_ci_high"]
        assert len(metrics) <= 30

    def test_a_killed_stage_keeps_finished_folds_and_comes_to_the_same_bytes(
        self, cross_validated, asked, tmp_path
    ):
        changed = copy_of(asked, tmp_path / "copy")
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
        assert len(runs_of(changed, "fold")[1]) == FOLDS + SMALL["split.folds"]
