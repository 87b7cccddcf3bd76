"""Checks before results are made, scan facts, and search space."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from adpet import paths
from adpet.errors import InputError, LeakageError
from adpet.params import SEARCHED, Choice, Params, Range
from adpet.storage import read_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def hashed(subjects: Iterable[str]) -> list[str]:
    """Return one hash per subject, sorted."""
    return sorted({hashlib.sha256(f"adpet:{subject}".encode()).hexdigest()[:16] for subject in subjects})


def refuse_trained_on(trained_on: Iterable[str], evaluated: Iterable[str]) -> None:
    """Refuse to evaluate subjects that were trained on, by hash."""
    refuse_shared(set(trained_on) & set(evaluated), "to be evaluated, but trained on")


def refuse_shared(subjects: set[str], what: str) -> None:
    """Refuse subjects on two sides of the split, if any."""
    if subjects:
        first = ", ".join(sorted(subjects)[:3])
        raise LeakageError(
            f"{paths.SPLIT}: required every subject on one side; received {len(subjects)} "
            f"{what}: {first}; run: dvc repro --force split"
        )


def require_evaluation_of(lineage_id: str) -> None:
    """Require that the results of `evaluate` belong to a training."""
    found = read_json(paths.FINDINGS).get("lineage")
    if found != lineage_id:
        raise InputError(
            f"{paths.EVALUATE}: required the evaluation of training {lineage_id}; received {found}; "
            "run: dvc repro evaluate"
        )


def may_log_images(params: Params) -> bool:
    """True if images of single scans may go to MLflow."""
    return params.tracking.log_images or reads_simulated(params)


def reads_simulated(params: Params) -> bool:
    """True if the scans are the simulated cohort's."""
    return Path(params.cohort.raw).resolve().is_relative_to(paths.SIMULATED_RAW.resolve())


def search_space(params: Params) -> dict[str, "BaseDistribution"]:
    """Return Optuna's distribution of each searched key."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def distribution(key: str, space: Range | Choice) -> "BaseDistribution":
        if isinstance(space, Choice):
            return CategoricalDistribution(space.choices)
        section, _, name = key.partition(".")
        if SEARCHED[section].model_fields[name].annotation is int:
            return IntDistribution(int(space.low), int(space.high), log=space.log)
        return FloatDistribution(space.low, space.high, log=space.log)

    return {key: distribution(key, space) for key, (space, _) in params.searched().items()}
