import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning import search as module
from adpet.learning.search import FEWEST, Choice, Range, TrialRow, parameter_importance, search

SPACE = {
    "train.learning_rate": Range(1e-4, 1.0, first=1e-2, log=True),
    "augment.shift": Range(-3.0, 3.0, first=0.5),
    "augment.flip": Choice((True, False)),
}


def objective(trial, pause=0.0):
    """A bowl whose depth shows over five steps; the best point is 1e-2, 1, True."""
    value = math.nan
    for step in range(5):
        time.sleep(pause)
        distance = (trial.params["augment.shift"] - 1) ** 2
        distance += abs(math.log10(trial.params["train.learning_rate"]) + 2) + (
            not trial.params["augment.flip"]
        )
        value = distance + 1 / (1 + step)
        if trial.report(step, value):
            break
    return value


def run(storage, *, evaluate=objective, trials=12, **options):
    settings = {"seed": 3, "startup_trials": 4, **options}
    return search(SPACE, evaluate, trials=trials, storage=storage, **settings)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed") / "study.db")


class TestSearch:
    def test_first_trial_tries_the_first_values(self, undisturbed):
        assert undisturbed.trials[0].params == {
            "train.learning_rate": 1e-2,
            "augment.shift": 0.5,
            "augment.flip": True,
        }

    def test_best_trial_has_the_smallest_value(self, undisturbed):
        complete = [row for row in undisturbed.trials if row.state == "COMPLETE"]
        best = min(complete, key=lambda row: row.value)
        assert undisturbed.best == best.params
        assert (undisturbed.best_number, undisturbed.best_value) == (best.number, best.value)

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
        run(tmp_path / "study.db", trials=6)
        assert capfd.readouterr() == ("", "")


class TestPruning:
    def test_pruned_trial_ends_with_its_last_value(self, undisturbed):
        pruned = [row for row in undisturbed.trials if row.state == "PRUNED"]
        assert pruned
        for row in pruned:
            assert module.WARMUP_STEPS < len(row.reported) < 5
            assert row.value == row.reported[max(row.reported)]

    def test_trials_are_complete_before_enough_are_known_or_without_a_pruner(self, tmp_path, undisturbed):
        assert {row.state for row in undisturbed.trials[:4]} == {"COMPLETE"}
        rows = run(tmp_path / "study.db", trials=8, pruner="none").trials
        assert {(row.state, len(row.reported)) for row in rows} == {("COMPLETE", 5)}


class TestFailure:
    def test_trial_that_raised_is_replaced_by_the_next_search(self, tmp_path):
        def broken(trial):
            trial.report(0, 1.0)
            if trial.number == 2:
                raise ZeroDivisionError("disk full")
            return trial.params["augment.shift"]

        storage = tmp_path / "study.db"
        with pytest.raises(ZeroDivisionError, match="disk full"):
            run(storage, evaluate=broken, trials=4)
        rows = run(storage, evaluate=broken, trials=4).trials
        assert [row.state for row in rows] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        assert rows[2].value is None
        assert rows[2].reported == {0: 1.0}

    def test_diverged_trial_counts_as_the_worst(self, tmp_path):
        def diverging(trial):
            return math.nan if trial.number == 1 else 1.0

        result = run(tmp_path / "study.db", evaluate=diverging, trials=3)
        assert [row.value for row in result.trials] == [1.0, math.inf, 1.0]
        assert result.best_number == 0

    def test_search_without_finite_value_is_an_error(self, tmp_path):
        with pytest.raises(InputError, match="finite value; received none of 2; narrow the search space"):
            run(tmp_path / "study.db", evaluate=lambda _: math.nan, trials=2)

    def test_study_of_another_search_is_refused(self, tmp_path):
        storage = tmp_path / "study.db"
        run(storage, trials=1)
        with pytest.raises(InputError, match="another space, seed, sampler or pruner; remove the file"):
            run(storage, trials=1, seed=4)


class TestContinuing:
    def test_more_trials_continue_the_study(self, tmp_path, undisturbed):
        storage = tmp_path / "study.db"
        for trials in (1, 2, 5, 12):
            result = run(storage, trials=trials)
        assert result == undisturbed

    def test_search_killed_at_any_moment_ends_as_if_undisturbed(self, tmp_path, undisturbed):
        """Kill -9 real processes one after the other, in the study's making, a suggestion, a trial, a write."""
        storage, log = tmp_path / "study.db", tmp_path / "evaluated.jsonl"
        done = subprocess.run(
            [sys.executable, __file__, str(storage), str(log)],
            env={**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) > 4  # processes killed before they had finished
        assert run(storage, evaluate=lambda _: 1 / 0) == undisturbed
        tried = {}
        for line in log.read_text().splitlines():
            number, params = json.loads(line)
            assert tried.setdefault(number, params) == params  # the same trial again, not another one
        assert sorted(tried) == list(range(12))


class TestImportance:
    SPACE = {"rate": Range(0.001, 0.1, 0.01, log=True), "flip": Choice((True, False))}

    @staticmethod
    def trials(count, value, state="COMPLETE"):
        rng = np.random.default_rng(0)
        drawn = [
            {"rate": float(10 ** rng.uniform(-3, -1)), "flip": bool(rng.integers(2))} for _ in range(count)
        ]
        return [TrialRow(number, state, value(params), params, {}) for number, params in enumerate(drawn)]

    def test_deciding_parameter_comes_first(self):
        rows = self.trials(30, lambda params: np.log10(params["rate"]))
        found = parameter_importance(rows, self.SPACE, seed=0)
        assert next(iter(found)) == "rate"
        assert found["rate"] > 0.9
        assert sum(found.values()) == pytest.approx(1)
        assert found == parameter_importance(rows, self.SPACE, seed=0)

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
        killed += search_in_a_fork(storage, log, kill_after=moments.uniform(0.01, 0.4))
    assert search_in_a_fork(storage, log, kill_after=None) == 0
    print(killed)


def search_in_a_fork(storage, log, *, kill_after):
    """Return whether the search was killed before its end."""

    def evaluate(trial):
        with log.open("a") as lines:
            lines.write(json.dumps([trial.number, trial.params]) + "\n")
        return objective(trial, pause=0.01)

    child = os.fork()
    if child == 0:
        run(storage, evaluate=evaluate)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


if __name__ == "__main__":
    main()
