"""Bring the folds of the cross-validation together: all subjects, each scored by a network new to them."""

from pathlib import Path
from typing import Any

import pandas as pd

from adpet.cohort.splits import read_split
from adpet.evaluation.cross_validation import COLUMNS, fold_subjects, pooled_summary
from adpet.params import Params
from adpet.paths import CROSS_VALIDATION_SUBJECTS, CROSS_VALIDATION_SUMMARY, RUN, SPLIT, fold_folder
from adpet.stages.tables import read_results
from adpet.storage import atomic_write, read_json, write_json
from adpet.tracking.runs import append_to_run
from adpet.tracking.sync import start_tracking


def run(params: Params) -> None:
    """Write the summary and one row a subject, and add the summary to the training's MLflow run."""
    folds = params.evaluate.cross_validation
    if not folds:
        _write(pd.DataFrame(columns=list(COLUMNS)), {"folds": 0})
        return
    predictions = {fold: read_results(fold_folder(fold) / "predictions.csv") for fold in range(folds)}
    split = read_split(SPLIT)
    positions = int(split["index"].max()) + 1
    subjects = pd.concat(
        [
            fold_subjects(table, fold=fold, aggregation=params.evaluate.aggregation, positions=positions)
            for fold, table in predictions.items()
        ]
    ).sort_values("subject", ignore_index=True)
    # Where nothing was searched, nobody was looked at.
    searched = set(split.loc[split["part"] != "test", "subject"]) if params.tuned() else set()
    subjects["searched"] = subjects["subject"].isin(searched)
    summary = pooled_summary(subjects, seed=params.seed, resamples=params.evaluate.resamples)
    _write(subjects[list(COLUMNS)], summary)
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    with append_to_run(read_json(RUN)["lineage"]["id"]) as tracked:
        tracked.log_metrics({"cross_validation": summary})
        tracked.log_artifact(CROSS_VALIDATION_SUMMARY, "cross-validation")


def _write(subjects: pd.DataFrame, summary: dict[str, Any]) -> None:
    with atomic_write(CROSS_VALIDATION_SUBJECTS) as aside:
        subjects.to_csv(aside, index=False, lineterminator="\n", float_format="%.9g")
    write_json(CROSS_VALIDATION_SUMMARY, summary)
