"""Hyperparameter search with Optuna, and the importance of each parameter.

Trials run in rounds of as many as there are workers. What a trial tries, and whether it is pruned, follows
from the rounds before its own alone, so that a search in one study of its own repeats bit by bit.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from adpet.errors import InputError
from adpet.storage import atomic_write

# Steps, counted from 1, at which no trial is pruned by the median: a network has learned nothing yet.
WARMUP_STEPS = 1

# Importance from fewer trials than these would be noise.
FEWEST = 4

# How often a trial is run again whose process was killed.
RETRIES = 3

# Seconds between signs of life in a shared database; after two missed ones a trial counts as lost.
HEARTBEAT_S = 60

# Seconds between looks at the last trials of other machines.
POLL_S = 2.0

# Seconds to wait for a process that writes to the same SQLite file.
LOCKED_S = 60

# Trials that count; a failed one is kept in the table and replaced by the next.
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)

Value = bool | int | float | str
Values = dict[str, Value]
Direction = Literal["minimize", "maximize"]
Pruner = Literal["halving", "median", "none"]
Space = Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class TrialRow:
    """Ended trial; a pruned one has its last value."""

    number: int
    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None
    params: Values


@dataclass(frozen=True)
class SearchResult:
    """All trials, and the best one."""

    best: Values
    best_value: float
    trials: list[TrialRow]


def search(
    space: Space,
    evaluate: Callable[[optuna.Trial], float],
    *,
    first: Values,
    trials: int,
    seed: int,
    storage: Path | str,
    name: str,
    workers: int = 1,
    startup_trials: int = 10,
    pruner: Pruner = "median",
    direction: Direction = "minimize",
    on_trial: Callable[[FrozenTrial], None] = lambda _: None,
    side_by_side: Callable[[Callable[[int], None], list[int]], Iterable[None]] = map,
) -> SearchResult:
    """Run the study until it has `trials` trials.

    The first trial tries the values `first`, the next ones up to `startup_trials` are drawn at random, the
    others by a multivariate tree-structured Parzen estimator, to which unfinished trials are bad ones
    (Bergstra et al., NeurIPS 2011; Falkner et al., ICML 2018). Pruning is by successive halving (Li et al.,
    MLSys 2020), or by the median of the trials before from `startup_trials` complete ones on (Golovin et
    al., KDD 2017).

    The value NaN (a diverged training) counts as the worst. What `evaluate` raises, `search` raises after the
    trial is marked FAIL; the next search replaces that trial. A trial whose process was killed runs again
    under its number. A finished study goes on with a larger `trials`; with a smaller one, the result is that
    of its first trials.

    Parameters
    ----------
    evaluate : callable
        Called through `side_by_side`; it may raise `optuna.TrialPruned`.
    storage : Path or str
        This search's own SQLite file, or the address of a database in which other machines join the study:
        there, a trial without a sign of life is queued again, and results no longer repeat.
    on_trial : callable
        Called once with each trial that counts, also of earlier searches in this study.
    side_by_side : callable
        As `map`, for a round of `workers` trials.
    """
    is_shared = isinstance(storage, str)
    # Machines that ask at the same time must not get the same values.
    suggest = partial(_suggest, space, first, seed=None if is_shared else seed, startup_trials=startup_trials)
    judge = _pruner(pruner, startup_trials)
    run_one = partial(_run, evaluate=evaluate, storage=storage, name=name, workers=workers, pruner=judge)
    seen: set[int] = set()
    with _quiet(), _opened(storage, create=True) as database:
        study = optuna.create_study(
            storage=database, study_name=name, direction=direction, load_if_exists=True
        )
        while True:
            optuna.storages.fail_stale_trials(study)
            for trial in study.get_trials(states=COUNTED):
                if trial.number not in seen:
                    on_trial(trial)
                    seen.add(trial.number)
            if len(seen) >= trials:
                return _result(study, trials)
            ids = _next_round(study, suggest, space, trials=trials, workers=workers, is_shared=is_shared)
            for identifier in ids:
                # Before its process starts, so that a trial lost on the way is found too.
                database.record_heartbeat(identifier)
            if ids:
                _run_all(partial(side_by_side, run_one), ids, study)
            else:
                time.sleep(POLL_S)


def parameter_importance(trials: Sequence[TrialRow], space: Space, *, seed: int) -> dict[str, float]:
    """Return parameter importance by fANOVA (Hutter et al., ICML 2014).

    A pruned trial counts with its last value, which is worse than what it would have reached: what makes a
    trial worth stopping matters. Shares of the variance add up to 1, the largest first; there are none if the
    trials are too few, all alike or none complete.
    """
    ended = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    if len(ended) < FEWEST or len({trial.value for trial in ended}) == 1 or not space:
        return {}
    if all(trial.state == "PRUNED" for trial in ended):
        return {}
    with _quiet():
        study = optuna.create_study()
        for trial in ended:
            study.add_trial(create_trial(params=trial.params, distributions=dict(space), value=trial.value))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def logarithmic(space: Space) -> list[str]:
    """Return the keys that are searched on a logarithmic scale."""
    return [name for name, distribution in space.items() if getattr(distribution, "log", False)]


def _next_round(
    study: optuna.Study,
    suggest: Callable[[optuna.Study, int, int], Values],
    space: Space,
    *,
    trials: int,
    workers: int,
    is_shared: bool,
) -> list[int]:
    """Return the database's ids of trials to run next."""
    known = study.get_trials(deepcopy=False)
    running = _running(study)
    # In a file of one's own, what runs without this process was lost with an earlier one.
    ids = [] if is_shared else running
    for trial in (optuna.Trial(study, identifier) for identifier in ids):
        for key, distribution in space.items():
            # One that was killed while it was asked for lacks values, which its place in the queue has.
            trial._suggest(key, distribution)  # noqa: SLF001 (Optuna's public ways name each distribution)
    wanted = trials - len(running) - sum(trial.state in COUNTED for trial in known)
    queued = sum(trial.state == TrialState.WAITING for trial in known)
    number = len(known) - queued
    while wanted > 0 and (len(ids) < workers if is_shared else not ids or number % workers):
        if queued:
            queued -= 1
        else:
            study.enqueue_trial(suggest(study, number, _round_start(number, workers)))
        ids.append(study.ask(dict(space))._trial_id)  # noqa: SLF001 (it has no other name for another process)
        wanted, number = wanted - 1, number + 1
    return ids


def _round_start(number: int, workers: int) -> int:
    """Return the first trial of a trial's round."""
    return number - number % workers


def _running(study: optuna.Study) -> list[int]:
    return [trial._trial_id for trial in study.get_trials(states=(TrialState.RUNNING,))]  # noqa: SLF001


def _suggest(
    space: Space,
    first: Values,
    study: optuna.Study,
    number: int,
    start: int,
    *,
    seed: int | None,
    startup_trials: int,
) -> Values:
    """Suggest values from the trials before number `start`."""
    draft = optuna.create_study(
        directions=study.directions,
        sampler=optuna.samplers.TPESampler(
            multivariate=True,
            constant_liar=True,
            n_startup_trials=startup_trials,
            seed=None if seed is None else int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        ),
    )
    for trial in study.get_trials(states=(*COUNTED, TrialState.RUNNING)):
        if trial.number >= start:
            trial.state, trial.values, trial.intermediate_values = TrialState.RUNNING, None, {}
            trial.datetime_complete = None
        draft.add_trial(trial)
    return dict(draft.ask(dict(space)).params) if draft.trials else first


def _run_all(run: Callable[[list[int]], Iterable[None]], ids: list[int], study: optuna.Study) -> None:
    """Run trials side by side; again those of killed processes."""
    for _ in range(1 + RETRIES):
        try:
            for _ in run(ids):
                pass
        except BrokenProcessPool:
            ids = sorted(set(ids) & set(_running(study)))
        else:
            return
    raise InputError(
        f"{len(ids)} trials: their processes were killed {1 + RETRIES} times, as happens when memory runs "
        "out; lower tune.workers and run it again to go on"
    )


def _run(
    identifier: int,
    *,
    evaluate: Callable[[optuna.Trial], float],
    storage: Path | str,
    name: str,
    workers: int,
    pruner: optuna.pruners.BasePruner,
) -> None:
    """Evaluate one trial, and write how it ended."""
    with _quiet(), _opened(storage) as database:
        study = _EarlierRounds(name, database, optuna.samplers.RandomSampler(), pruner)
        trial = optuna.Trial(study, identifier)
        study.before = _round_start(trial.number, workers)
        # A trial that was given up for lost has been queued again: its end is not counted twice.
        end = partial(study.tell, trial, skip_if_finished=True)
        try:
            with get_heartbeat_thread(identifier, database):
                value = float(evaluate(trial))
        except optuna.TrialPruned:
            end(state=TrialState.PRUNED)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # given up for lost, and queued again
        except Exception:
            end(state=TrialState.FAIL)
            raise
        else:
            worst = math.inf if study.direction == optuna.study.StudyDirection.MINIMIZE else -math.inf
            end(worst if math.isnan(value) else value)


class _EarlierRounds(optuna.Study):  # type: ignore[misc]
    """Study whose pruner sees the trials of earlier rounds."""

    before: int

    def get_trials(self, *arguments: Any, **options: Any) -> list[FrozenTrial]:
        return [trial for trial in super().get_trials(*arguments, **options) if trial.number < self.before]


class _Halving(optuna.pruners.BasePruner):  # type: ignore[misc]
    """Asynchronous successive halving by what trials have reported.

    Optuna's own notes in a trial how far it has come, and so would spare one that was lost and runs again.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        *before, step = sorted(trial.intermediate_values)
        if before and before[-1].bit_length() == step.bit_length():
            return False  # no power of two since then
        others = study.get_trials(deepcopy=False, states=(*COUNTED, TrialState.RUNNING))
        sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
        own, *known = (sign * one.intermediate_values.get(step, math.nan) for one in (trial, *others))
        known = [value for value in known if not math.isnan(value)]
        return math.isnan(own) or sum(value < own for value in known) >= max(1, (len(known) + 1) // 2)


def _pruner(name: Pruner, startup_trials: int) -> optuna.pruners.BasePruner:
    if name == "halving":
        return _Halving()
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=startup_trials, n_warmup_steps=WARMUP_STEPS + 1)
    return optuna.pruners.NopPruner()


def _result(study: optuna.Study, trials: int) -> SearchResult:
    """Return the first `trials` that count, and their best."""
    ended = study.get_trials(deepcopy=False, states=(*COUNTED, TrialState.FAIL))
    last = [trial.number for trial in ended if trial.state in COUNTED][trials - 1]
    rows = [
        TrialRow(trial.number, trial.state.name, trial.value, dict(trial.params))
        for trial in ended
        if trial.number <= last
    ]
    sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
    finite = [
        (sign * row.value, row.number, row)
        for row in rows
        if row.state == "COMPLETE" and row.value is not None and math.isfinite(row.value)
    ]
    if not finite:
        raise InputError(
            f"study {study.study_name}: required one trial or more with a finite value; received none of "
            f"{len(rows)}; narrow the search space, its learning rate first, and search again"
        )
    value, _, row = min(finite, key=lambda found: found[:2])
    return SearchResult(row.params, value * sign, rows)


@contextmanager
def _opened(storage: Path | str, *, create: bool = False) -> Iterator[RDBStorage]:
    """Open a file, or a shared database with heartbeats."""
    # A server or a firewall ends connections that rest for as long as a trial takes.
    engine: dict[str, Any] = {"pool_pre_ping": True}
    options: dict[str, Any] = {"engine_kwargs": engine}
    if isinstance(storage, str):
        again = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
        options |= {"heartbeat_interval": HEARTBEAT_S, "heartbeat_stale_trial_callback": again}
    elif create and not storage.exists():
        # Aside: a file that a kill left half made would be refused.
        with atomic_write(storage) as aside, _opened(aside):
            pass
    address = storage if isinstance(storage, str) else f"sqlite:///{storage.absolute()}"
    if address.startswith("sqlite"):
        engine["connect_args"] = {"timeout": LOCKED_S}
    try:
        database = _connected(address, options)
    except (ImportError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise InputError(
            f"{address}: required a database for Optuna that can be opened; received: "
            f"{' '.join(str(error).split())[:200]}; compare with tune.storage in docs/search.md"
        ) from error
    try:
        yield database
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"{address}: required a database that answers; received: {cause}; see that it runs, then start "
            "the search again to go on"
        ) from error
    finally:
        database.remove_session()
        database.engine.dispose()


def _connected(address: str, options: dict[str, Any], *, tries: int = 3) -> RDBStorage:
    try:
        return RDBStorage(address, **options)
    except DBAPIError:
        # Machines that begin a study in an empty database at once all try to make its tables.
        if tries == 1:
            raise
        time.sleep(POLL_S)
        return _connected(address, options, tries=tries - 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log, and its warnings about what is new."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Heartbeats outside of `Study.optimize`; steps that a lost trial has reported before.
        warnings.filterwarnings("ignore", "Heartbeat of storage|The reported value is ignored")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)
