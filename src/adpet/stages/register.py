"""Register the exported model as a version with alias ``challenger``."""

from pathlib import Path

from adpet import paths
from adpet.contracts import (
    EvaluationDocument,
    ExternalDocument,
    LeakageDocument,
    LeakageTest,
    TrainingRun,
    read_contract,
)
from adpet.errors import InputError
from adpet.evaluation.promotion import Evidence
from adpet.params import Params
from adpet.reporting.model_card import shortened
from adpet.stages.common.checks import hashed, require_evaluation_of
from adpet.stages.common.tables import read_results
from adpet.storage import write_json
from adpet.tracking import registry
from adpet.tracking.lineage import FOLDER
from adpet.tracking.models import log_served
from adpet.tracking.registry import describe_run, log_evidence, origin_of, register_version
from adpet.tracking.runs import append_to_run
from adpet.tracking.sync import shared_run, start_tracking
from adpet.tracking.ui_notes import Origin
from adpet.tracking.validation import validation_tag


def run(params: Params) -> None:
    """Create or find the run's version; write ``version.json``."""
    metrics = read_contract(paths.EVALUATION, EvaluationDocument)
    trained = read_contract(paths.RUN, TrainingRun)
    leakage = read_contract(paths.LEAKAGE, LeakageDocument).leakage
    lineage = trained.lineage
    require_evaluation_of(lineage.id)
    if leakage.split != lineage.split:
        raise InputError(
            f"{paths.LEAKAGE}: required the leakage test of the split {lineage.split[:16]}; received that of "
            f"{leakage.split[:16]}; run: dvc repro leakage"
        )
    validation = read_contract(paths.EXTERNAL, ExternalDocument).validation
    if validation and validation.lineage != lineage.id:
        raise InputError(
            f"{paths.EXTERNAL}: required the validation of training {lineage.id}; received that of "
            f"{validation.lineage}; run: dvc repro external"
        )
    start_tracking(Path.cwd(), experiment=params.tracking.experiment, required=True)
    run_id, evidence = _delivered(leakage, _evidence(trained, leakage, metrics), lineage.id)
    origin = origin_of(run_id, lineage.document())
    beaten = [name for name, lead in metrics.differences.items() if lead.auc.low > 0]
    version = register_version(
        run_id=run_id,
        model_id=log_served(run_id, paths.EXPORT),
        model_name=params.tracking.model_name,
        tags={
            "adpet.lineage": lineage.id,
            "adpet.leaky": str(trained.leaky).lower(),
            "adpet.aggregation": params.evaluate.aggregation,
            "adpet.threshold": f"{metrics.threshold:.6f}",
            "adpet.commit": lineage.commit,
            "adpet.data": lineage.data,
            registry.LEAKAGE: leakage.verdict,
            **evidence,
            **(validation_tag(validation.document()) if validation else {}),
            # Tags to filter versions by.
            "adpet.test_subjects": str(metrics.counts.subjects),
            "adpet.beats": ", ".join(beaten) or "none",
            "adpet.use": "research only",
        },
        metrics=metrics.logged(),
        description=_description(origin, metrics),
    )
    describe_run(str(run_id), origin, model_name=params.tracking.model_name)
    write_json(
        paths.VERSION,
        {
            "name": params.tracking.model_name,
            "version": version,
            "alias": "challenger",
            "lineage": lineage.id,
            "leaky": trained.leaky,
            "leakage": leakage.verdict,
        },
    )


def _evidence(trained: TrainingRun, leakage: LeakageTest, metrics: EvaluationDocument) -> Evidence:
    """Return what a decision needs: subjects, by hash, and probabilities."""
    subjects = read_results(paths.SUBJECTS)
    return Evidence.of(
        subjects.assign(subject=[hashed([subject])[0] for subject in subjects["subject"]]),
        trained=trained,
        leakage=leakage,
        metrics=metrics,
    )


def _delivered(
    leakage: LeakageTest, evidence: Evidence, lineage_id: str
) -> tuple[str | None, dict[str, str]]:
    """Complete the training's run; return its id and evidence."""
    with append_to_run(lineage_id) as tracked:
        tracked.log_metrics({"leakage_gap": leakage.gap["true_labels"].value})
        tracked.set_tags({registry.LEAKAGE: leakage.verdict})
        for path in (paths.LEAKAGE, paths.LEAKAGE_FIGURE):
            tracked.log_artifact(path, "leakage")
        tracked.log_artifact(paths.RUN, FOLDER)
        tag = log_evidence(tracked, evidence)
    return shared_run(lineage_id), tag


def _description(origin: Origin, metrics: EvaluationDocument) -> str:
    """Return AUC, origin and as much model card as fits."""
    auc = metrics.subject.auc
    first = f"AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}). {origin.of_version()}\n\n"
    try:
        card = paths.MODEL_CARD.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{paths.MODEL_CARD}: required, but not there; run: dvc repro report") from error
    return first + shortened(card, most=registry.DESCRIPTION_LIMIT - len(first))
