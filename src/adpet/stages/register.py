"""Register the exported model as a version with alias ``challenger``."""

import json
from pathlib import Path
from typing import Any

from adpet.errors import InputError
from adpet.evaluation.promotion import Evidence
from adpet.params import Params, flatten
from adpet.paths import (
    AUDIT,
    EXPORT,
    LEAKAGE_FIGURE,
    METRICS,
    MODEL_CARD,
    POSITION_WEIGHTS,
    RUN,
    SUBJECTS,
    VERSION,
)
from adpet.reporting.model_card import shortened
from adpet.stages.common.checks import hashed, require_evaluation_of
from adpet.stages.common.tables import read_results
from adpet.storage import read_json, write_json
from adpet.tracking import provenance, registry
from adpet.tracking.evidence import log_evidence
from adpet.tracking.pages import Origin
from adpet.tracking.registry import describe_run, origin_of, register_version
from adpet.tracking.runs import append_to_run, delivered_run
from adpet.tracking.served import log_served
from adpet.tracking.store import connect, current


def run(params: Params) -> None:
    """Create or find this run's version; write ``version.json``."""
    metrics, trained = read_json(METRICS), read_json(RUN)
    audit = read_json(AUDIT)["leakage"]["audit"]
    lineage = trained["lineage"]
    require_evaluation_of(lineage["id"])
    _require_audit_of(lineage["split"], audit)
    connect(Path.cwd(), **params.tracking.connection)
    run_id, evidence = _delivered(audit, _evidence(trained, audit, metrics), lineage["id"])
    origin = origin_of(run_id, lineage)
    version = register_version(
        run_id=run_id,
        model_id=log_served(run_id, EXPORT),
        model_name=params.tracking.model_name,
        tags={
            "adpet.lineage": lineage["id"],
            "adpet.leaky": str(trained["leaky"]).lower(),
            "adpet.aggregation": params.evaluate.aggregation,
            "adpet.threshold": f"{metrics['threshold']:.6f}",
            "adpet.commit": lineage["commit"],
            "adpet.data": lineage["data"],
            **_weights(params),
            registry.AUDIT: audit["verdict"],
            **evidence,
            **_whom(metrics),
        },
        metrics=_headline(metrics),
        description=_description(origin, metrics),
    )
    describe_run(str(run_id), origin, model_name=params.tracking.model_name)
    write_json(
        VERSION,
        {
            "name": params.tracking.model_name,
            "version": version,
            "alias": "challenger",
            "lineage": lineage["id"],
            "leaky": trained["leaky"],
            "audit": audit["verdict"],
        },
    )


def _require_audit_of(split_hash: str, audit: dict[str, Any]) -> None:
    """Require the leakage test of the training's split."""
    if audit.get("split") != split_hash:
        raise InputError(
            f"{AUDIT}: required the audit of the split {split_hash[:16]}, which the training has; received "
            f"that of {str(audit.get('split'))[:16]}; run: dvc repro leakage"
        )


def _weights(params: Params) -> dict[str, str]:
    """Return the tag by which a learned aggregation reaches `predict`."""
    if params.evaluate.aggregation != "position_weights":
        return {}
    return {"adpet.position_weights": json.dumps(read_json(POSITION_WEIGHTS)["weights"])}


def _evidence(trained: dict[str, Any], audit: dict[str, Any], metrics: dict[str, Any]) -> Evidence:
    """Return the version's evidence for a promotion, under hashed ids."""
    subjects = read_results(SUBJECTS)
    return Evidence.of(
        subjects.assign(subject=[hashed([subject])[0] for subject in subjects["subject"]]),
        known=[*trained["trained_on"], *trained["validated_on"]],
        leaky=trained["leaky"],
        audit=audit,
        metrics=metrics,
    )


def _delivered(
    audit: dict[str, Any], evidence: Evidence, lineage_id: str
) -> tuple[str | None, dict[str, str]]:
    """Add leakage test and evidence to the training's run.

    And the version's tag of the evidence. Here, since the audit itself does not follow from a training.
    """
    current()  # a version has a number that the registry gives: offline is refused here
    numbers = {key: value for key, value in flatten(audit).items() if not isinstance(value, str)}
    with append_to_run(lineage_id) as tracked:
        tracked.log_metrics({f"audit.{key}": value for key, value in numbers.items()})
        tracked.set_tags({registry.AUDIT: audit["verdict"]})
        for path in (AUDIT, LEAKAGE_FIGURE):
            tracked.log_artifact(path, "audit")
        tracked.log_artifact(RUN, provenance.FOLDER)
        tag = log_evidence(tracked, evidence)
    return delivered_run(lineage_id, "train"), tag


def _description(origin: Origin, metrics: dict[str, Any]) -> str:
    """Return the version's description: AUC, origin, and its model card."""
    auc = metrics["subject"]["auc"]
    how_good = f"AUC {auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})."
    first = f"{how_good} {origin.of_version()}\n\n"
    return first + shortened(_card(), most=registry.DESCRIPTION_LIMIT - len(first))


def _card() -> str:
    """Read the model card, which the report stage wrote."""
    try:
        return MODEL_CARD.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{MODEL_CARD}: required, but not there; run: dvc repro report") from error


def _whom(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the version's tags for search: test subjects and use."""
    beaten = [name for name, lead in metrics["differences"].items() if lead["low"] > 0]
    return {
        "adpet.test_subjects": str(metrics["counts"]["subjects"]),
        "adpet.beats": ", ".join(beaten) or "none",
        "adpet.use": "research only",
    }


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the figures that a version is told apart by."""
    subject = metrics["subject"]
    headline = {f"subject.{name}": subject[name]["value"] for name in subject if name != "confusion"}
    headline |= {f"subject.auc.{end}": subject["auc"][end] for end in ("low", "high")}
    for name, baseline in metrics["baselines"].items():
        headline[f"baselines.{name}.auc"] = baseline["auc"]["value"]
    for name, lead in metrics["differences"].items():
        headline |= {f"differences.{name}": lead["value"], f"differences.{name}.low": lead["low"]}
    return headline
