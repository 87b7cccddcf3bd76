"""Summary of the results, and the next commands."""

from collections.abc import Iterable
from pathlib import Path

from adpet import paths
from adpet.commands.promote import rule_of
from adpet.contracts import Estimate, LeakageDocument, LeakageTest, Metrics, read_contract
from adpet.errors import AdpetError
from adpet.evaluation.comparison import BASELINES
from adpet.params import load_params
from adpet.storage import read_json
from adpet.tracking.promotion import promote
from adpet.tracking.store import connect

NEXT = (
    "next        . .venv/bin/activate             the commands below live there",
    "            adpet ui                         browse runs and models",
    "            adpet predict SCAN.nii.gz        ask the champion about one scan",
    "            dvc exp run -S train.epochs=30   try something else",
)
LEAK = "LEAKY: subjects stand on both sides of this split: these figures are no result"
SCORES = ("auc", "accuracy", "brier")
# Widths of the table's columns: name, three scores, and the AUC that the network has more.
ROW = "{:<24}{:<25}{:<25}{:<25}{}"


def main() -> str:
    """Return the summary of the project's results."""
    metrics = read_contract(paths.EVALUATION, Metrics)
    found, version = read_json(paths.FINDINGS), read_json(paths.VERSION)
    test = read_contract(paths.LEAKAGE, LeakageDocument).leakage
    counts, subject = metrics.counts, metrics.subject
    facts = {
        **_standing(metrics),
        "threshold": f"{metrics.threshold:.3f}: sensitivity {_interval(subject.sensitivity)}, "
        f"specificity {_interval(subject.specificity)}",
        "calibration": f"slope {_interval(subject.calibration_slope)}; 1 is calibrated",
        **_cross_validation(),
        "leakage": f"{test.verdict}: {test.reason}",
        "by slice": f"a split by slice seems more accurate: {_points(test)}",
        "promotion": _promotion(version["version"]),
        "report": str(paths.REPORT),
    }
    title = (
        f"{version['name']} version {version['version']} ({version['alias']}), tested on {counts.subjects} "
        f"subjects that it has not seen ({counts.subjects_ad} AD, {counts.subjects_cn} CN); 95 % intervals"
    )
    lines = [
        *([LEAK, ""] if metrics.leakage.leaky else []),
        title,
        "",
        *_table(metrics),
        "",
        *(f"{name:<12}{text}" for name, text in facts.items()),
        *(f"{'WARNING':<12}{sentence}" for sentence in found["warnings"]),
        *(f"{'limit':<12}{sentence}" for sentence in found["limits"]),
        "",
        *NEXT,
    ]
    return "\n".join(["", *lines])


def _table(metrics: Metrics) -> list[str]:
    """Compare the network with every baseline, a line each."""

    def row(name: str, scores: Iterable[Estimate], lead: str = "") -> str:
        return ROW.format(name, *map(_interval, scores), lead).rstrip()

    ceiling = metrics.oracle.auc if metrics.oracle else None
    return [
        ROW.format("", "AUC", "accuracy", "Brier score", "AUC, network minus it"),
        row("network", (getattr(metrics.subject, score) for score in SCORES)),
        *(
            row(
                BASELINES[name],
                (getattr(metrics.baselines[name], score) for score in SCORES),
                _interval(differences.auc, "+z.3f"),
            )
            for name, differences in metrics.differences.items()
        ),
        *([f"{'ceiling (true severity)':<24}{_interval(ceiling)}"] if ceiling else []),
    ]


def _standing(metrics: Metrics) -> dict[str, str]:
    """Name the baselines that the network does not beat."""
    leads = {BASELINES[name]: found.auc for name, found in metrics.differences.items()}
    worse = ", ".join(name for name, lead in leads.items() if lead.high < 0)
    alike = ", ".join(name for name, lead in leads.items() if lead.low <= 0 <= lead.high)
    return {
        **({"WORSE": f"than the baselines: {worse}"} if worse else {}),
        **(
            {"no winner": f"between the network and: {alike} (the difference's interval includes 0)"}
            if alike
            else {}
        ),
    }


def _promotion(version: int) -> str:
    """Say whether the version may become the champion."""
    try:
        params = load_params()
        connect(Path.cwd(), experiment=params.tracking.experiment)
        found = promote(version, model_name=params.tracking.model_name, rule=rule_of(params), dry_run=True)
    except AdpetError as error:
        return f"not judged: {error}"
    unmet = [condition.name for condition in found.conditions if not condition.met]
    if found.before == found.after:
        return "this version is the champion"
    if unmet:
        return f"not yet, not met: {', '.join(unmet)}; more: adpet promote {version} --dry-run"
    return f"every condition is met: adpet promote {version}"


def _cross_validation() -> dict[str, str]:
    """Return the pooled AUC, and that outside the search."""
    if not paths.CROSS_VALIDATION_SUMMARY.exists():
        return {}
    summary = read_json(paths.CROSS_VALIDATION_SUMMARY)
    if not summary["folds"]:
        return {}
    spread, counts = summary["spread"]["auc"], summary["counts"]
    text = (
        f"AUC {_interval(Estimate(**summary['pooled']['auc']))}, {counts['subjects']} subjects in "
        f"{summary['folds']} folds of {spread['low']:.3f} to {spread['high']:.3f}"
    )
    if "unsearched" in summary:
        rest, auc = counts["subjects"] - counts["searched"], Estimate(**summary["unsearched"]["auc"])
        text += f"; {_interval(auc)} on the {rest} that the search has not seen"
    return {"all folds": text}


def _interval(metric: Estimate, form: str = ".3f") -> str:
    return f"{metric.value:{form}} ({metric.low:{form}} to {metric.high:{form}})"


def _points(test: LeakageTest) -> str:
    """Return the accuracy that a slice split seems to add."""
    gaps = (f"{100 * gap.value:+.0f} points with {name.replace('_', ' ')}" for name, gap in test.gap.items())
    return ", ".join(gaps)
