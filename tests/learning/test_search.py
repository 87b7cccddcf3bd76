import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sqlalchemy import text

from adpet.errors import InputError
from adpet.learning import search as module
from adpet.learning.search import FEWEST, TrialRow, parameter_importance, search
from adpet.parallel import map_in_processes

SPACE = {
    "train.learning_rate": FloatDistribution(1e-4, 1.0, log=True),
    "augment.shift": FloatDistribution(-3.0, 3.0),
    "augment.flip": CategoricalDistribution((True, False)),
}
FIRST = {"train.learning_rate": 1e-2, "augment.shift": 0.5, "augment.flip": True}


def objective(trial, pause=0.0):
    """A bowl whose depth shows over five steps; the best point is 1e-2, 1, True."""
    value = math.nan
    for step in range(1, 6):
        time.sleep(pause)
        distance = (trial.params["augment.shift"] - 1) ** 2
        distance += abs(math.log10(trial.params["train.learning_rate"]) + 2) + (
            not trial.params["augment.flip"]
        )
        value = distance + 1 / step
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def run(storage, *, evaluate=objective, trials=12, **options):
    settings = {"seed": 3, "startup_trials": 4, "first": FIRST, "name": "bowl", **options}
    return search(SPACE, evaluate, trials=trials, storage=storage, **settings)


def reported(storage):
    """Return what each trial reported, by step."""
    study = optuna.load_study(study_name="bowl", storage=f"sqlite:///{storage}")
    return [dict(sorted(trial.intermediate_values.items())) for trial in study.trials]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    storage = tmp_path_factory.mktemp("undisturbed") / "study.db"
    run(storage)
    return storage


@pytest.fixture(scope="module")
def undisturbed(finished):
    return run(finished, evaluate=lambda _: 1 / 0)


def last_first(run, items):
    """Run a round in this process, its last trial first."""
    return map(run, items[::-1])


class TestSearch:
    def test_first_trial_tries_the_first_values(self, undisturbed):
        assert undisturbed.trials[0].params == FIRST

    def test_best_trial_has_the_smallest_value(self, undisturbed):
        complete = [row for row in undisturbed.trials if row.state == "COMPLETE"]
        best = min(complete, key=lambda row: row.value)
        assert (undisturbed.best, undisturbed.best_value) == (best.params, best.value)

    def test_best_trial_of_a_maximised_value_is_the_largest(self, tmp_path):
        found = run(tmp_path / "study.db", evaluate=lambda t: t.params["augment.shift"], direction="maximize")
        assert found.best_value == max(row.value for row in found.trials) == found.best["augment.shift"]

    def test_sampler_learns_from_earlier_trials(self, tmp_path):
        rows = run(tmp_path / "study.db", trials=28, startup_trials=8, pruner="none").trials
        at_random, learned = ([row.value for row in part] for part in (rows[1:8], rows[-7:]))
        assert sum(learned) < 0.5 * sum(at_random)

    def test_another_seed_tries_other_values(self, tmp_path, undisturbed):
        other = run(tmp_path / "study.db", trials=3, seed=4)
        assert other.trials[0].params == undisturbed.trials[0].params
        assert other.trials[1].params != undisturbed.trials[1].params

    def test_nothing_is_printed_and_no_warning_escapes(self, tmp_path, capfd):
        run(f"sqlite:///{tmp_path}/study.db", trials=6)
        assert capfd.readouterr() == ("", "")

    def test_every_counted_trial_is_told_of_once_in_each_search(self, tmp_path):
        told = []
        run(tmp_path / "study.db", trials=3)
        run(tmp_path / "study.db", trials=5, on_trial=lambda trial: told.append(trial.number))
        assert told == [0, 1, 2, 3, 4]


class TestPruning:
    def test_pruned_trial_ends_with_its_last_value(self, finished, undisturbed):
        pruned = [row for row in undisturbed.trials if row.state == "PRUNED"]
        assert pruned
        for row in pruned:
            steps = reported(finished)[row.number]
            assert module.WARMUP_STEPS < len(steps) < 5
            assert row.value == steps[max(steps)]

    def test_trials_are_complete_before_enough_are_known_or_without_a_pruner(self, tmp_path, undisturbed):
        assert {row.state for row in undisturbed.trials[:4]} == {"COMPLETE"}
        rows = run(tmp_path / "study.db", trials=8, pruner="none").trials
        assert {row.state for row in rows} == {"COMPLETE"}
        assert {len(steps) for steps in reported(tmp_path / "study.db")} == {5}

    def test_halving_stops_the_worse_half_after_1_2_and_4_steps(self, tmp_path):
        run(tmp_path / "study.db", pruner="halving", trials=16)
        trials = reported(tmp_path / "study.db")
        assert {len(steps) for steps in trials} <= {1, 2, 4, 5}
        for number, steps in enumerate(trials):
            earlier = [one[1] for one in trials[:number]]
            better = sum(value <= steps[1] for value in earlier)
            goes_on = better < max(1, (len(earlier) + 1) // 2)
            assert (len(steps) > 1) == goes_on

    def test_trial_that_was_lost_once_it_was_halved_is_judged_alike_again(self, tmp_path):
        stopped = set()

        def lost(trial):
            try:
                return objective(trial)
            except optuna.TrialPruned as pruned:
                first = trial.number not in stopped
                stopped.add(trial.number)
                raise (KeyboardInterrupt if first else pruned) from None

        whole, parts = tmp_path / "whole.db", tmp_path / "parts.db"
        undisturbed, found = run(whole, pruner="halving", trials=5), None
        while found is None:
            with suppress(KeyboardInterrupt):
                found = run(parts, evaluate=lost, pruner="halving", trials=5)
        assert stopped
        assert (found, reported(parts)) == (undisturbed, reported(whole))

    def test_lost_trial_of_a_shared_study_runs_again_and_is_not_halved_against(self, tmp_path):
        def lost(trial):
            trial.report(0.0, 1)
            raise KeyboardInterrupt(trial.should_prune())

        storage = f"sqlite:///{tmp_path}/study.db"
        with suppress(KeyboardInterrupt):
            run(storage, evaluate=lost, pruner="halving")
        with module._quiet(), module._opened(storage) as opened, opened.engine.begin() as connection:
            connection.execute(text("update trial_heartbeats set heartbeat = '2000-01-01 00:00:00'"))
        rows = run(storage, pruner="halving", trials=2).trials
        assert [row.state for row in rows[:2]] == ["FAIL", "COMPLETE"]
        assert rows[0].params == rows[1].params == FIRST
        assert len(rows) == 3


class TestRounds:
    @pytest.mark.parametrize("options", [{}, {"workers": 3, "pruner": "halving"}])
    def test_same_trials_whatever_ends_first_and_however_often_it_was_extended(self, tmp_path, options):
        whole = run(tmp_path / "whole.db", **options)
        for trials in (1, 2, 7, 12):
            parts = run(tmp_path / "parts.db", trials=trials, side_by_side=last_first, **options)
        assert parts == whole
        assert run(tmp_path / "parts.db", trials=5, **options).trials == whole.trials[:5]

    def test_trials_of_a_round_differ(self, tmp_path):
        rows = run(tmp_path / "study.db", workers=6, trials=12, startup_trials=1).trials
        assert len({tuple(row.params.values()) for row in rows}) == 12

    def test_worker_of_a_shared_study_has_a_trial_whatever_their_numbers(self, tmp_path):
        storage, rounds = f"sqlite:///{tmp_path}/study.db", []
        run(storage, trials=1)
        run(storage, trials=7, workers=3, side_by_side=lambda run, ids: map(run, rounds.append(ids) or ids))
        assert [len(ids) for ids in rounds] == [3, 3]

    @pytest.mark.slow
    def test_trial_of_a_killed_worker_runs_again_under_its_number(self, tmp_path):
        undisturbed = run(tmp_path / "undisturbed.db", workers=2, trials=4)
        tried = tmp_path / "tried"

        def killed(trial, times=1):
            value = objective(trial)
            with tried.open("a") as lines:
                lines.write(f"{trial.number}\n")
            if trial.number == 3 and tried.read_text().split().count("3") <= times:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        two = {"workers": 2, "trials": 4, "side_by_side": partial(map_in_processes, workers=2)}
        assert run(tmp_path / "study.db", evaluate=killed, **two) == undisturbed
        assert tried.read_text().split().count("3") == 2
        with pytest.raises(InputError, match=r"processes were killed 4 times, .*; lower tune.workers"):
            run(tmp_path / "other.db", evaluate=partial(killed, times=99), **two)


class TestFailure:
    def test_trial_that_raised_is_replaced_by_the_next_search(self, tmp_path):
        def broken(trial):
            trial.report(1.0, 1)
            if trial.number == 2:
                raise ZeroDivisionError("disk full")
            return trial.params["augment.shift"]

        storage = tmp_path / "study.db"
        with pytest.raises(ZeroDivisionError, match="disk full"):
            run(storage, evaluate=broken, trials=4)
        rows = run(storage, evaluate=broken, trials=4).trials
        assert [row.state for row in rows] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        assert rows[2].value is None
        assert reported(storage)[2] == {1: 1.0}

    def test_trial_that_was_given_up_meanwhile_is_replaced_not_an_error(self, tmp_path):
        def given_up(trial):
            if trial.number == 1:
                trial.study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
            trial.report(1.0, 1)
            return 1.0

        rows = run(tmp_path / "study.db", evaluate=given_up, trials=3).trials
        assert [row.state for row in rows] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]

    def test_diverged_trial_counts_as_the_worst(self, tmp_path):
        def diverging(trial):
            return math.nan if trial.number == 1 else 1.0

        result = run(tmp_path / "study.db", evaluate=diverging, trials=3)
        assert [row.value for row in result.trials] == [1.0, math.inf, 1.0]
        assert result.best == result.trials[0].params

    def test_search_without_finite_value_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="finite value; received none of 2; narrow the search space"):
            run(tmp_path / "study.db", evaluate=lambda _: math.nan, trials=2)

    @pytest.mark.parametrize("address", ["sqlite:////nowhere/optuna.db", "nonsense://host/optuna"])
    def test_database_that_cannot_be_opened_is_refused_in_one_line(self, address, monkeypatch):
        monkeypatch.setattr(module, "POLL_S", 0)
        with pytest.raises(InputError, match=f"^{address}: required a database for Optuna .*docs/search.md$"):
            run(address)


class TestContinuing:
    def test_trial_that_was_killed_while_asked_for_gets_its_values(self, tmp_path, undisturbed):
        study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", study_name="bowl")
        study.enqueue_trial(FIRST)
        assert study.ask().params == {}
        assert run(tmp_path / "study.db") == undisturbed

    def test_search_killed_at_any_moment_ends_as_if_undisturbed(self, tmp_path, undisturbed):
        """Kill -9 real processes one after the other, in the study's making, a suggestion, a trial, a write."""
        storage, log = tmp_path / "study.db", tmp_path / "evaluated.jsonl"
        killed = subprocess.check_output([sys.executable, __file__, storage, log])
        assert int(killed) > 4  # processes killed before they had finished
        assert run(storage, evaluate=lambda _: 1 / 0) == undisturbed
        tried = {}
        for line in log.read_text().splitlines():
            number, params = json.loads(line)
            assert tried.setdefault(number, params) == params  # the same trial again, not another one
        assert sorted(tried) == list(range(12))


class TestImportance:
    SPACE = {"rate": FloatDistribution(0.001, 0.1, log=True), "flip": CategoricalDistribution((True, False))}

    @staticmethod
    def trials(count, value, state="COMPLETE"):
        rng = np.random.default_rng(0)
        drawn = [
            {"rate": float(10 ** rng.uniform(-3, -1)), "flip": bool(rng.integers(2))} for _ in range(count)
        ]
        return [TrialRow(number, state, value(params), params) for number, params in enumerate(drawn)]

    def test_deciding_parameter_comes_first(self):
        rows = self.trials(30, lambda params: np.log10(params["rate"]))
        found = parameter_importance(rows, self.SPACE, seed=0)
        assert next(iter(found)) == "rate"
        assert found["rate"] > 0.9
        assert sum(found.values()) == pytest.approx(1)
        assert found == parameter_importance(rows, self.SPACE, seed=0)

    def test_stopped_trials_count_next_to_complete_ones(self):
        rows = self.trials(30, lambda params: np.log10(params["rate"]), "PRUNED")
        rows[:2] = self.trials(2, lambda params: np.log10(params["rate"]))
        assert parameter_importance(rows, self.SPACE, seed=0)["rate"] > 0.9

    @pytest.mark.parametrize(
        ("count", "value", "state"),
        [
            (FEWEST - 1, lambda params: params["rate"], "COMPLETE"),
            (9, lambda _: 0.5, "COMPLETE"),
            (9, lambda params: params["rate"], "PRUNED"),
        ],
        ids=["too few", "all alike", "none complete"],
    )
    def test_too_few_or_equal_trials_give_no_importance(self, count, value, state):
        assert parameter_importance(self.trials(count, value, state), self.SPACE, seed=0) == {}


def main():
    """Search in processes that are killed at moments drawn at random, then in one that is not."""
    storage, log = map(Path, sys.argv[1:])
    moments = random.Random(0)
    killed = 0
    for _ in range(15):
        process = start(storage, log)
        time.sleep(moments.uniform(0.01, 0.4))
        os.kill(process, signal.SIGKILL)
        killed += ended_by_kill(process)
    assert not ended_by_kill(start(storage, log))
    print(killed)


def start(storage, log):
    """Return the id of a process that searches."""

    def evaluate(trial):
        with log.open("a") as lines:
            lines.write(json.dumps([trial.number, trial.params]) + "\n")
        return objective(trial, pause=0.01)

    process = os.fork()
    if process == 0:
        run(storage, evaluate=evaluate)
        os._exit(0)
    return process


def ended_by_kill(process):
    """Wait for a process; True if it was killed."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


if __name__ == "__main__":
    main()
