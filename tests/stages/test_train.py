"""The training: out-of-fold predictions of all training subjects, and the ensemble of the folds' networks."""

import pandas as pd
import pytest
from workspace import SMALL, copy_of, kill_when_there, runs_of

from adpet.params import load_params
from adpet.stages.common.checks import hashed
from adpet.stages.train import SETTINGS, _example
from adpet.storage import flatten, read_json, write_json

TRAINED = [f"results/train/{name}" for name in ("model.keras", "history.csv", "run.json", "validation.csv")]


def test_the_example_is_a_ratio_image_that_the_window_does_not_cut_off(project_root):
    example = _example(load_params(project_root / "params.yaml"))
    assert example.shape == (15, 64, 64, 3)
    assert (example == 255).mean() < 0.01
    assert example.max() > 128


def test_what_a_model_follows_from_can_be_set_again(project_root):
    """`adpet reproduce` writes it into params.yaml."""
    params = load_params(project_root / "params.yaml")
    followed = flatten(params.model_dump(include=SETTINGS, mode="json"))
    assert params.with_values(followed) == params


def test_model_knows_all_training_subjects_and_each_fold_all_but_its_own(finished):
    split = pd.read_csv(finished.root / "data/processed/split.csv")
    run, trained = finished.read_json("results/train/run.json"), split[split["part"] != "test"]
    assert run["trained_on"] == run["validated_on"] == hashed(trained["subject"])
    assert len(run["folds"]) == SMALL["split.folds"]
    for number, fold in enumerate(run["folds"]):
        own = trained["part"] == f"fold-{number}"
        assert fold["validated_on"] == hashed(trained.loc[own, "subject"])
        assert fold["trained_on"] == hashed(trained.loc[~own, "subject"])


def test_every_training_slice_is_predicted_once_out_of_fold(finished):
    split = pd.read_csv(finished.root / "data/processed/split.csv")
    predicted = pd.read_csv(finished.root / "results/train/validation.csv")
    keys = ["scan", "index", "part"]
    due = split.loc[split["part"] != "test", keys].sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(predicted[keys].sort_values(keys).reset_index(drop=True), due)
    assert predicted["probability"].between(0, 1).all()


def test_each_fold_is_a_run_below_the_training_with_its_curves(finished):
    client, (training,) = runs_of(finished, "train")
    _, folds = runs_of(finished, "fold")
    assert sorted(fold.info.run_name for fold in folds) == ["fold 0", "fold 1", "fold 2"]
    for fold in folds:
        assert fold.data.tags["mlflow.parentRunId"] == training.info.run_id
        assert len(client.get_metric_history(fold.info.run_id, "val_loss")) == SMALL["train.epochs"]
    for curve in ("loss", "val_loss"):
        assert len(client.get_metric_history(training.info.run_id, curve)) == SMALL["train.epochs"]


def test_validated_subject_that_its_network_knew_stops_the_evaluation(copied):
    path = copied.root / "results/train/run.json"
    facts = read_json(path)
    # As if the fold had been assigned since.
    facts["folds"][1]["trained_on"][0] = facts["folds"][1]["validated_on"][0]
    write_json(path, facts)
    assert "to be evaluated, but trained on" in copied.adpet("evaluate", status=1).stderr


@pytest.mark.slow
def test_training_killed_in_its_second_fold_comes_to_the_same_bytes(finished, tmp_path):
    changed = copy_of(finished, tmp_path / "copy")
    kill_when_there("train/*/fold-1.npz", changed, "train")
    changed.adpet("train")
    assert changed.content(TRAINED) == finished.content(TRAINED)
    assert not list((changed.root / ".adpet").glob("train/*"))


@pytest.mark.slow
def test_number_of_workers_changes_no_result(finished, tmp_path):
    changed = copy_of(finished, tmp_path / "copy")
    changed.set_params({"compute.workers": 2})
    changed.adpet("train")
    # The run names the commit, with a mark since params.yaml has changed.
    same = [name for name in TRAINED if not name.endswith("run.json")]
    assert changed.content(same) == finished.content(same)
