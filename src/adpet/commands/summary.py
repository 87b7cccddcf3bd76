"""Summary of the results, and the next commands."""

from typing import Any

from adpet import paths
from adpet.contracts import Estimate, LeakageDocument, LeakageTest, Metrics, read_contract
from adpet.storage import read_json

NEXT = (
    "next:  . .venv/bin/activate             the commands below live there",
    "       adpet ui                         browse runs and models",
    "       adpet promote {version:<19}make this version the champion",
    "       adpet predict SCAN.nii.gz        ask the champion about one scan",
    "       dvc exp run -S train.epochs=30   try something else",
)

SHOWN = (
    "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", "log_loss",
    "calibration_slope",
)  # fmt: skip


def main() -> str:
    """Return the summary of the project's results."""
    metrics = read_contract(paths.METRICS, Metrics)
    found, version = read_json(paths.FINDINGS), read_json(paths.VERSION)
    test = read_contract(paths.LEAKAGE, LeakageDocument).leakage
    leak = ("LEAKY", "subjects stand on both sides of this split: these figures are no result")
    rows = [
        *([leak] if metrics.leakage.leaky else []),
        *(("WARNING", sentence) for sentence in found["warnings"]),
        *(("NOT BETTER", sentence) for sentence in found["not_beaten"]),
        *_facts(metrics, version, test),
        *(("", sentence) for sentence in (*found["beaten"], *found["limits"])),
    ]
    lines = [f"{name:<19}{text}" for name, text in rows]
    following = [line.format(version=version["version"]) for line in NEXT]
    return "\n".join(["", *lines, "", *following])


def _facts(metrics: Metrics, version: dict[str, Any], test: LeakageTest) -> list[tuple[str, str]]:
    subject = metrics.subject
    return [
        ("AUC per subject", f"{_interval(subject.auc)} on {metrics.counts.subjects} held-out subjects"),
        *((name.replace("_", " "), _interval(getattr(subject, name))) for name in SHOWN),
        *_cross_validation(),
        *(
            (f"baseline: {name}", f"{_interval(baseline.auc)} AUC, same subjects")
            for name, baseline in metrics.baselines.items()
        ),
        *([("ceiling", f"{_interval(metrics.oracle.auc)} AUC, true severity")] if metrics.oracle else []),
        ("leakage test", f"{test.verdict}: {test.reason}"),
        ("a slice split", f"accuracy {_points(test, 'true_labels')}, {_points(test, 'shuffled_labels')}"),
        ("model", f"{version['name']} version {version['version']}, alias {version['alias']}"),
        ("lineage", version["lineage"]),
        ("report", str(paths.REPORT)),
        ("figures", f"{paths.EVALUATE}/ and {paths.EXPLAIN}/"),
    ]


def _cross_validation() -> list[tuple[str, str]]:
    """Return the pooled AUC, and that outside the search."""
    if not paths.CROSS_VALIDATION_SUMMARY.exists():
        return []
    summary = read_json(paths.CROSS_VALIDATION_SUMMARY)
    if not summary["folds"]:
        return []
    spread, counts = summary["spread"]["auc"], summary["counts"]
    pooled = (
        f"{_interval(Estimate(**summary['pooled']['auc']))} AUC, {counts['subjects']} subjects in "
        f"{summary['folds']} folds of {spread['low']:.3f} to {spread['high']:.3f}"
    )
    lines = [("cross-validation", pooled)]
    if "unsearched" in summary:
        rest = counts["subjects"] - counts["searched"]
        auc = _interval(Estimate(**summary["unsearched"]["auc"]))
        lines.append(("", f"{auc} AUC on the {rest} that the search has not seen"))
    return lines


def _interval(metric: Estimate) -> str:
    return f"{metric.value:.3f} (95 % interval {metric.low:.3f} to {metric.high:.3f})"


def _points(test: LeakageTest, labels: str) -> str:
    return f"{100 * test.gap[labels].value:+.0f} points with {labels.replace('_', ' ')}"
