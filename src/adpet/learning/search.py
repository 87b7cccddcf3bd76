"""Hyperparameter search with Optuna, and the importance of each parameter.

A study is a SQLite file. A trial is written when it has ended, so that a killed search continues as if it had
not been stopped.
"""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from adpet.errors import InputError
from adpet.storage import atomic_write

# The median pruner ignores the first reports of a trial: a network has learned nothing yet.
WARMUP_STEPS = 1

# Importance from fewer trials than these would be noise.
FEWEST = 4

# Trials that count; a failed one is kept in the table and replaced by the next.
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

STUDY_NAME = "adpet"

# The study's attribute with the settings of its search.
_SETTINGS = "adpet.settings"

Value = float | bool
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Range:
    """Range of a number, and the first trial's value."""

    low: float
    high: float
    first: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """Values to try; the first trial takes the first."""

    choices: tuple[bool, ...]

    @property
    def first(self) -> bool:
        """The first trial's value."""
        return self.choices[0]


Space = Mapping[str, Range | Choice]


@dataclass(frozen=True)
class TrialRow:
    """Ended trial; a pruned one has its last value."""

    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None
    params: dict[str, Value]
    reported: dict[int, float]


@dataclass(frozen=True)
class SearchResult:
    """All trials, and the best one."""

    best: dict[str, Value]
    best_number: int
    best_value: float
    trials: list[TrialRow]


@dataclass
class TrialHandle:
    """Running trial, for the function that evaluates it."""

    number: int
    params: dict[str, Value]
    _should_prune: Callable[[Mapping[int, float]], bool] = field(repr=False)
    reported: dict[int, float] = field(default_factory=dict)
    pruned: bool = False

    def report(self, step: int, value: float) -> bool:
        """Report an intermediate value; True if the trial should stop.

        It then ends as PRUNED with its last reported value, whatever its function returns.
        """
        self.reported[int(step)] = float(value)
        self.pruned = self.pruned or self._should_prune(self.reported)
        return self.pruned


def search(
    space: Space,
    evaluate: Callable[[TrialHandle], float],
    *,
    trials: int,
    seed: int,
    storage: Path,
    startup_trials: int = 10,
    pruner: Literal["median", "none"] = "median",
    direction: Direction = "minimize",
) -> SearchResult:
    """Run the study until it has `trials` trials.

    The first trial tries the values that `space` names first, the next ones up to `startup_trials` are
    drawn at random, the others by a multivariate tree-structured Parzen estimator (Bergstra et al.,
    NeurIPS 2011; Falkner et al., ICML 2018). A trial worse than the median of those before it at the
    same step is pruned, from `startup_trials` complete ones on (Golovin et al., KDD 2017).

    The value NaN (a diverged training) counts as the worst. What `evaluate` raises, `search` raises after the
    trial is marked FAIL; the next search replaces that trial. `storage` is the SQLite file of this study.
    """
    settings = {
        "space": {name: asdict(values) for name, values in space.items()},
        "seed": seed,
        "startup_trials": startup_trials,
        "pruner": pruner,
        "direction": direction,
    }
    judge: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if pruner == "median":
        judge = optuna.pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=WARMUP_STEPS)
    with _quiet(), _study(storage, direction, settings) as study:
        while len(study.get_trials(deepcopy=False, states=_COUNTED)) < trials:
            number = len(study.get_trials(deepcopy=False))
            params = _suggest(space, study, number=number, seed=seed, startup_trials=startup_trials)
            _run(study, evaluate, number=number, params=params, space=space, pruner=judge)
        return _result(study, direction, storage)


def parameter_importance(trials: Sequence[TrialRow], space: Space, *, seed: int) -> dict[str, float]:
    """Return parameter importance by fANOVA (Hutter et al., ICML 2014).

    Complete trials alone count, since others were shorter. Shares of the variance add up to 1, the largest
    first; there are none if the trials are too few, or all alike.
    """
    ended = [trial for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    if len(ended) < FEWEST or len({trial.value for trial in ended}) == 1 or not space:
        return {}
    distributions = _distributions(space)
    with _quiet():
        study = optuna.create_study()
        for trial in ended:
            study.add_trial(create_trial(params=trial.params, distributions=distributions, value=trial.value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _suggest(
    space: Space, study: optuna.Study, *, number: int, seed: int, startup_trials: int
) -> dict[str, Value]:
    """Suggest parameters from study, number and seed alone."""
    if not study.get_trials(deepcopy=False, states=_COUNTED):
        return {name: values.first for name, values in space.items()}
    draft = optuna.create_study(
        directions=study.directions,
        sampler=optuna.samplers.TPESampler(
            multivariate=True,
            n_startup_trials=startup_trials,
            seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        ),
    )
    draft.add_trials(study.get_trials(deepcopy=False))
    return dict(draft.ask(_distributions(space)).params)


def _run(
    study: optuna.Study,
    evaluate: Callable[[TrialHandle], float],
    *,
    number: int,
    params: dict[str, Value],
    space: Space,
    pruner: optuna.pruners.BasePruner,
) -> None:
    frozen = partial(create_trial, params=params, distributions=_distributions(space))

    def write(state: TrialState, value: float | None) -> None:
        ended = frozen(state=state, value=value, intermediate_values=trial.reported)
        ended.datetime_start = started
        study.add_trial(ended)

    def should_prune(reported: Mapping[int, float]) -> bool:
        running = frozen(state=TrialState.RUNNING, intermediate_values=dict(reported))
        return bool(pruner.prune(study, running))

    trial = TrialHandle(number, params, should_prune)
    started = datetime.now()  # noqa: DTZ005 (Optuna's times are naive and local)
    try:
        value = float(evaluate(trial))
    except Exception:
        write(TrialState.FAIL, None)
        raise
    if trial.pruned:
        last = trial.reported[max(trial.reported)]
        write(TrialState.PRUNED, None if math.isnan(last) else last)
    else:
        worst = math.inf if study.direction == optuna.study.StudyDirection.MINIMIZE else -math.inf
        write(TrialState.COMPLETE, worst if math.isnan(value) else value)


def _result(study: optuna.Study, direction: Direction, storage: Path) -> SearchResult:
    """Return the trials and the earliest best complete one."""
    rows = [
        TrialRow(
            trial.number,
            trial.state.name if trial.state in _COUNTED else "FAIL",
            trial.value,
            dict(trial.params),
            dict(sorted(trial.intermediate_values.items())),
        )
        for trial in study.get_trials(deepcopy=False)
    ]
    sign = 1.0 if direction == "minimize" else -1.0
    finite = [
        (sign * row.value, row.number)
        for row in rows
        if row.state == "COMPLETE" and row.value is not None and math.isfinite(row.value)
    ]
    if not finite:
        raise InputError(
            f"{storage}: required one trial or more with a finite value; received none of {len(rows)}; "
            "narrow the search space, its learning rate first, and search again"
        )
    value, number = min(finite)
    return SearchResult(dict(rows[number].params), number, value * sign, rows)


@contextmanager
def _study(storage: Path, direction: Direction, settings: dict[str, Any]) -> Iterator[optuna.Study]:
    settings = json.loads(json.dumps(settings))
    if not storage.exists():
        with atomic_write(storage) as aside, _database(aside) as database:
            study = optuna.create_study(storage=database, study_name=STUDY_NAME, direction=direction)
            study.set_user_attr(_SETTINGS, settings)
    with _database(storage) as database:
        study = optuna.load_study(storage=database, study_name=STUDY_NAME)
        if study.user_attrs.get(_SETTINGS) != settings:
            raise InputError(
                f"{storage}: required a study of this search, but it was made with another space, seed, "
                "sampler or pruner; remove the file to start a new search"
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
def _quiet() -> Iterator[None]:
    """Silence Optuna's log and its warning about the multivariate TPE."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {
        name: CategoricalDistribution(values.choices)
        if isinstance(values, Choice)
        else FloatDistribution(values.low, values.high, log=values.log)
        for name, values in space.items()
    }
