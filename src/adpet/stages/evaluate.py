"""Score the held-out test subjects, with a linear baseline on the same subjects beside the network."""

from pathlib import Path
from typing import Any

import pandas as pd

from adpet.artifacts import (
    EVALUATE,
    METRICS,
    MODEL,
    PREDICTIONS,
    RUN,
    SCANS,
    SPLIT,
    VOLUMES,
    read_json,
    write_json,
    written_aside,
)
from adpet.cohort.scans import read_scans
from adpet.cohort.splits import read_split
from adpet.evidence.baselines import baseline_predictions, voxel_features
from adpet.evidence.curves import roc_band, roc_curves
from adpet.evidence.drawing import save_figure
from adpet.evidence.figures import confusion_figure, probability_figure, roc_figure
from adpet.evidence.metrics import evaluation, subject_probabilities
from adpet.imaging.template import brain_mask
from adpet.imaging.volume import read_volume
from adpet.learning.saving import load_model
from adpet.learning.training import predict, set_determinism
from adpet.params import Params, flatten
from adpet.stages.fitting import hashed, refuse_trained_on, slice_refs
from adpet.tracking.runs import append_to_run, find_run
from adpet.tracking.store import connect
from adpet.workers import progress

# Edge of the cubes, in mm, that the linear baseline averages voxels over.
BASELINE_BLOCK_MM = 9.0


def run(params: Params) -> None:
    """Write predictions, ``metrics.json`` and figures, and add them to the training's MLflow run."""
    trained = read_json(RUN)
    split = read_split(SPLIT)
    leaky = trained["leaky"]
    # Without folds there is nobody to choose a threshold on but the tested: it stays 0.5, as in 2019.
    validation_part = f"fold-{params.split.validation_fold}" if params.split.folds else None
    scored = split[split["part"].isin(["test", validation_part])]
    if not leaky:
        refuse_trained_on(trained["trained_on"], hashed(scored["subject"]))
    predictions = _predictions(scored, params)
    metrics = {
        **_evaluation(
            predictions[predictions["part"] == "test"],
            predictions[predictions["part"] == validation_part],
            params,
            leaky=leaky,
        ),
        "baselines": {} if leaky else {"voxels": _baseline(split, params)},
        "leakage": {"leaky": int(leaky)},
    }
    with written_aside(PREDICTIONS) as aside:
        predictions.to_csv(aside, index=False, lineterminator="\n", float_format="%.9g")
    _draw(predictions[predictions["part"] == "test"], metrics, params)
    write_json(METRICS, metrics)
    _log(metrics, trained["lineage"]["id"], params)


def _predictions(scored: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Return the network's probability for every slice of the rows of `scored`."""
    set_determinism(params.seed, params.compute.threads)
    probability = predict(load_model(MODEL), slice_refs(scored), batch_size=params.train.batch_size)
    sessions = read_scans(SCANS).set_index("scan")["session"]
    return scored.assign(session=scored["scan"].map(sessions), probability=probability)


def _evaluation(
    test: pd.DataFrame, validation: pd.DataFrame, params: Params, *, leaky: bool = False
) -> dict[str, Any]:
    return evaluation(
        test,
        validation,
        aggregation=params.evaluate.aggregation,
        seed=params.seed,
        resamples=params.evaluate.resamples,
        allow_shared_subjects=leaky,
    )


def _baseline(split: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Return the metrics per subject of a linear model on voxels, fitted on all training subjects."""
    scans = split.drop_duplicates("scan")[["scan", "subject", "diagnosis", "part"]]
    sessions = read_scans(SCANS).set_index("scan")["session"]
    scans = scans.assign(session=scans["scan"].map(sessions)).reset_index(drop=True)
    volumes = (read_volume(VOLUMES / f"{scan}.nii").data for scan in scans["scan"])
    grid_mm = params.standardize.grid_mm
    features = voxel_features(
        progress(volumes, label="baseline", unit="scan", total=len(scans)),
        brain_mask(grid_mm),
        block=max(1, round(BASELINE_BLOCK_MM / grid_mm)),
    )
    training = (scans["part"] != "test").to_numpy()
    test, out_of_fold = baseline_predictions(features, scans, training=training)
    result: dict[str, Any] = _evaluation(test, out_of_fold, params)["subject"]
    return result


def _draw(test: pd.DataFrame, metrics: dict[str, Any], params: Params) -> None:
    aggregation = params.evaluate.aggregation
    curves = roc_curves(test, aggregation=aggregation)
    band = roc_band(test, aggregation=aggregation, seed=params.seed, resamples=params.evaluate.resamples)
    subjects = subject_probabilities(test, aggregation=aggregation)
    save_figure(roc_figure(curves, band, metrics=metrics), EVALUATE / "roc.png")
    save_figure(confusion_figure(metrics), EVALUATE / "confusion.png")
    save_figure(probability_figure(subjects, threshold=metrics["threshold"]), EVALUATE / "probabilities.png")


def _log(metrics: dict[str, Any], lineage_id: str, params: Params) -> None:
    connect(Path.cwd(), experiment=params.tracking.experiment)
    with append_to_run(find_run(lineage_id, "train")) as tracked:
        tracked.log_metrics({f"test.{key}": value for key, value in flatten(metrics).items()})
        for path in (METRICS, *sorted(EVALUATE.glob("*.png"))):
            tracked.log_artifact(path, "evaluate")
