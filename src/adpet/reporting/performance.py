"""Report section: performance, subgroups, and cross-validation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from adpet.evaluation.comparison import BASELINES
from adpet.reporting.components import (
    MEASURES,
    Block,
    Chart,
    Documents,
    Heading,
    Items,
    Section,
    Table,
    Text,
    interval,
    number,
    percent,
    plural,
    reach,
    records,
    svg_uri,
    table,
    typeset,
    with_reach,
    words,
)
from adpet.reporting.performance_figures import (
    baselines_figure,
    calibration_figure,
    confusion_figure,
    folds_figure,
    precision_recall_figure,
    probability_figure,
    roc_figure,
    subgroups_figure,
)


def performance(documents: Documents) -> Section:
    """Return measures with intervals, curves, calibration and calls."""
    metrics, tables = documents.metrics, documents.evaluation
    auc, counts = metrics["subject"]["auc"], metrics["counts"]
    blocks: list[Block] = [
        Text(
            f"{counts['subjects']} held-out subjects ({counts['subjects_ad']} AD, {counts['subjects_cn']} "
            f"CN), {counts['scans']} scans, {counts['slices']} slices. Slices become a subject by "
            f"{documents.aggregation.replace('_', ' ')}. At a probability of {number(metrics['threshold'])} "
            f"or above a subject is called AD; {_chosen(counts)}. Intervals are 95 % and over subjects, who "
            "bring all their scans and slices along."
        ),
        measures_table(metrics),
        Chart(
            svg_uri(roc_figure(tables.roc, tables.roc_band, metrics=metrics)),
            f"ROC curve of the test subjects with its bootstrap band; area {interval(auc)}.",
            "ROC curve per subject with its 95 % band, and per slice behind it.",
        ),
        Chart(
            svg_uri(precision_recall_figure(tables.precision_recall, metrics=metrics)),
            "Precision over recall of the test subjects; average precision "
            f"{interval(metrics['subject']['average_precision'])}.",
            "Precision and recall per subject, and per slice behind it.",
        ),
        Chart(
            svg_uri(calibration_figure(tables.calibration, metrics=metrics)),
            "Observed share of AD over predicted probability in bins of subjects; calibration error "
            f"{interval(metrics['subject']['calibration_error'])}.",
            "Calibration: on the diagonal, probabilities are true.",
        ),
        confusion_table(metrics),
        Chart(
            svg_uri(confusion_figure(metrics)),
            f"Confusion matrices per subject and per slice: {_calls(metrics['subject']['confusion'])}.",
            "Calls per subject and per slice.",
            wide=True,
        ),
        *cross_validation(documents),
    ]
    return Section("Performance on held-out subjects", "performance", tuple(blocks))


def measures_table(metrics: Mapping[str, Any]) -> Table:
    """Return every measure per subject and per slice."""
    rows = [
        (
            title,
            *(text for level in ("subject", "slice") for text in with_reach(metrics[level][name])),
        )
        for name, title in MEASURES.items()
        if name in metrics["subject"]
    ]
    return table(
        "Measures with 95 % intervals",
        ("Measure", "Per subject", "95 % interval", "Per slice", "95 % interval"),
        rows,
    )


def confusion_table(metrics: Mapping[str, Any]) -> Table:
    """Return how many were called what."""
    rows = []
    for level in ("subject", "slice"):
        calls = metrics[level]["confusion"]
        rows += [
            (f"AD, per {level}", str(calls["true_positive"]), str(calls["false_negative"])),
            (f"CN, per {level}", str(calls["false_positive"]), str(calls["true_negative"])),
        ]
    return table("Diagnosis and call", ("Diagnosis", "Called AD", "Called CN"), rows)


def baselines(documents: Documents) -> Section:
    """Return the network beside plain models on the same subjects."""
    found = documents.findings
    if not documents.metrics["baselines"]:
        why = "No baseline was fitted: on a leaky split the comparison would not be honest."
        return Section("Beside plain models", "baselines", (Text(why),))
    sentences = [*found["warnings"], *found["not_beaten"], *found["beaten"]]
    return Section(
        "Beside plain models",
        "baselines",
        (
            Text(
                "Each baseline was fitted to all training subjects and met the same test subjects. Regions "
                "and voxels see the images; age, sex, scanner and site must not tell AD from CN."
            ),
            Items(tuple(map(typeset, sentences))),
            baselines_table(documents.metrics),
            Chart(
                svg_uri(baselines_figure(documents.metrics)),
                "AUC of the network and of each baseline, and the network's lead over each, with "
                "intervals; the numbers are in the table.",
                "AUC with 95 % intervals, and the network's lead by the paired bootstrap.",
                wide=True,
            ),
        ),
    )


def baselines_table(metrics: Mapping[str, Any]) -> Table:
    """Return each baseline's area and the network's lead over it."""
    rows = [("Network", *with_reach(metrics["subject"]["auc"]), "", "")]
    rows += [
        (
            words(title),
            *with_reach(metrics["baselines"][name]["auc"]),
            *with_reach(metrics["differences"][name]),
        )
        for name, title in BASELINES.items()
        if name in metrics["baselines"]
    ]
    columns = ("Model", "AUC per subject", "95 % interval", "Network's lead", "95 % interval")
    return table("The network and its baselines on the same subjects", columns, rows)


def subgroups(documents: Documents) -> Section:
    """Return performance by age, sex, site and scanner."""
    groups = documents.evaluation.subgroups
    return Section(
        "Does it work for everybody",
        "subgroups",
        (
            Text(
                "Subgroups were looked at after the fact and are small: an odd one is a question, not a "
                "result. Where one diagnosis lacks there is nothing to compare."
            ),
            subgroups_table(groups),
            Chart(
                svg_uri(subgroups_figure(groups)),
                "AUC and balanced accuracy with intervals by age, sex, site and scanner; the numbers are "
                "in the table.",
                "The thin line is the value of all subjects.",
                wide=True,
            ),
        ),
    )


def subgroups_table(groups: pd.DataFrame) -> Table:
    """Return the subgroups' numbers."""
    rows = [
        (
            "All" if row["fact"] == "all" else f"{words(row['fact'])}: {row['group']}",
            str(row["n_ad"]),
            str(row["n_cn"]),
            *_cells(row, "auc"),
            *_cells(row, "balanced_accuracy"),
        )
        for row in records(groups)
    ]
    columns = ("Subgroup", "AD", "CN", "AUC", "95 % interval", "Balanced accuracy", "95 % interval")
    return table("Subgroups of the test subjects", columns, rows)


def failures(documents: Documents) -> Section:
    """Return who is called wrongly: how many, and how sure the network was."""
    metrics = documents.metrics
    return Section(
        "Where it fails",
        "failures",
        (
            Items(tuple(wrong_calls(documents.evaluation.subjects, metrics["threshold"]))),
            Chart(
                svg_uri(probability_figure(documents.evaluation.subjects, threshold=metrics["threshold"])),
                "One dot a test subject: probability of AD by diagnosis, with the threshold; wrong calls "
                f"are ringed: {_calls(metrics['subject']['confusion'])}.",
                "Probability of AD of each test subject.",
            ),
        ),
    )


def wrong_calls(subjects: pd.DataFrame, threshold: float) -> list[str]:
    """Return a sentence on the wrong calls of each diagnosis."""
    sentences = []
    for diagnosis, call in (("AD", "CN"), ("CN", "AD")):
        probability = subjects.loc[subjects["diagnosis"] == diagnosis, "probability"].to_numpy(np.float64)
        wrong = probability[(probability >= threshold) != (diagnosis == "AD")]
        text = f"{wrong.size} of {plural(probability.size, f'{diagnosis} subject')} called {call}"
        if wrong.size:
            low, high = number(float(wrong.min())), number(float(wrong.max()))
            text += f", with probabilities of AD {'of ' + low if low == high else f'from {low} to {high}'}"
        sentences.append(f"{text}; the threshold is {number(threshold)}.")
    return sentences


def _cells(row: Mapping[str, Any], name: str) -> tuple[str, str]:
    if np.isnan(row[name]):
        return "-", "one diagnosis only"
    return number(row[name]), reach({"low": row[f"{name}_low"], "high": row[f"{name}_high"]})


def _chosen(counts: Mapping[str, int]) -> str:
    n = counts["validation_subjects"]
    return (
        f"that was chosen on {plural(n, 'validation subject')}" if n else "nobody was there to choose it on"
    )


def _calls(calls: Mapping[str, int]) -> str:
    ad = calls["true_positive"] + calls["false_negative"]
    cn = calls["false_positive"] + calls["true_negative"]
    share = (calls["true_positive"] + calls["true_negative"]) / (ad + cn)
    return (
        f"{calls['true_positive']} of {ad} AD and {calls['true_negative']} of {cn} CN subjects called "
        f"rightly, {percent(share)} in all"
    )


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
