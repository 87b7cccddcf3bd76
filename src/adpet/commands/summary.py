"""Summary of the results, and the next commands."""

import textwrap
from collections.abc import Iterable
from pathlib import Path

from adpet import paths
from adpet.commands.promote import rule_of
from adpet.contracts import Estimate, EvaluationDocument, LeakageDocument, LeakageTest, read_contract
from adpet.errors import AdpetError
from adpet.evaluation.comparison import BASELINES
from adpet.params import load_params
from adpet.storage import read_json
from adpet.tracking.promotion import promote
from adpet.tracking.store import SQLITE, connect, store_uri

NEXT = (
    "next              . .venv/bin/activate             the commands below live there",
    "                  adpet ui                         browse runs and models",
    "                  adpet predict SCAN.nii.gz        ask the champion about one scan",
    "                  adpet validate --help            score it on another hospital's scans",
    "                  dvc exp run -S train.epochs=30   try something else",
)
LEAK = "LEAKY: subjects stand on both sides of this split: these figures are no result"
SCORES = ("auc", "accuracy", "brier")
# Widths of the table's columns: name, three scores, and the AUC that the network has more.
ROW = "{:<24}{:<25}{:<25}{:<25}{}"
# Columns of the screen, and of the names of what is said below the table.
COLUMNS, NAMES = 140, 18


def main() -> str:
    """Return the summary of the project's results."""
    metrics = read_contract(paths.EVALUATION, EvaluationDocument)
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
        "slice split": f"accuracy minus that by subject: {_points(test)}",
        "promotion": _promotion(version["version"]),
        "report": str(paths.REPORT),
    }
    new = "" if metrics.leakage.leaky else " that it has not seen"
    title = (
        f"{version['name']} version {version['version']} ({version['alias']}), tested on {counts.subjects} "
        f"subjects{new} ({counts.subjects_ad} AD, {counts.subjects_cn} CN); 95 % intervals"
    )
    said = [*facts.items(), *(("WARNING", one) for one in found["warnings"])]
    said += [("limit", one) for one in found["limits"]]
    lines = [
        *([LEAK, ""] if metrics.leakage.leaky else []),
        title,
        "",
        *_table(metrics),
        "",
        *(line for name, text in said for line in _wrapped(name, text)),
        "",
        *NEXT,
    ]
    return "\n".join(["", *lines])


def _table(metrics: EvaluationDocument) -> list[str]:
    """Compare the network with every baseline, a line each."""

    def row(name: str, scores: Iterable[Estimate], lead: str = "") -> str:
        return ROW.format(name, *map(_interval, scores), lead).rstrip()

    ceiling = metrics.oracle.auc if metrics.oracle else None
    return [
        ROW.format("", "AUC", "accuracy", "Brier score", "AUC, network minus baseline"),
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


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name:<{NAMES}}{text}", COLUMNS, subsequent_indent=" " * NAMES)


def _standing(metrics: EvaluationDocument) -> dict[str, str]:
    """Name the baselines that the network does not beat."""
    worse, alike = [], []
    for name, lead in metrics.differences.items():
        lost = {
            "AUC": lead.auc.high < 0,
            "Brier score": lead.brier.low > 0,
            "log loss": lead.log_loss.low > 0,
        }
        if any(lost.values()):
            worse.append(f"{BASELINES[name]} (by {', '.join(score for score in lost if lost[score])})")
        elif lead.auc.low <= 0:
            alike.append(BASELINES[name])
    said = {"worse than": "; ".join(worse), "not better than": ", ".join(alike)}
    return {name: text for name, text in said.items() if text}


def _promotion(version: int) -> str:
    """Say whether the version may become the champion."""
    uri = store_uri(Path.cwd())
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return "not judged here: the registry is where the version was made"
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
    folds = f"left-out {summary['left_out']}s" if "left_out" in summary else "folds"
    text = (
        f"AUC {_interval(Estimate(**summary['pooled']['auc']))}, {counts['subjects']} subjects in "
        f"{summary['folds']} {folds} of {spread['low']:.3f} to {spread['high']:.3f}"
    )
    if "unsearched" in summary:
        rest, auc = counts["subjects"] - counts["searched"], Estimate(**summary["unsearched"]["auc"])
        text += f"; {_interval(auc)} on the {rest} that the search has not seen"
    return {"cross-validation": text}


def _interval(metric: Estimate, form: str = ".3f") -> str:
    return f"{metric.value:{form}} ({metric.low:{form}} to {metric.high:{form}})"


def _points(test: LeakageTest) -> str:
    """Return the differences of accuracy, in points."""
    gaps = (f"{100 * gap.value:+.0f} points with {name.replace('_', ' ')}" for name, gap in test.gap.items())
    return ", ".join(gaps)
