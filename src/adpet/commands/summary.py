"""Say in a few lines how good the model is, where everything lies, and what comes next."""

from typing import Any

from adpet.artifacts import EVALUATE, EXPLAIN, METRICS, VERSION, read_json
from adpet.errors import InputError

FIGURES = (("ROC, confusion, probabilities", EVALUATE), ("class activation maps", EXPLAIN))


def run() -> str:
    """Return the summary of the results that lie in the workspace.

    Raises
    ------
    InputError
        Where the pipeline has not been run.
    """
    for path in (METRICS, VERSION):
        if not path.exists():
            raise InputError(f"{path}: required, but not there; run: dvc repro")
    metrics, version = read_json(METRICS), read_json(VERSION)
    return "\n".join(
        [
            "",
            f"AUC per subject   {_interval(metrics['subject']['auc'])} on "
            f"{metrics['counts']['subjects']} held-out subjects",
            f"accuracy          {_interval(metrics['subject']['accuracy'])}",
            f"linear baseline   {_interval(metrics['baselines']['voxels']['auc'])} (AUC, same subjects)",
            *(
                [
                    "LEAKY             subjects stand on both sides of this split: these figures are not a result"
                ]
                if metrics["leakage"]["leaky"]
                else []
            ),
            f"model             {version['name']} version {version['version']}, "
            f"alias challenger, lineage {version['lineage']}",
            *(f"{label}: {folder}/" for label, folder in FIGURES),
            "",
            "next: make ui                       browse runs and models",
            "      adpet promote                 make this version the champion",
            "      adpet predict SCAN.nii.gz     ask the champion about one scan",
            "      dvc exp run -S train.epochs=30   try something else",
            "(the commands need the environment: . .venv/bin/activate)",
        ]
    )


def _interval(metric: dict[str, Any]) -> str:
    return f"{metric['value']:.3f} (95 % interval {metric['low']:.3f} to {metric['high']:.3f})"
