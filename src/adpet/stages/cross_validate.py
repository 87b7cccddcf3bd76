"""Cross-validation over all subjects: one network per fold, predictions pooled.

The hyperparameters are those of ``tune``, which has seen the subjects outside of the test set: the summary
reports the subjects that the search has not seen apart.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from adpet import paths
from adpet.cohort.scans import read_scans
from adpet.cohort.splits import cross_validation_parts, read_split
from adpet.contracts import TrainingRun, read_contract
from adpet.evaluation.cross_validation import COLUMNS, fold_subjects, pooled_summary
from adpet.params import Params
from adpet.stages.common.checks import refuse_shared
from adpet.stages.common.tables import read_results, write_table
from adpet.stages.common.tracking import log_fold, log_to_training, stage_lineage
from adpet.storage import fingerprint, read_json, work_dir, write_json
from adpet.tracking.runs import find_run
from adpet.tracking.sync import start_tracking

# Everything that the folds' weights follow from.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    "evaluate": {"cross_validation"},
    **dict.fromkeys(("seed", "cohort", "normalize", "slice", "model", "augment", "train"), True),
}

# One row a slice of a fold's validation and test subjects.
PREDICTION_COLUMNS = (
    "fold", "scan", "index", "subject", "diagnosis", "part", "session", "probability",
)  # fmt: skip


def run(params: Params) -> None:
    """Write predictions, histories, subjects and summary; log them to MLflow."""
    if not params.evaluate.cross_validation:
        # dvc.yaml has this stage in any case: it ends here, before Keras is loaded for nothing.
        write_table(pd.DataFrame(columns=list(PREDICTION_COLUMNS)), paths.CROSS_VALIDATION_PREDICTIONS)
        write_table(pd.DataFrame(columns=["fold", "epoch"]), paths.CROSS_VALIDATION_HISTORY)
        write_json(paths.CROSS_VALIDATION_FOLDS, [])
        _write_pooled(pd.DataFrame(columns=list(COLUMNS)), {"folds": 0})
        return
    split = read_split(paths.SPLIT)
    training_run = read_contract(paths.RUN, TrainingRun).lineage.id
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    names = _train_folds(params.with_values(read_json(paths.BEST_TRIAL)), split, training_run)
    summary = _pool(params, split, names)
    auc = summary["pooled"]["auc"]
    figures = {"cv_auc": auc["value"], "cv_auc_ci_low": auc["low"], "cv_auc_ci_high": auc["high"]}
    log_to_training(params, {"cross-validation": [paths.CROSS_VALIDATION_SUMMARY]}, figures)


def _train_folds(params: Params, split: pd.DataFrame, training_run: str) -> list[str]:
    """Train and log the folds' networks; return their names."""
    from adpet.stages.common.fitting import train_folds

    scans = read_scans(paths.SCANS)
    scans, folds = scans[scans["scan"].isin(split["scan"])], params.evaluate.cross_validation
    parts = cross_validation_parts(scans, folds=folds, seed=params.seed)
    rows = {name: table.to_csv(index=False, lineterminator="\n") for name, table in parts.items()}
    settings = params.model_dump(include=SETTINGS, mode="json")
    split_hash = fingerprint({"folds": rows, "slices": len(split)})
    facts = stage_lineage("cross_validate", params, settings, split_hash=split_hash)
    slices = {fold: _fold_slices(split, table) for fold, table in enumerate(parts.values())}
    with work_dir("cross_validate", facts) as work:
        results, predictions = train_folds(slices, params, work, label="cross-validation")
        for result in results:
            parent = find_run(training_run, "train")
            log_fold(result, params, facts, name="cross-validation fold", parent=parent, leaky=False)
        write_table(predictions[list(PREDICTION_COLUMNS)], paths.CROSS_VALIDATION_PREDICTIONS)
    history = [
        {"fold": result["fold"], "epoch": epoch} | row
        for result in results
        for epoch, row in enumerate(result["rows"])
    ]
    write_table(pd.DataFrame(history).drop(columns="seconds"), paths.CROSS_VALIDATION_HISTORY)
    kept = ("fold", "best_epoch", "trained_on")
    write_json(paths.CROSS_VALIDATION_FOLDS, [{key: result[key] for key in kept} for result in results])
    return list(parts)


def _fold_slices(split: pd.DataFrame, parts: pd.DataFrame) -> pd.DataFrame:
    """Return a fold's slices with part and session."""
    slices = split.drop(columns="part").merge(parts, on="subject", validate="many_to_one")
    trained = slices["part"] == "train"
    refuse_shared(set(slices.loc[trained, "subject"]) & set(slices.loc[~trained, "subject"]), "on both sides")
    return slices.assign(session=slices["scan"].map(read_scans(paths.SCANS).set_index("scan")["session"]))


def _pool(params: Params, split: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """Write subjects and summary from the written predictions."""
    aggregation, positions = params.evaluate.aggregation, int(split["index"].max()) + 1
    table = read_results(paths.CROSS_VALIDATION_PREDICTIONS)
    scored = [
        fold_subjects(table[table["fold"] == fold], fold=fold, aggregation=aggregation, positions=positions)
        for fold in sorted(set(table["fold"]))
    ]
    subjects = pd.concat(scored).sort_values("subject", ignore_index=True)
    # Without a search, no subject was seen by one.
    searched = set(split.loc[split["part"] != "test", "subject"]) if read_json(paths.BEST_TRIAL) else set()
    subjects["searched"] = subjects["subject"].isin(searched)
    summary = pooled_summary(subjects, seed=params.seed, resamples=params.evaluate.resamples)
    if isinstance(left_out := params.evaluate.cross_validation, str):
        summary |= {"left_out": left_out, "names": {str(fold): name for fold, name in enumerate(names)}}
    _write_pooled(subjects[list(COLUMNS)], summary)
    return summary


def _write_pooled(subjects: pd.DataFrame, summary: dict[str, Any]) -> None:
    write_table(subjects, paths.CROSS_VALIDATION_SUBJECTS)
    write_json(paths.CROSS_VALIDATION_SUMMARY, summary)
