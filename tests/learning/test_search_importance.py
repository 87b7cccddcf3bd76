"""The parameter that decides is found, and nothing is made up from too few trials."""

import numpy as np
import pytest

from adpet.learning.search import FEWEST, Choice, Range, TrialRow, parameter_importance

SPACE = {"rate": Range(0.001, 0.1, 0.01, log=True), "flip": Choice((True, False))}


def trials(count, value, state="COMPLETE"):
    rng = np.random.default_rng(0)
    drawn = [{"rate": float(10 ** rng.uniform(-3, -1)), "flip": bool(rng.integers(2))} for _ in range(count)]
    return [TrialRow(number, state, value(params), params, {}) for number, params in enumerate(drawn)]


def test_the_parameter_that_decides_comes_first():
    found = parameter_importance(trials(30, lambda one: np.log10(one["rate"])), SPACE, seed=0)
    assert next(iter(found)) == "rate"
    assert found["rate"] > 0.9
    assert sum(found.values()) == pytest.approx(1)


def test_the_same_trials_give_the_same_shares():
    rows = trials(12, lambda one: one["rate"] + one["flip"])
    assert parameter_importance(rows, SPACE, seed=0) == parameter_importance(rows, SPACE, seed=0)


@pytest.mark.parametrize(
    "rows",
    [
        trials(FEWEST - 1, lambda one: one["rate"]),
        trials(9, lambda _: 0.5),
        trials(9, lambda one: one["rate"], state="PRUNED"),
    ],
    ids=["too few", "all alike", "none complete"],
)
def test_from_such_trials_nothing_is_told(rows):
    assert parameter_importance(rows, SPACE, seed=0) == {}
