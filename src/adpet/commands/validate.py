"""External validation: score a model on another labelled collection."""

import argparse
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from adpet import paths
from adpet.cluster import clusters
from adpet.commands.doctor import add_collection_arguments
from adpet.commands.predict import opened, require_cluster
from adpet.contracts import ValidationDocument
from adpet.errors import InputError
from adpet.evaluation import metrics as scoring
from adpet.evaluation.aggregation import Pooling, out_of_fold_quantiles
from adpet.evaluation.bootstrap import subject_resamples
from adpet.evaluation.external import FOLDS, net_benefit, recalibrated
from adpet.inference.exported_model import DOCUMENT, ExportedModel
from adpet.params import Params, load_params
from adpet.reporting.external import External
from adpet.reporting.performance import leakage_sentence, prevalence_sentence
from adpet.stages import external
from adpet.stages.common.checks import hashed
from adpet.storage import atomic_write, write_json

OUTPUTS = {*external.TABLES, external.REPORT, external.VALIDATION, external.RECALIBRATED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model", help="an exported model's folder, models:/NAME/VERSION or models:/NAME@ALIAS"
    )
    parser.add_argument(
        "--cohort", type=Path, required=True, metavar="DIR", help="BIDS, ADNI or a flat folder"
    )
    parser.add_argument("--name", help="name of the collection in the results (default: its folder)")
    add_collection_arguments(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder of the results (default: validation_NAME)"
    )
    parser.add_argument(
        "--score-only",
        default="",
        metavar="DIAGNOSES",
        help="other diagnoses, such as MCI,FTD: scored and shown, but in no metric",
    )
    parser.add_argument(
        "--recalibrate",
        choices=["all", "cn"],
        help="also fit a new intercept, cross-fitted, to all subjects or to the CN alone",
    )
    parser.add_argument(
        "--other-people",
        action="store_true",
        help="the collection numbers its subjects as the training's did, and they are other people",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--cluster", help="where they run: as compute.cluster in params.yaml (docs/cluster.md)"
    )


def main(
    *,
    model: str,
    cohort: Path,
    name: str | None,
    layout: str,
    table: Path | None,
    diagnosis_table: Path | None,
    output: Path | None,
    score_only: str,
    recalibrate: Any,
    other_people: bool,
    workers: int,
    cluster: str | None,
) -> str:
    """Score the collection; write the results, return the summary."""
    require_cluster(workers, cluster)
    params = load_params() if paths.PARAMS.exists() else Params()
    params = params.with_values({"compute.workers": workers, "compute.cluster": cluster})
    name = external.collection_name(name or cohort.resolve().name)
    exported, output = opened(model), output or Path(f"validation_{name}")
    _require_own_folder(output, exported)
    if recalibrate == "cn" and not exported.document["out_of_fold"]:
        raise InputError(
            "--recalibrate cn: required a model with out-of-fold predictions; this one has none; use "
            "--recalibrate all"
        )
    with clusters:
        found = external.validate(
            cohort,
            exported,
            params,
            name=name,
            settings={"layout": layout, "table": table, "diagnosis_table": diagnosis_table},
            score_only=filter(None, map(str.strip, score_only.split(","))),
            other_people=other_people,
            least=FOLDS if recalibrate else 1,
        )
    if recalibrate:
        found = _recalibrate(found, exported, params, reference=recalibrate)
    _write(output, found, exported)
    if exported.name.startswith("models:/"):
        from adpet.tracking.validation import log_validation

        log_validation(
            found.document,
            output / external.VALIDATION,
            experiment=params.tracking.experiment,
            uri=exported.name,
        )
    return "\n".join(_summary(found, output))


def _require_own_folder(output: Path, model: ExportedModel) -> None:
    """Refuse to replace other things than an earlier validation."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: required a folder; received a file; name another with --output")
    if output.is_dir() and (others := {path.name for path in output.iterdir()} - OUTPUTS):
        raise InputError(
            f"{output}: required a new folder, or one of an earlier validation; received one with "
            f"{min(others)}; name another with --output"
        )
    if model.folder.is_relative_to(output.resolve()):
        raise InputError(f"{output}: required a folder apart from the model's; name another with --output")


def _recalibrate(found: External, model: ExportedModel, params: Params, *, reference: Any) -> External:
    """Add a new intercept, and the model with it."""
    folds = model.document["out_of_fold"]
    usual = folds["quantiles"]["CN"][folds["coverages"].index(0.5)] if reference == "cn" else None
    after, shift = recalibrated(found.subjects, usual_cn=usual, seed=params.seed)
    truth = (after["diagnosis"] == "AD").to_numpy()
    threshold = float(truth.mean()) if reference == "all" else model.document["threshold"]
    scores = scoring.level_intervals(
        truth,
        np.arange(truth.size),
        after["probability"].to_numpy(np.float64),
        threshold=threshold,
        counts=subject_resamples(truth, resamples=params.evaluate.resamples, seed=params.seed),
    )
    table = after.assign(scan=after["subject"], index=0, session="", part=external.EXTERNAL)
    out_of_fold = out_of_fold_quantiles(table, Pooling("mean_logit"))
    if out_of_fold and folds and reference == "cn":
        out_of_fold["prevalence"] = folds["prevalence"]
    pooling = model.document["aggregation"]
    changed = model.document | {
        "aggregation": pooling | {"intercept": round(pooling["intercept"] + shift, 9)},
        "out_of_fold": out_of_fold,
        "threshold": threshold,
        "calibration": scoring.calibration_bins(after),
        "performance": {"auc": found.document["evaluation"]["subject"]["auc"], "test_subjects": len(after)},
        "leaky": model.leaky,
    }
    confusion = scoring.confusion(after, threshold)
    recalibration: dict[str, Any] = {
        "reference": reference,
        "shift": shift,
        "threshold": threshold,
        "fitted_on": hashed(after["subject"]),
        "subject": {**scores, "confusion": confusion},
    }
    document = ValidationDocument.model_validate(found.document | {"recalibration": recalibration}).document()
    decisions = found.decisions.assign(
        recalibrated=net_benefit(truth, after["probability"].to_numpy(np.float64))
    )
    return replace(found, document=document, decisions=decisions, model_document=changed)


def _write(output: Path, found: External, model: ExportedModel) -> None:
    """Write the results' folder, whole or not at all."""
    with atomic_write(output) as folder:
        folder.mkdir()
        write_json(folder / external.VALIDATION, found.document)
        external.write_results(folder, found)
        if found.model_document:
            shutil.copytree(model.folder, folder / external.RECALIBRATED)
            write_json(folder / external.RECALIBRATED / DOCUMENT, found.model_document)


def _summary(found: External, output: Path) -> Iterator[str]:
    """Return the figures as lines of text."""
    document, metrics = found.document, found.document["evaluation"]
    subject, counts = metrics["subject"], metrics["counts"]

    def shown(metric: Mapping[str, float]) -> str:
        return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"

    yield (
        f"cohort     {document['cohort']}: {counts['subjects']} subjects ({counts['subjects_ad']} AD, "
        f"{counts['subjects_cn']} CN), {document['answered']} scans, {document['flagged']} of them flagged; "
        f"{document['refused']} refused, {document['unusable']} unusable, {document['skipped']} skipped"
    )
    if document["leaky"]:
        yield "LEAKY      this model was trained and tested on the same subjects: its own AUC is no result"
    yield f"leakage    {leakage_sentence(document)}"
    yield f"AUC        {shown(subject['auc'])}; on the model's own test subjects {shown(document['own_auc'])}"
    for name, baseline in metrics["baselines"].items():
        lead = metrics["differences"][name]["auc"]
        yield f"           {shown(baseline['auc'])} {name}; network minus it {shown(lead)}"
    yield (
        f"at {metrics['threshold']:.3f}   accuracy {shown(subject['accuracy'])}, sensitivity "
        f"{shown(subject['sensitivity'])}, specificity {shown(subject['specificity'])}"
    )
    yield (
        f"calibrated slope {shown(subject['calibration_slope'])}, intercept "
        f"{shown(subject['calibration_intercept'])}, Brier score {shown(subject['brier'])}"
    )
    if moved := prevalence_sentence(document):
        yield f"           {moved}"
    for diagnosis, group in document["score_only"].items():
        low, middle, high = group["quartiles"]
        yield (
            f"{diagnosis:<10} {group['subjects']} subjects, {group['predicted_ad']:.2f} of them predicted "
            f"AD; probability {middle:.3f} (quartiles {low:.3f} to {high:.3f})"
        )
    if document["recalibration"]:
        after, by = document["recalibration"]["subject"], document["recalibration"]["shift"]
        yield (
            f"shifted    by {by:+.3f}: intercept {shown(after['calibration_intercept'])}, Brier score "
            f"{shown(after['brier'])}, accuracy {shown(after['accuracy'])} at "
            f"{document['recalibration']['threshold']:.3f}; the model: "
            f"{output / external.RECALIBRATED}"
        )
    yield f"report     {output / 'report.html'}"
