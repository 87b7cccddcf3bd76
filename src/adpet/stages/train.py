"""Train MobileNetV2 with the best trial's hyperparameters; log the run.

A network per fold, trained without it, predicts its subjects: these out-of-fold predictions of all training
subjects calibrate the model. The model itself is the ensemble of these networks.
"""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.splits import fold_name, read_split
from adpet.contracts import TrainingRun, write_contract
from adpet.imaging.normalization import to_suvr, to_uint8
from adpet.imaging.slices import network_slices
from adpet.imaging.template import fdg_template, reference_mask
from adpet.learning import limit_threads
from adpet.learning.checkpoint import load_models, save_model
from adpet.learning.model import ensemble
from adpet.learning.training import History
from adpet.params import Params
from adpet.reporting.style import save_figure
from adpet.reporting.training_figures import learning_curves_figure
from adpet.stages.common import fitting
from adpet.stages.common.checks import hashed
from adpet.stages.common.tables import VALIDATION_COLUMNS, write_table
from adpet.stages.common.tracking import log_data, log_fold, stage_lineage
from adpet.stages.slice import coronal_grid
from adpet.storage import read_json, work_dir
from adpet.tracking.runs import RunHandle, open_run
from adpet.tracking.store import LEAKY
from adpet.tracking.sync import start_tracking
from adpet.tracking.ui_notes import run_name

if TYPE_CHECKING:
    import keras

# Everything that the trained weights follow from.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    **dict.fromkeys(("seed", "cohort", "normalize", "slice", "split", "model", "augment", "train"), True),
}


def run(params: Params) -> None:
    """Write model, history, ``validation.csv`` and ``run.json``; log to MLflow."""
    params = params.with_values(read_json(paths.BEST_TRIAL))
    limit_threads(params.compute.threads)
    split, split_summary = read_split(paths.SPLIT), read_json(paths.SPLIT_SUMMARY)
    settings = params.model_dump(include=SETTINGS, mode="json")
    facts = stage_lineage("train", params, settings, split_hash=split_summary["hash"])
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    leaky = split_summary["leaky"]
    with (
        work_dir("train", facts) as work,
        open_run(
            lineage=facts["id"],
            kind="train",
            name=run_name("training", facts["id"]),
            tags=_tags(facts, leaky=leaky),
            params=params.flat(),
        ) as tracked,
    ):
        log_data(tracked, facts, split)
        folds, predictions = _folds(split, params, work)
        for fold in folds:
            log_fold(fold, params, facts, name="fold", parent=tracked.run_id, leaky=leaky)
        model, history = _final(split, params, work, tracked, folds)
        save_model(model, paths.MODEL)
        document = {"lineage": facts, "leaky": leaky, **_subjects(split, folds)}
        document |= {"best_epoch": history.best_epoch, "final": history.final}
        write_contract(paths.RUN, document, TrainingRun)
        write_table(predictions[list(VALIDATION_COLUMNS)], paths.VALIDATION)
        write_table(fitting.history_table(history), paths.HISTORY, float_format=None)
        rows = [{"epoch": epoch} | row for epoch, row in enumerate(history.rows)]
        save_figure(learning_curves_figure(rows, best_epoch=history.best_epoch), paths.CURVES)
        tracked.log_metrics({f"final_{name}": value for name, value in history.final.items()})
        for path in (paths.CURVES, paths.HISTORY):
            tracked.log_artifact(path, "train")
        tracked.log_model(model, signature_example=_example(params), metadata=_preprocessing(params, facts))


def _folds(split: pd.DataFrame, params: Params, work: Path) -> tuple[list[fitting.FoldResult], pd.DataFrame]:
    """Train the folds' networks; return them and out-of-fold predictions.

    Without folds the tested validate, as in 2019: nothing is calibrated on them.
    """
    if not params.split.folds:
        return [], split[:0].assign(probability=np.nan)
    folds, predictions = fitting.train_folds(fitting.fold_slices(split, params), params, work, label="folds")
    predictions["part"] = predictions["fold"].map(fold_name)
    return folds, predictions


def _final(
    split: pd.DataFrame, params: Params, work: Path, tracked: RunHandle, folds: list[fitting.FoldResult]
) -> tuple["keras.Model", History]:
    """Return the ensemble of the folds, and their mean history.

    Without folds, train the only network.
    """
    if not folds:
        return fitting.fit(
            params,
            *fitting.training_and_validation(split, params, fold=0),
            epochs=params.train.epochs,
            checkpoint=work / "final.npz",
            label="train",
            on_epoch=lambda epoch, row: tracked.log_metrics(row, epoch),
        )
    rows = tuple(_mean([fold["rows"][epoch] for fold in folds]) for epoch in range(params.train.epochs))
    for epoch, row in enumerate(rows):
        tracked.log_metrics(row, epoch)
    best_epoch = round(median(fold["best_epoch"] for fold in folds))
    model = ensemble(load_models(fitting.fold_model(work, fold["fold"]) for fold in folds))
    return model, History(rows, best_epoch, _mean([fold["final"] for fold in folds]))


def _mean(rows: list[dict[str, float | None]]) -> dict[str, float]:
    """Return the means over folds, of what any fold has."""
    table = pd.DataFrame(rows).astype("float64")
    return {str(name): float(value) for name, value in table.mean().dropna().items()}


def _preprocessing(params: Params, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the model's preprocessing, for its metadata."""
    return {
        "normalize": params.normalize.model_dump(mode="json"),
        "slice": params.slice.model_dump(mode="json"),
        "input_size": params.model.input_size,
        "lineage": facts["id"],
    }


def _tags(facts: dict[str, Any], *, leaky: bool) -> dict[str, str]:
    return {
        LEAKY: str(leaky).lower(),
        "adpet.data": facts["data"],
        "adpet.split": facts["split"],
        "adpet.seed": str(facts["seed"]),
        "adpet.code": facts["code"],
        "adpet.versions": ", ".join(f"{package} {number}" for package, number in facts["versions"].items()),
        "mlflow.source.git.commit": facts["commit"],
    }


def _subjects(split: pd.DataFrame, folds: list[fitting.FoldResult]) -> dict[str, Any]:
    """Return the hashed subjects that were trained and validated on."""
    tested = split["part"] == "test"
    trained = hashed(split.loc[~tested, "subject"])
    kept = ("trained_on", "validated_on", "best_epoch")
    return {
        "trained_on": trained,
        "validated_on": trained if folds else hashed(split.loc[tested, "subject"]),
        "folds": [{key: fold[key] for key in kept} for fold in folds],
    }


def _example(params: Params) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the template's own slices, (n, height, width, channels)."""
    grid_mm = params.normalize.grid_mm
    template = fdg_template(grid_mm)
    ratio = to_suvr(template.data, reference_mask(params.normalize.reference, grid_mm))
    planes = network_slices(ratio, template.affine, coronal_grid(params))
    return to_uint8(planes, window=params.slice.window)
