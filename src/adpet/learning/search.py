"""Hyperparameter search with Optuna, and how much each parameter matters."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from adpet.errors import InputError
from adpet.storage import atomic_write

Value = float | bool
Direction = Literal["minimize", "maximize"]
State = Literal["COMPLETE", "PRUNED", "FAIL"]

# The first reports of a trial are not judged by the median pruner: a network has learned nothing yet.
WARMUP_STEPS = 1

# Trials that count; a failed one is kept in the table and replaced by the next.
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

# The study's attribute that says what it searches.
_SETTINGS = "adpet.settings"


@dataclass(frozen=True)
class Range:
    """Where a number is searched, and the value that the first trial tries."""

    low: float
    high: float
    first: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """Which values are tried, the first one by the first trial."""

    choices: tuple[bool, ...]


Space = Mapping[str, Range | Choice]


@dataclass(frozen=True)
class TrialRow:
    """A trial that has ended.

    `value` is the last reported one where the trial was pruned, and None where it failed;
    `reported` holds the intermediate value of each step.
    """

    number: int
    state: State
    value: float | None
    params: dict[str, Value]
    reported: dict[int, float]


@dataclass(frozen=True)
class SearchResult:
    """All trials in order, and the parameters, number and value of the best one."""

    best: dict[str, Value]
    best_number: int
    best_value: float
    trials: list[TrialRow]


@dataclass
class TrialHandle:
    """A running trial, for the function that evaluates it."""

    number: int
    params: dict[str, Value]
    _judge: Callable[[Mapping[int, float]], bool] = field(repr=False)
    reported: dict[int, float] = field(default_factory=dict)
    pruned: bool = False

    def report(self, step: int, value: float) -> bool:
        """Report an intermediate value, and return whether the trial should stop here.

        A trial that was told to stop ends as PRUNED with its last reported value, whatever its function
        returns. One that goes on from a state of its own after a kill reports its earlier steps again.
        """
        self.reported[int(step)] = float(value)
        self.pruned = self.pruned or self._judge(self.reported)
        return self.pruned


def search(
    space: Space,
    evaluate: Callable[[TrialHandle], float],
    *,
    trials: int,
    seed: int,
    storage: Path,
    study_name: str = "adpet",
    startup_trials: int = 10,
    pruner: Literal["median", "none"] = "median",
    direction: Direction = "minimize",
) -> SearchResult:
    """Evaluate `trials` points of `space`, or as many as the study in `storage` still lacks.

    The first trial tries the values that `space` names first, the next ones up to `startup_trials` are
    drawn at random, the others by a multivariate tree-structured Parzen estimator (Bergstra et al.,
    NeurIPS 2011; Falkner et al., ICML 2018). A trial worse than the median of those before it at the
    same step is pruned, from `startup_trials` complete ones on (Golovin et al., KDD 2017).

    Parameters
    ----------
    space : mapping of str to Range or Choice
        The hyperparameters by name.
    evaluate : callable
        Returns the value of a trial; NaN (a diverged training) counts as the worst one.
    storage : Path
        SQLite file of this study alone; made if it is not there.

    Raises
    ------
    InputError
        If `storage` holds a study of another search, or no trial has a finite value.
    Exception
        What `evaluate` raised, after the trial is marked FAIL; the next search replaces that trial.
    """
    settings = _settings(space, seed, startup_trials, pruner, direction)
    with quiet(), _study(storage, study_name, direction, settings) as study:
        judge = _pruner(pruner, startup_trials)
        while len(study.get_trials(deepcopy=False, states=_COUNTED)) < trials:
            number = len(study.get_trials(deepcopy=False))
            params = suggest(space, study, number=number, seed=seed, startup_trials=startup_trials)
            _run(study, TrialHandle(number, params, _judge(study, judge, space, params)), evaluate, space)
        return _result([_row(trial) for trial in study.get_trials(deepcopy=False)], direction, storage)


def suggest(
    space: Space, study: optuna.Study, *, number: int, seed: int, startup_trials: int
) -> dict[str, Value]:
    """Return what trial `number` tries: a function of `seed`, `number` and the trials in `study` alone."""
    if not study.get_trials(deepcopy=False, states=_COUNTED):
        return {name: _first(one) for name, one in space.items()}
    draft = optuna.create_study(
        directions=study.directions,
        sampler=optuna.samplers.TPESampler(
            multivariate=True,
            n_startup_trials=startup_trials,
            seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        ),
    )
    draft.add_trials(study.get_trials(deepcopy=False))
    return dict(draft.ask(distributions(space)).params)


def _run(
    study: optuna.Study, trial: TrialHandle, evaluate: Callable[[TrialHandle], float], space: Space
) -> None:
    """Evaluate one trial and write it to the study, as one transaction."""
    started = datetime.now()  # noqa: DTZ005 (Optuna's times are naive and local)
    try:
        value = float(evaluate(trial))
    except Exception:
        _write(study, trial, space, state=TrialState.FAIL, value=None, started=started)
        raise
    if math.isnan(value):
        value = math.inf if study.direction == optuna.study.StudyDirection.MINIMIZE else -math.inf
    if trial.pruned:
        last = trial.reported[max(trial.reported)]
        value_then = None if math.isnan(last) else last
        _write(study, trial, space, state=TrialState.PRUNED, value=value_then, started=started)
    else:
        _write(study, trial, space, state=TrialState.COMPLETE, value=value, started=started)


def _write(
    study: optuna.Study,
    trial: TrialHandle,
    space: Space,
    *,
    state: TrialState,
    value: float | None,
    started: datetime,
) -> None:
    frozen = create_trial(
        state=state,
        value=value,
        params=trial.params,
        distributions=distributions(space),
        intermediate_values=trial.reported,
    )
    frozen.datetime_start = started
    study.add_trial(frozen)


def _judge(
    study: optuna.Study, pruner: optuna.pruners.BasePruner, space: Space, params: dict[str, Value]
) -> Callable[[Mapping[int, float]], bool]:
    """Return the function that says whether a trial that reported these values should stop."""

    def judge(reported: Mapping[int, float]) -> bool:
        running = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=distributions(space),
            intermediate_values=dict(reported),
        )
        return bool(pruner.prune(study, running))

    return judge


def _pruner(name: Literal["median", "none"], startup_trials: int) -> optuna.pruners.BasePruner:
    if name == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=WARMUP_STEPS)


@contextmanager
def _study(
    storage: Path, name: str, direction: Direction, settings: dict[str, Any]
) -> Iterator[optuna.Study]:
    """Open the study; the file appears whole, with its tables and settings, or not at all."""
    if not storage.exists():
        with atomic_write(storage) as aside, _database(aside) as database:
            study = optuna.create_study(storage=database, study_name=name, direction=direction)
            study.set_user_attr(_SETTINGS, settings)
    with _database(storage) as database:
        try:
            study = optuna.load_study(storage=database, study_name=name)
        except KeyError as error:
            raise InputError(
                f"{storage}: required the study '{name}', but it holds others only; name another file"
            ) from error
        if study.user_attrs.get(_SETTINGS) != settings:
            raise InputError(
                f"{storage}: required a study of this search, but it was made with another space, seed, "
                "sampler or pruner; remove the file to search anew"
            )
        yield study


@contextmanager
def _database(path: Path) -> Iterator[optuna.storages.RDBStorage]:
    database = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
    try:
        yield database
    finally:
        database.remove_session()
        database.engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Optuna's log and its warnings that an interface (the multivariate TPE) is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _settings(space: Space, seed: int, startup_trials: int, pruner: str, direction: str) -> dict[str, Any]:
    """Return what a study must agree in to be continued, as JSON would give it back."""
    settings = {
        "space": {name: asdict(one) for name, one in space.items()},
        "seed": seed,
        "startup_trials": startup_trials,
        "pruner": pruner,
        "direction": direction,
    }
    return dict(json.loads(json.dumps(settings)))


def _first(one: Range | Choice) -> Value:
    return one.first if isinstance(one, Range) else one.choices[0]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return a search space as Optuna has it."""
    return {
        name: FloatDistribution(one.low, one.high, log=one.log)
        if isinstance(one, Range)
        else CategoricalDistribution(one.choices)
        for name, one in space.items()
    }


def _row(trial: FrozenTrial) -> TrialRow:
    state: State = "FAIL"
    if trial.state == TrialState.COMPLETE:
        state = "COMPLETE"
    elif trial.state == TrialState.PRUNED:
        state = "PRUNED"
    reported = dict(sorted(trial.intermediate_values.items()))
    return TrialRow(trial.number, state, trial.value, dict(trial.params), reported)


def _result(rows: Sequence[TrialRow], direction: Direction, storage: Path) -> SearchResult:
    """Return the rows with the best complete one; of equals, the earliest."""
    sign = 1.0 if direction == "minimize" else -1.0
    complete = [row for row in rows if row.state == "COMPLETE" and row.value is not None]
    finite = [(sign * row.value, row.number) for row in complete if row.value is not None]
    finite = [pair for pair in finite if math.isfinite(pair[0])]
    if not finite:
        raise InputError(
            f"{storage}: required one trial or more with a finite value; received none of {len(rows)}; "
            "narrow the search space, its learning rate first, and search anew"
        )
    best = rows[min(finite)[1]]
    return SearchResult(dict(best.params), best.number, min(finite)[0] * sign, list(rows))


# Fewer trials than these cannot be told from each other's noise.
FEWEST = 4


def parameter_importance(trials: Sequence[TrialRow], space: Space, *, seed: int) -> dict[str, float]:
    """Return each parameter's share of the variance over the trials that ended (fANOVA, Hutter 2014, ICML).

    Parameters
    ----------
    trials : sequence of TrialRow
        Pruned and failed ones are left out: their values are of another length of training.
    space : mapping
        Where each parameter was searched.
    seed : int
        Of the random forest.

    Returns
    -------
    dict
        By parameter, the largest first; the shares add up to 1. Empty where the trials are too few, or all
        alike.
    """
    ended = [trial for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    if len(ended) < FEWEST or len({trial.value for trial in ended}) == 1 or not space:
        return {}
    searched = distributions(space)
    with quiet():
        study = optuna.create_study()
        for trial in ended:
            study.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=searched, value=trial.value)
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
