"""What stages tell MLflow, and what a result follows from."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from adpet import paths
from adpet.contracts import TrainingRun, read_contract
from adpet.params import Params
from adpet.tracking.lineage import lineage
from adpet.tracking.runs import RunHandle, append_to_run, open_run
from adpet.tracking.store import LEAKY
from adpet.tracking.sync import start_tracking


def stage_lineage(
    stage: str, params: Params, settings: Mapping[str, Any], *, split_hash: str
) -> dict[str, Any]:
    """Return the facts that a stage's result follows from.

    `settings` are the parameters that matter for it, nested.
    """
    return lineage(
        stage=stage, params=settings, raw=params.cohort.raw, split_hash=split_hash, seed=params.seed
    )


def log_data(tracked: RunHandle, facts: Mapping[str, Any], split: pd.DataFrame) -> None:
    """Log a run's scans: hash in DVC, and numbers."""
    raw = facts["params"]["cohort"]["raw"]
    counts = {"scans": split["scan"].nunique(), "subjects": split["subject"].nunique()}
    groups = split.groupby("diagnosis")["subject"].nunique()
    counts |= {f"{name} subjects": int(number) for name, number in groups.items()}
    tracked.log_dataset(name=raw, digest=facts["data"], source=raw, counts=counts)


def log_fold(
    result: Mapping[str, Any],
    params: Params,
    facts: Mapping[str, Any],
    *,
    name: str,
    parent: str | None,
    leaky: bool,
) -> None:
    """Log a fold's network as a run below `parent`."""
    with open_run(
        lineage=f"{facts['id']}.{result['fold']}",
        kind="fold",
        name=f"{name} {result['fold']}",
        parent=parent,
        tags={LEAKY: str(leaky).lower()},
        params=params.flat(),
    ) as tracked:
        for epoch, row in enumerate(result["rows"]):
            tracked.log_metrics(row, epoch)
        tracked.log_metrics({f"final_{name}": value for name, value in result["final"].items()})


def log_to_training(
    params: Params,
    files: Mapping[str | None, Iterable[Path]],
    metrics: Mapping[str, Any] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Add metrics, tables and files by folder to the training."""
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    with append_to_run(read_contract(paths.RUN, TrainingRun).lineage.id) as tracked:
        tracked.log_metrics(metrics or {})
        for name, table in (tables or {}).items():
            tracked.log_table(name, table)
        for folder, contents in files.items():
            for path in contents:
                tracked.log_artifact(path, folder)
