"""The part on the cross-validation: all subjects pooled, and how much the folds' networks differ."""

from collections.abc import Mapping
from typing import Any

from adpet.evidence.forest_figures import folds_figure
from adpet.evidence.report.blocks import (
    MEASURES,
    Block,
    Chart,
    Heading,
    Table,
    Text,
    interval,
    number,
    reach,
    table,
    with_reach,
)
from adpet.evidence.report.documents import Documents
from adpet.evidence.report_figures import svg_uri


def cross_validation(documents: Documents) -> list[Block]:
    """Return sentences, the pooled measures and those of each fold; nothing where there are no folds."""
    summary = documents.cross_validation
    if not summary or not summary["folds"]:
        return []
    return [
        Heading("Cross-validation"),
        Text(_sentences(summary)),
        pooled_table(summary),
        Chart(
            svg_uri(folds_figure(summary)),
            f"AUC of all subjects and of each fold, with intervals: {fold_spread(summary)}; the numbers are "
            "in the tables.",
            "AUC with 95 % intervals, of all subjects and of each fold; dashed: chance.",
            wide=True,
        ),
        folds_table(summary),
    ]


def pooled_table(summary: Mapping[str, Any]) -> Table:
    """Return the pooled measures of all folds, and their spread over the folds."""
    rows = [
        (
            title,
            *with_reach(summary["pooled"][name]),
            *(number(summary["spread"][name][fact]) for fact in ("mean", "sd")),
            reach(summary["spread"][name]),
        )
        for name, title in MEASURES.items()
        if name in summary["pooled"]
    ]
    columns = (
        "Measure",
        "All subjects",
        "95 % interval",
        "Mean of folds",
        "SD of folds",
        "Lowest to highest fold",
    )
    return table(f"{summary['folds']} folds of all subjects", columns, rows)


def folds_table(summary: Mapping[str, Any]) -> Table:
    """Return what each fold's network made of the subjects that it had not seen."""
    counts = summary["counts"]["fold"]
    rows = [
        (
            f"Fold {name}",
            str(counts[name]["ad"]),
            str(counts[name]["cn"]),
            *with_reach(fold["auc"]),
            *(number(fold[measure]["value"]) for measure in ("sensitivity", "specificity", "brier")),
        )
        for name, fold in summary["fold"].items()
    ]
    columns = ("Fold", "AD", "CN", "AUC", "95 % interval", "Sensitivity", "Specificity", "Brier score")
    return table("Fold by fold", columns, rows)


def fold_spread(summary: Mapping[str, Any]) -> str:
    """Return the AUC's mean, deviation and range over the folds."""
    spread = summary["spread"]["auc"]
    return (
        f"{number(spread['mean'])} on average over {summary['folds']} folds (SD {number(spread['sd'])}), "
        f"from {number(spread['low'])} to {number(spread['high'])}"
    )


def _sentences(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    text = (
        "As many networks as folds were trained anew, and each subject was scored by one that had not seen "
        "it, at a threshold that still others had chosen. None of them is the model. Over all "
        f"{counts['subjects']} subjects the AUC is {interval(summary['pooled']['auc'])}, and "
        f"{fold_spread(summary)}. "
    )
    if not counts["searched"]:
        return f"{text}No hyperparameter was chosen on any of them."
    text += f"Hyperparameters were chosen on {counts['searched']} of the {counts['subjects']} subjects."
    if "unsearched" in summary:
        text += f" On the others alone the AUC is {interval(summary['unsearched']['auc'])}."
    return text
