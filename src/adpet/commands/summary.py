"""Say in a few lines how good the model is, where everything lies, and what comes next."""

from typing import Any

from adpet.artifacts import AUDIT, EVALUATE, EXPLAIN, METRICS, VERSION, read_json
from adpet.errors import InputError

NEXT = (
    "next:  . .venv/bin/activate             the commands below live there",
    "       adpet ui                         browse runs and models",
    "       adpet promote {version:<19}make this version the champion",
    "       adpet predict SCAN.nii.gz        ask the champion about one scan",
    "       dvc exp run -S train.epochs=30   try something else",
)


def run() -> str:
    """Return the summary of the results that lie in the workspace.

    Raises
    ------
    InputError
        Where the pipeline has not been run.
    """
    for path in (METRICS, VERSION, AUDIT):
        if not path.exists():
            raise InputError(f"{path}: required, but not there; run: dvc repro")
    metrics, version = read_json(METRICS), read_json(VERSION)
    audit = read_json(AUDIT)["leakage"]["audit"]
    subject, counts = metrics["subject"], metrics["counts"]
    facts = [
        ("AUC per subject", f"{_interval(subject['auc'])} on {counts['subjects']} held-out subjects"),
        ("accuracy", _interval(subject["accuracy"])),
        *(
            (f"baseline: {name}", f"{_interval(baseline['auc'])} AUC, same subjects")
            for name, baseline in metrics["baselines"].items()
        ),
        ("leakage audit", f"{audit['verdict']}: {audit['reason']}"),
        ("a slice split", f"accuracy {_points(audit, 'true_labels')}, {_points(audit, 'shuffled_labels')}"),
        ("model", f"{version['name']} version {version['version']}, alias {version['alias']}"),
        ("lineage", version["lineage"]),
        ("figures", f"{EVALUATE}/ and {EXPLAIN}/"),
    ]
    if metrics["leakage"]["leaky"]:
        facts.insert(0, ("LEAKY", "subjects stand on both sides of this split: these figures are no result"))
    lines = [f"{name:<18}{text}" for name, text in facts]
    following = [line.format(version=version["version"]) for line in NEXT]
    return "\n".join(["", *lines, "", *following])


def _interval(metric: dict[str, Any]) -> str:
    return f"{metric['value']:.3f} (95 % interval {metric['low']:.3f} to {metric['high']:.3f})"


def _points(audit: dict[str, Any], labels: str) -> str:
    return f"{100 * audit['gap'][labels]['value']:+.0f} points with {labels.replace('_', ' ')}"
