"""The search: a study that is extended, any key of the space, folds, and what MLflow and Optuna show."""

import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from sqlalchemy import text
from team_servers import postgresql
from workspace import SMALL, Workspace, copy_of, runs_of

from adpet.learning import search
from adpet.learning.training import History
from adpet.params import Params
from adpet.paths import STUDIES
from adpet.stages import tune
from adpet.stages.common import fitting

TRIALS = "results/tune/trials.csv"


def studies(storage):
    """Return the studies of a project or database as Optuna's own tools find them."""
    storage = f"sqlite:///{storage.root / STUDIES}" if isinstance(storage, Workspace) else storage
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def test_trial_once_pruned_stays_so_when_a_resumed_training_reports_all_its_epochs(monkeypatch):
    judgements, noted = iter([True, False]), {}
    trial = SimpleNamespace(
        number=0, params={}, report=lambda *_: None, should_prune=lambda: next(judgements),
        set_user_attr=noted.__setitem__,
    )  # fmt: skip
    rows = [{"val_subject_log_loss": loss} for loss in (3.0, 2.0, 1.0)]

    def resumed(*_, on_epoch, **__):
        for epoch, row in enumerate(rows):
            on_epoch(epoch, row)
        return None, History(tuple(rows), 2, {})

    used = {"limit_threads": tune, "training_and_validation": fitting, "may_log_images": tune}
    for name, module in used.items():
        monkeypatch.setattr(module, name, MagicMock(return_value=()))
    monkeypatch.setattr(fitting, "fit", resumed)
    with pytest.raises(optuna.TrialPruned):
        tune._evaluate(trial, params=Params(), split=None, work=MagicMock())
    assert noted["history"] == list(enumerate(rows))


def test_bar_has_counted_each_trial_that_has_ended(monkeypatch):
    names = (
        "limit_threads", "read_split", "read_json", "stage_lineage", "start_tracking", "work_dir", "open_run",
        "log_data", "_log_trial", "_write", "parameter_importance", "save_figure", "tqdm",
    )  # fmt: skip
    for name in names:
        monkeypatch.setattr(tune, name, MagicMock())
    counted, bar = [], tune.tqdm.return_value.__enter__.return_value

    def search(*_, on_trial):
        for trial in range(3):
            on_trial(trial)
            counted.append(bar.update.call_count)
        return MagicMock()

    monkeypatch.setattr(tune, "_search", search)
    tune.run(Params())
    assert counted == [1, 2, 3]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.server
@pytest.mark.slow
def test_two_machines_one_of_them_killed_lose_and_double_no_trial_and_extend_the_study(copied, request):
    with (
        tempfile.TemporaryDirectory(prefix="adpet-search-", dir="/tmp") as folder,
        postgresql(Path(folder), "search") as (database,),
        search._quiet(),
    ):
        with ThreadPoolExecutor(4) as machines:  # at once, in an empty database
            opened, *others = machines.map(search._connected, [database] * 4, [{}] * 4)
        for storage in others:
            storage.engine.dispose()
        copied.set_params({"tune.storage": database, "tune.epochs": 4, "tune.pruner": "none"})
        other = copy_of(copied, copied.root.with_name("other"))
        command, running = (sys.executable, "-m", "adpet", "tune"), []
        killed = other.start(*command)
        request.addfinalizer(killed.kill)
        while not any(trial.intermediate_values for trial in running):
            os.killpg(killed.pid, signal.SIGCONT)
            time.sleep(0.03)
            os.killpg(killed.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, killed.pid, os.WSTOPPED)
            running = [t for study in studies(opened) for t in study.get_trials(states=(TrialState.RUNNING,))]
        (lost,), (study,) = running, studies(opened)
        known = {"lost": lost._trial_id, "begin": time.time()}
        survivor = copied.start(*command)
        while len(study.get_trials(states=(TrialState.RUNNING,))) < 2:
            assert survivor.poll() is None, survivor.communicate()
            time.sleep(0.05)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        # Two minutes later, and the server has ended the survivor's connections, which rest.
        late = "update trial_heartbeats set heartbeat = heartbeat - interval '2 min' where trial_id = :lost"
        cut = """select pg_terminate_backend(pid) from pg_stat_activity
            where datname = 'search' and backend_start > to_timestamp(:begin)
            and state = 'idle' and state_change < clock_timestamp() - interval '1 s'"""
        ended = 0
        while not ended:
            assert survivor.poll() is None, survivor.communicate()
            time.sleep(0.05)
            with opened.engine.begin() as connection:
                connection.execute(text(late), known)
                ended = connection.execute(text(cut), known).rowcount
        errors = survivor.communicate()[1]
        assert survivor.returncode == 0, errors
        before = pd.read_csv(copied.root / TRIALS)
        other.set_params({"tune.trials": 3})
        other.adpet("tune")
        table, counted = pd.read_csv(other.root / TRIALS), study.get_trials(states=search.COUNTED)
        pd.testing.assert_frame_equal(table.head(len(before)), before)
        assert [row.state for row in table.itertuples()] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
        assert [trial.number for trial in counted if trial.params == lost.params] == [2]
        assert len({tuple(trial.params.values()) for trial in counted}) == len(counted) == 3
        assert len(runs_of(other, "trial")[1][SMALL["tune.trials"] :]) == len(counted)
        assert {len(trial.intermediate_values) for trial in counted} == {4}
        assert other.read_json("results/tune/best.json") == study.best_params
