"""Train MobileNetV2 with the best trial's hyperparameters; log the run.

With a cross-validation the network that the validation fold has validated is not the final one: another is
trained as it was, on all training subjects. The validated one says how long, and where the threshold lies.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.splits import fold_name, read_split
from adpet.contracts import TrainingRun, write_contract
from adpet.imaging.normalization import to_suvr, to_uint8
from adpet.imaging.slices import coronal_slices
from adpet.imaging.template import fdg_template, reference_mask
from adpet.learning.checkpoint import save_model
from adpet.learning.training import History, predict, set_determinism
from adpet.params import Params
from adpet.reporting.style import save_figure
from adpet.reporting.training_figures import learning_curves_figure
from adpet.stages.common.checks import hashed
from adpet.stages.common.fitting import all_training, fit, history_table, slice_refs, training_and_validation
from adpet.stages.common.tables import VALIDATION_COLUMNS, write_table
from adpet.stages.common.tracking import log_data, stage_lineage
from adpet.stages.slice import coronal_grid
from adpet.storage import read_json, work_dir
from adpet.tracking.runs import RunHandle, open_run
from adpet.tracking.sync import start_tracking
from adpet.tracking.ui_notes import run_name

if TYPE_CHECKING:
    import keras

# Everything that the trained weights follow from.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    **dict.fromkeys(("seed", "cohort", "normalize", "slice", "split", "model", "augment", "train"), True),
}

# A refitted model says how its epochs and its threshold were found.
REFITTED = (
    "trained on all training subjects; the number of epochs, and the threshold of its version, were chosen "
    "on the validation fold for a network that was trained without that fold"
)


def run(params: Params) -> None:
    """Write model, history, ``validation.csv`` and ``run.json``; log to MLflow."""
    params = params.with_values(read_json(paths.BEST_TRIAL))
    set_determinism(params.seed, params.compute.threads)
    split, split_summary = read_split(paths.SPLIT), read_json(paths.SPLIT_SUMMARY)
    facts = stage_lineage("train", params, _settings(params), split_hash=split_summary["hash"])
    start_tracking(Path.cwd(), experiment=params.tracking.experiment)
    with (
        work_dir("train", facts) as work,
        open_run(
            lineage=facts["id"],
            kind="train",
            name=run_name("training", facts["id"]),
            tags=_tags(facts, leaky=split_summary["leaky"], refits=params.refits()),
            params=params.flat(),
        ) as tracked,
    ):
        log_data(tracked, facts, split)
        model, history = _validated(split, params, work, tracked)
        if params.refits():
            model = _refitted(split, params, work, tracked, epochs=history.best_epoch + 1)
        save_model(model, paths.MODEL)
        _write(history, {"lineage": facts, "leaky": split_summary["leaky"], **_whom(split, params)})
        tracked.log_metrics({f"final.{name}": value for name, value in history.final.items()})
        for path in (paths.CURVES, paths.HISTORY):
            tracked.log_artifact(path, "train")
        tracked.log_model(model, signature_example=_example(params), metadata=_preprocessing(params, facts))


def _preprocessing(params: Params, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the model's preprocessing, for its metadata."""
    return {
        "normalize": params.normalize.model_dump(mode="json"),
        "slice": params.slice.model_dump(mode="json"),
        "input_size": params.model.input_size,
        "lineage": facts["id"],
    } | ({"training": REFITTED} if params.refits() else {})


def _settings(params: Params) -> dict[str, Any]:
    """Return the parameters that the weights follow from."""
    wanted = SETTINGS | ({"evaluate": {"cross_validation"}} if params.refits() else {})
    return params.model_dump(include=wanted, mode="json")


def _validated(
    split: pd.DataFrame, params: Params, work: Path, tracked: RunHandle
) -> tuple["keras.Model", History]:
    """Train with the validation fold held out; predict that fold."""
    training, validation = training_and_validation(split, params, fold=params.split.validation_fold)
    model, history = fit(
        params,
        training,
        validation,
        epochs=params.train.epochs,
        checkpoint=work / "checkpoint.npz",
        label="train",
        on_epoch=tracked.log_metrics,
    )
    # Without folds the tested validate, as in 2019: what is chosen after the training is not chosen on them.
    rows = split[split["part"] == fold_name(params.split.validation_fold)].assign(probability=np.nan)
    if len(rows):
        rows["probability"] = predict(model, slice_refs(rows), batch_size=params.train.batch_size)
    write_table(rows[list(VALIDATION_COLUMNS)], paths.VALIDATION)
    return model, history


def _refitted(
    split: pd.DataFrame, params: Params, work: Path, tracked: RunHandle, *, epochs: int
) -> "keras.Model":
    """Retrain on all training subjects, up to the best epoch.

    It goes the same way and stops there: on a schedule that fell to 0 within these epochs the learning rates
    would be others than those that led to the epoch that was chosen.
    """
    return fit(
        params,
        all_training(split, params),
        [],
        epochs=params.train.epochs,
        stop_after=epochs,
        checkpoint=work / "refit.npz",
        label="refit",
        on_epoch=lambda row, epoch: tracked.log_metrics({f"refit.{key}": row[key] for key in row}, epoch),
    )[0]


def _tags(facts: dict[str, Any], *, leaky: bool, refits: bool) -> dict[str, str]:
    return {
        "adpet.leaky": str(leaky).lower(),
        "adpet.refit": str(refits).lower(),
        "adpet.data": facts["data"],
        "adpet.split": facts["split"],
        "adpet.seed": str(facts["seed"]),
        "adpet.code": facts["code"],
        "adpet.versions": ", ".join(f"{package} {number}" for package, number in facts["versions"].items()),
        "mlflow.source.git.commit": facts["commit"],
    }


def _whom(split: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Return the hashed subjects that were trained and validated on."""
    tested = split["part"] == "test"
    validated = split["part"] == fold_name(params.split.validation_fold) if params.split.folds else tested
    first = hashed(split.loc[~validated & ~tested, "subject"])
    return {
        "trained_on": hashed(split.loc[~tested, "subject"]) if params.refits() else first,
        "validated_on": hashed(split.loc[validated, "subject"]),
        "before_refit": {"trained_on": first} if params.refits() else None,
    }


def _write(history: History, run_facts: dict[str, Any]) -> None:
    write_table(history_table(history), paths.HISTORY, float_format=None)
    rows = [{"epoch": epoch} | row for epoch, row in enumerate(history.rows)]
    save_figure(learning_curves_figure(rows, best_epoch=history.best_epoch), paths.CURVES)
    document = {**run_facts, "best_epoch": history.best_epoch, "final": history.final}
    write_contract(paths.RUN, document, TrainingRun)


def _example(params: Params) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the template's own slices, (n, height, width, 1)."""
    grid_mm = params.normalize.grid_mm
    template = fdg_template(grid_mm)
    ratio = to_suvr(template.data, reference_mask(params.normalize.reference, grid_mm))
    planes = coronal_slices(ratio, template.affine, coronal_grid(params))
    return to_uint8(planes, window=params.slice.window)[..., np.newaxis]
