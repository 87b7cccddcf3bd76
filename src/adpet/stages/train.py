"""Train MobileNetV2 with the best trial's hyperparameters, and log the run with its model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adpet.artifacts import (
    BEST_TRIAL,
    CURVES,
    HISTORY,
    MODEL,
    RUN,
    SPLIT,
    SPLIT_SUMMARY,
    read_json,
    resumable,
    write_json,
    written_aside,
)
from adpet.cohort.splits import read_split
from adpet.evidence.drawing import save_figure
from adpet.evidence.training_figures import learning_curves_figure
from adpet.imaging.coronal import coronal_slices
from adpet.imaging.intensity import ratio_to_reference, to_uint8
from adpet.imaging.template import fdg_template, reference_mask
from adpet.learning.saving import save_model
from adpet.learning.training import History, set_determinism
from adpet.params import Params
from adpet.stages.fitting import fit, hashed, history_table, training_and_validation
from adpet.stages.slice import coronal_grid
from adpet.tracking.lineage import lineage
from adpet.tracking.runs import open_run
from adpet.tracking.store import connect

# Everything that the trained weights follow from.
SETTINGS: dict[str, Any] = {
    "compute": {"threads"},
    **dict.fromkeys(("seed", "cohort", "standardize", "slice", "split", "model", "augment", "train"), True),
}


def run(params: Params) -> None:
    """Write the model, its history and ``run.json``; log the training as one MLflow run."""
    params = params.with_values(read_json(BEST_TRIAL))
    set_determinism(params.seed, params.compute.threads)
    split = read_split(SPLIT)
    split_summary = read_json(SPLIT_SUMMARY)
    facts = lineage(
        params=params.model_dump(include=SETTINGS, mode="json"),
        raw=params.cohort.raw,
        split_hash=split_summary["hash"],
        seed=params.seed,
    )
    connect(Path.cwd(), **params.tracking.connection)
    with (
        resumable("train", facts) as work,
        open_run(
            lineage=facts["id"],
            kind="train",
            name=f"MobileNetV2 {params.model.alpha} {params.model.feature_layer}",
            tags=_tags(facts, leaky=split_summary["leaky"]),
            params=params.flat(),
            reopen=True,
        ) as tracked,
    ):
        tracked.log_dataset(name=params.cohort.raw, digest=facts["data"], source=params.cohort.raw)
        training, validation = training_and_validation(split, params, fold=params.split.validation_fold)
        model, history = fit(
            params,
            training,
            validation,
            checkpoint=work / "checkpoint.npz",
            label="train",
            log=tracked.log_metrics,
        )
        save_model(model, MODEL)
        _write(history, {"lineage": facts, "leaky": split_summary["leaky"], **_whom(split, params)})
        tracked.log_metrics({f"final.{name}": value for name, value in history.final.items()})
        for path in (CURVES, HISTORY):
            tracked.log_artifact(path, "train")
        tracked.log_model(model, signature_example=_example(params), metadata=preprocessing(params, facts))


def preprocessing(params: Params, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what turns a scan into this network's input and its output into an answer."""
    return {
        "standardize": params.standardize.model_dump(mode="json"),
        "slice": params.slice.model_dump(mode="json"),
        "input_size": params.model.input_size,
        "lineage": facts["id"],
    }


def _tags(facts: dict[str, Any], *, leaky: bool) -> dict[str, str]:
    versions = {f"adpet.version.{package}": version for package, version in facts["versions"].items()}
    return {
        "adpet.leaky": str(leaky).lower(),
        "adpet.data": facts["data"],
        "adpet.split": facts["split"],
        "adpet.seed": str(facts["seed"]),
        "adpet.code": facts["code"],
        "mlflow.source.git.commit": facts["commit"],
        **versions,
    }


def _whom(split: pd.DataFrame, params: Params) -> dict[str, list[str]]:
    """Return, hashed, whom the network was fitted to and whom its best epoch was chosen on."""
    validation_part = f"fold-{params.split.validation_fold}" if params.split.folds else "test"
    validated = split["part"] == validation_part
    trained = ~validated & (split["part"] != "test")
    return {
        "trained_on": hashed(split.loc[trained, "subject"]),
        "validated_on": hashed(split.loc[validated, "subject"]),
    }


def _write(history: History, run_facts: dict[str, Any]) -> None:
    rows = [{"epoch": epoch} | row for epoch, row in enumerate(history.rows)]
    with written_aside(HISTORY) as aside:
        history_table(history).to_csv(aside, index=False, lineterminator="\n")
    figure = learning_curves_figure(rows, best_epoch=history.best_epoch)
    save_figure(figure, CURVES)
    write_json(RUN, {**run_facts, "best_epoch": history.best_epoch, "final": history.final})


def _example(params: Params) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the template's own slices, (n, height, width, 1): an example that is nobody's brain."""
    grid_mm = params.standardize.grid_mm
    template = fdg_template(grid_mm)
    ratio = ratio_to_reference(template.data, reference_mask(params.standardize.reference, grid_mm))
    planes = coronal_slices(ratio, template.affine, coronal_grid(params))
    return to_uint8(planes, window=params.slice.window)[..., np.newaxis]
