"""Write report and model card from the other stages' files."""

from pathlib import Path
from typing import Any

import numpy as np

from adpet import paths
from adpet.contracts import (
    Contract,
    EvaluationDocument,
    ExternalDocument,
    LeakageDocument,
    Saliency,
    TrainingRun,
    read_contract,
)
from adpet.evaluation.prognosis import baseline_subjects
from adpet.imaging.nifti import read_volume
from adpet.imaging.template import fdg_template
from adpet.learning import RISING
from adpet.learning.search import TrialRow, logarithmic, parameter_importance
from adpet.params import Params
from adpet.reporting.components import Documents, Evaluation, Maps, Search
from adpet.reporting.explainability import GROUP_MAPS
from adpet.reporting.model_card import model_card
from adpet.reporting.report import report_html
from adpet.reporting.training_figures import PARAMETER_PREFIX
from adpet.stages.common.checks import reads_simulated, search_space
from adpet.stages.common.tables import read_results
from adpet.stages.common.tracking import log_to_training
from adpet.storage import atomic_write, read_json


def run(params: Params) -> None:
    """Write ``report.html`` and ``MODEL_CARD.md``; log them to MLflow."""
    documents = _documents(params)
    for path, text in ((paths.REPORT, report_html(documents)), (paths.MODEL_CARD, model_card(documents))):
        with atomic_write(path) as aside:
            aside.write_text(text, encoding="utf-8")
    log_to_training(params, {"report": [paths.REPORT, paths.MODEL_CARD]})


def _documents(params: Params) -> Documents:
    """Read the report's documents; ingest to evaluate are required."""
    leakage = _read_if_there(paths.LEAKAGE, LeakageDocument)
    external = _read_if_there(paths.EXTERNAL, ExternalDocument)
    return Documents(
        metrics=read_contract(paths.EVALUATION, EvaluationDocument).document(),
        findings=read_json(paths.FINDINGS),
        evaluation=Evaluation(
            # Without their names: no figure needs them, and none can show them.
            subjects=read_results(paths.SUBJECTS).drop(columns="subject"),
            subgroups=read_results(paths.SUBGROUPS),
            roc=read_results(paths.ROC),
            roc_band=read_results(paths.ROC_BAND),
            precision_recall=read_results(paths.PRECISION_RECALL),
            calibration=read_results(paths.CALIBRATION),
        ),
        trained=read_contract(paths.RUN, TrainingRun).document(),
        history=read_results(paths.HISTORY),
        ingest=read_json(paths.INGEST),
        split=read_json(paths.SPLIT_SUMMARY),
        aggregation=params.evaluate.aggregation,
        is_simulated=reads_simulated(params),
        leakage=leakage and leakage["leakage"],
        cam=_read_if_there(paths.CAM, Saliency),
        maps=_maps(params),
        search=_search(params),
        cross_validation=read_json(paths.CROSS_VALIDATION_SUMMARY)
        if paths.CROSS_VALIDATION_SUMMARY.exists()
        else None,
        external=external and external["validation"],
        scored=read_json(paths.SCORED_GROUPS) if paths.SCORED_GROUPS.exists() else None,
        scored_subjects=baseline_subjects(read_results(paths.SCORES)).drop(columns="subject")
        if paths.SCORES.exists()
        else None,
    )


def _read_if_there(path: Path, model: type[Contract]) -> dict[str, Any] | None:
    return read_contract(path, model).document() if path.exists() else None


def _maps(params: Params) -> Maps | None:
    """Read the group maps and their tables, if any."""
    if not paths.CAM.exists():
        return None
    groups, sanity = paths.EXPLAIN / "groups", paths.EXPLAIN / "sanity"
    template = fdg_template(params.normalize.grid_mm)
    is_checked = (sanity / "cascade.csv").exists()
    return Maps(
        volumes={name: read_volume(groups / f"{name}.nii.gz").data for name in GROUP_MAPS},
        underlay=template.data,
        affine=template.affine,
        hide_below=params.explain.hide_below,
        regions=read_results(paths.EXPLAIN / "regions.csv"),
        cascade=read_results(sanity / "cascade.csv") if is_checked else None,
        curves=read_results(sanity / "curves.csv").drop(columns="scan") if is_checked else None,
    )


def _search(params: Params) -> Search | None:
    """Read the trials, and say how much each parameter explains."""
    if not params.tuned():
        return None
    trials = read_results(paths.TRIALS)
    columns = [name for name in trials.columns if name.startswith(PARAMETER_PREFIX)]
    rows = [
        TrialRow(
            number=int(row["number"]),
            state=row["state"],
            value=None if np.isnan(row["value"]) else float(row["value"]),
            params={name.removeprefix(PARAMETER_PREFIX): row[name] for name in columns},
        )
        for row in trials.to_dict("records")
    ]
    return Search(
        trials=trials,
        monitor=params.objective(),
        rising=params.objective() in RISING,
        importance=parameter_importance(rows, search_space(params), seed=params.seed),
        logarithmic=logarithmic(search_space(params)),
    )
