"""The search: a study that is extended, any key of the space, folds, and what MLflow and Optuna show."""

import optuna
import pandas as pd
import pytest
from workspace import SMALL, runs_of

from adpet.paths import STUDIES

pytestmark = pytest.mark.slow

TRIALS = "results/tune/trials.csv"


def studies(workspace):
    """Return the studies as Optuna's own tools find them."""
    storage = f"sqlite:///{workspace.root / STUDIES}"
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def test_larger_number_of_trials_extends_the_finished_study(copied):
    before, best = pd.read_csv(copied.root / TRIALS), copied.read_json("results/tune/best.json")
    started = [trial.datetime_start for trial in studies(copied)[0].trials]
    copied.set_params({"tune.trials": 4, "train.epochs": 5})
    copied.adpet("tune")
    table = pd.read_csv(copied.root / TRIALS)
    pd.testing.assert_frame_equal(table.head(len(before)), before)
    (study,) = studies(copied)
    assert [trial.datetime_start for trial in study.trials][: SMALL["tune.trials"]] == started
    assert len(study.trials) == len(table) == 4
    client, (search,) = runs_of(copied, "tune")
    assert len(runs_of(copied, "trial")[1]) == 4
    names = {entry.path for entry in client.list_artifacts(search.info.run_id, "search")}
    assert {"search/search.png", "search/importance.png"} <= names

    copied.set_params({"tune.trials": SMALL["tune.trials"]})
    copied.adpet("tune")
    assert copied.read_json("results/tune/best.json") == best
    assert len(pd.read_csv(copied.root / TRIALS)) == len(before)


def test_keys_that_the_space_names_are_searched_on_folds_and_trained_with(copied):
    copied.set_params({
        "tune.space.train.batch_size": {"choices": [8, 16]},
        "tune.space.model.dropout": {"low": 0, "high": 0.5},
        "tune.space.train.optimizer": {"choices": ["sgd", "adamw"]},
        "tune.workers": 2, "tune.folds": 2, "tune.pruner": "none",
    })  # fmt: skip
    copied.adpet("tune")
    best = copied.read_json("results/tune/best.json")
    study = studies(copied)[-1]
    assert [list(trial.intermediate_values) for trial in study.trials] == [[1, 2, 4]] * SMALL["tune.trials"]
    assert study.best_params == best
    for trial in runs_of(copied, "trial")[1][-SMALL["tune.trials"] :]:
        assert trial.data.params["train.batch_size"] in ("8", "16")
    copied.adpet("train")
    trained = copied.read_json("results/train/run.json")["lineage"]["params"]
    chosen = trained["train"]["batch_size"], trained["train"]["optimizer"], trained["model"]["dropout"]
    assert chosen == (best["train.batch_size"], best["train.optimizer"], best["model.dropout"])
    copied.adpet("report")
    report = (copied.root / "results/report/report.html").read_text()
    assert "Trials; value" in report
    assert f">{best['train.optimizer']}<" in report
