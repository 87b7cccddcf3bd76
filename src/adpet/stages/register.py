"""Register the trained model as a version with the alias ``challenger``."""

import json
from pathlib import Path
from typing import Any

from adpet.artifacts import (
    AUDIT,
    AUDIT_FIGURE,
    FINDINGS,
    METRICS,
    POSITION_WEIGHTS,
    RUN,
    VERSION,
    read_json,
    write_json,
)
from adpet.params import Params, flatten
from adpet.tracking import registry
from adpet.tracking.registry import register_version
from adpet.tracking.runs import append_to_run, find_run
from adpet.tracking.store import connect


def run(params: Params) -> None:
    """Create the version, or find the one that this run has already, and write ``version.json``."""
    metrics, trained = read_json(METRICS), read_json(RUN)
    audit = read_json(AUDIT)["leakage"]["audit"]
    lineage = trained["lineage"]
    connect(Path.cwd(), experiment=params.tracking.experiment)
    run_id = find_run(lineage["id"], "train")
    _log(audit, run_id)
    version = register_version(
        run_id=run_id,
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
        },
        metrics=_headline(metrics),
        description=_description(metrics, read_json(FINDINGS), leaky=trained["leaky"]),
    )
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


def _weights(params: Params) -> dict[str, str]:
    """Return the tag by which a learned aggregation reaches `predict`."""
    if params.evaluate.aggregation != "position_weights":
        return {}
    return {"adpet.position_weights": json.dumps(read_json(POSITION_WEIGHTS)["weights"])}


def _log(audit: dict[str, Any], run_id: str | None) -> None:
    """Add the audit to the training's run: here, since the audit itself does not follow from a training."""
    numbers = {key: value for key, value in flatten(audit).items() if not isinstance(value, str)}
    with append_to_run(run_id) as tracked:
        tracked.log_metrics({f"audit.{key}": value for key, value in numbers.items()})
        tracked.set_tags({registry.AUDIT: audit["verdict"]})
        for path in (AUDIT, AUDIT_FIGURE):
            tracked.log_artifact(path, "audit")


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the figures that a version is told apart by."""
    subject = metrics["subject"]
    headline = {f"subject.{name}": subject[name]["value"] for name in subject if name != "confusion"}
    headline |= {f"subject.auc.{end}": subject["auc"][end] for end in ("low", "high")}
    for name, baseline in metrics["baselines"].items():
        headline[f"baselines.{name}.auc"] = baseline["auc"]["value"]
    return headline


def _description(metrics: dict[str, Any], found: dict[str, list[str]], *, leaky: bool) -> str:
    auc, counts = metrics["subject"]["auc"], metrics["counts"]
    warning = "LEAKY: subjects stand on both sides of the split; not a result. " if leaky else ""
    doubts = "".join(f"{sentence}. " for sentence in [*found["warnings"], *found["not_beaten"]])
    return (
        f"{warning}{doubts}AUC per subject {auc['value']:.3f} "
        f"(95 % interval {auc['low']:.3f} to {auc['high']:.3f}) "
        f"on {counts['subjects']} test subjects. Research use only, not a medical device."
    )
