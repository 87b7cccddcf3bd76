"""Report sections: performance, baselines, subgroups, misclassified subjects."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from adpet.evaluation.comparison import BASELINES, comparison_sentence
from adpet.evaluation.prognosis import NOT_FOLLOWED
from adpet.reporting import performance_figures
from adpet.reporting.components import (
    MEASURES,
    Block,
    Chart,
    Documents,
    Heading,
    Items,
    Table,
    Text,
    data_uri,
    fold_title,
    format_ci,
    humanize,
    interval,
    number,
    percent,
    plural,
    typeset,
    value_and_ci,
)

# Smaller differences of the share of AD are not worth a sentence.
SHARE_APART = 0.05


def performance(documents: Documents) -> list[Block]:
    """Return the section on metrics, curves and calibration."""
    metrics, tables = documents.metrics, documents.evaluation
    auc, counts = metrics["subject"]["auc"], metrics["counts"]
    n = counts["validation_subjects"]
    chosen = (
        f"that is the share of AD among {plural(n, 'training subject')}, where the evidence is even"
        if n
        else "nothing was calibrated, since no training subject was predicted out of fold"
    )
    return [
        Text(
            f"{counts['subjects']} held-out subjects ({counts['subjects_ad']} AD, {counts['subjects_cn']} "
            f"CN), {counts['scans']} scans, {counts['slices']} slices. Slices are aggregated into a "
            f"subject by {documents.aggregation.replace('_', ' ')}. A probability of "
            f"{number(metrics['threshold'])} or above is predicted AD; {chosen}. Intervals are 95 "
            "%, by a cluster bootstrap over subjects with all their scans and slices."
        ),
        measures_table(metrics),
        Chart(
            data_uri(performance_figures.roc_figure(tables.roc, tables.roc_band, metrics=metrics)),
            f"ROC curve of the test subjects with its bootstrap band; area {interval(auc)}.",
            "ROC curve per subject with its 95 % band, and per slice (thin).",
        ),
        Chart(
            data_uri(performance_figures.precision_recall_figure(tables.precision_recall, metrics=metrics)),
            "Precision over recall of the test subjects; average precision "
            f"{interval(metrics['subject']['average_precision'])}.",
            "Precision and recall per subject, and per slice (thin).",
        ),
        Chart(
            data_uri(performance_figures.calibration_figure(tables.calibration, metrics=metrics)),
            "Observed share of AD over predicted probability in bins of subjects; calibration error "
            f"{interval(metrics['subject']['calibration_error'])}.",
            "Calibration: on the diagonal, predicted and observed shares agree.",
        ),
        confusion_table(metrics),
        Chart(
            data_uri(performance_figures.confusion_figure(metrics)),
            f"Confusion matrices per subject and per slice: {_calls(metrics['subject']['confusion'])}.",
            "Confusion matrices per subject and per slice.",
            wide=True,
        ),
        *cross_validation(documents),
    ]


def result_tables(metrics: Mapping[str, Any], subgroups: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the report's tables of a model's results, by name."""
    tables = {"metrics": measures_table(metrics), "subgroups": subgroups_table(subgroups)}
    if metrics["baselines"]:
        tables["baselines"] = baselines_table(metrics)
    return {name: table.as_dataframe() for name, table in tables.items()}


def measures_table(metrics: Mapping[str, Any]) -> Table:
    """Return every metric per subject and per slice."""
    rows = [
        (title, *(cell for level in ("subject", "slice") for cell in _cells_of(metrics[level].get(name))))
        for name, title in MEASURES.items()
        if name in metrics["subject"]
    ]
    columns = ("Metric", "Per subject", "95 % interval", "Per slice", "95 % interval")
    return Table("Metrics with 95 % intervals", columns, rows)


def confusion_table(metrics: Mapping[str, Any]) -> Table:
    """Return the confusion matrices."""
    cells = {"AD": ("true_positive", "false_negative"), "CN": ("false_positive", "true_negative")}
    rows = [
        (f"{diagnosis}, per {level}", *(str(metrics[level]["confusion"][cell]) for cell in both))
        for level in ("subject", "slice")
        for diagnosis, both in cells.items()
    ]
    return Table("Confusion matrices", ("Diagnosis", "Predicted AD", "Predicted CN"), rows)


def baselines(documents: Documents) -> list[Block]:
    """Return the section on classical models on the same subjects."""
    found = documents.findings
    if not documents.metrics["baselines"]:
        return [Text("No baseline was fitted: a leaky split allows no fair comparison.")]
    sentences = [*found["warnings"], *found["not_beaten"], *found["beaten"], *found["limits"]]
    return [
        Text(
            "Each baseline was fitted to all training subjects and tested on the same test subjects. "
            "The region and voxel baselines use the images; age, sex, scanner and site must not "
            "separate AD from CN. Differences are of the network less the baseline, on the same resamples."
        ),
        Items(tuple(map(typeset, sentences))),
        baselines_table(documents.metrics),
        Chart(
            data_uri(performance_figures.baselines_figure(documents.metrics)),
            "AUC of the network and of each baseline, and the paired differences, with intervals; the "
            "numbers are in the table.",
            "AUC with 95 % intervals, and its difference by the paired bootstrap.",
            wide=True,
        ),
    ]


def baselines_table(metrics: Mapping[str, Any]) -> Table:
    """Return each model's scores and paired differences."""

    def row(title: str, scores: Mapping[str, Any], differences: Mapping[str, Any]) -> tuple[str, ...]:
        measures = (table.get(name) for name in ("auc", "brier") for table in (scores, differences))
        return title, *(f"{value} ({ci})" if ci else value for value, ci in map(_cells_of, measures))

    rows = [row("Network", metrics["subject"], {})]
    rows += [
        row(humanize(title), metrics["baselines"][name], metrics["differences"][name])
        for name, title in BASELINES.items()
        if name in metrics["baselines"]
    ]
    if "oracle" in metrics:
        rows.append(row("True severity (ceiling)", metrics["oracle"], {}))
    scores = "AUC (95 % interval)", "AUC difference", "Brier score (95 % interval)", "Brier score difference"
    return Table("The network and its baselines on the same subjects", ("Model", *scores), rows)


def external(documents: Documents) -> tuple[Text, Table, Items] | tuple[()]:
    """Return the section on another collection, if any."""
    found = documents.external
    if found is None:
        return ()
    counts, leads = found["evaluation"]["counts"], found["evaluation"]["differences"]
    text = (
        f"{plural(counts['subjects'], 'subject')} of another collection, {found['cohort']} "
        f"({counts['subjects_ad']} AD, {counts['subjects_cn']} CN), and the model as it is: its own "
        f"normalization, calibration and threshold. {plural(found['answered'], 'scan')} answered, "
        f"{found['refused']} refused by the quality checks, {found['unusable']} unusable. More: "
        "results/external/report.html."
    )
    names = ("auc", "brier", "calibration_slope", "calibration_intercept")
    both = documents.metrics["subject"], found["evaluation"]["subject"]
    rows = [
        (MEASURES[name], *(cell for scores in both for cell in value_and_ci(scores[name]))) for name in names
    ]
    columns = ("Metric", "Own test subjects", "95 % interval", "Other collection", "95 % interval")
    sentences = [comparison_sentence(name, leads[name]) for name in BASELINES if name in leads]
    sentences += filter(None, [prevalence_sentence(found), f"leakage: {leakage_sentence(found)}"])
    return (
        Text(text),
        Table("Metrics per subject, own test subjects and the other collection", columns, rows),
        Items(tuple(typeset(sentence[:1].upper() + sentence[1:]) for sentence in sentences)),
    )


def leakage_sentence(document: Mapping[str, Any]) -> str:
    """Say how training subjects and scans were looked for."""
    checks = document["leakage_checks"]
    return f"looked for {' and '.join(checks)}: none" if checks else "not checked: the training is not here"


def prevalence_sentence(document: Mapping[str, Any]) -> str:
    """Say what another share of AD does, if any."""
    counts, usual = document["evaluation"]["counts"], document["training_prevalence"]
    share = counts["subjects_ad"] / counts["subjects"]
    if usual is None or abs(share - usual) < SHARE_APART:
        return ""
    moved = math.log(share / (1 - share) * (1 - usual) / usual)
    return (
        f"the share of AD is {share:.2f} here and {usual:.2f} in training, which alone moves the intercept "
        f"by {moved:+.2f}"
    )


def subgroups(documents: Documents) -> list[Block]:
    """Return the section on age, sex, site and scanner."""
    groups = documents.evaluation.subgroups
    return [
        Text(
            "Subgroups are post hoc and small: an odd one is a question, not a result. A subgroup "
            "with one diagnosis only has no metrics."
        ),
        subgroups_table(groups),
        Chart(
            data_uri(performance_figures.subgroups_figure(groups)),
            "AUC and balanced accuracy with intervals by age, sex, site and scanner; the numbers are "
            "in the table.",
            "Thin line: all subjects.",
            wide=True,
        ),
    ]


def subgroups_table(groups: pd.DataFrame) -> Table:
    """Return the subgroups' numbers."""
    rows = [
        (
            "All" if row["fact"] == "all" else f"{humanize(row['fact'])}: {row['group']}",
            str(row["n_ad"]),
            str(row["n_cn"]),
            *_cells(row, "auc"),
            *_cells(row, "balanced_accuracy"),
        )
        for row in groups.to_dict("records")
    ]
    columns = ("Subgroup", "AD", "CN", "AUC", "95 % interval", "Balanced accuracy", "95 % interval")
    return Table("Subgroups of the test subjects", columns, rows)


def other_diagnoses(documents: Documents) -> list[Block]:
    """Return the section on other diagnoses, if any."""
    scored = documents.scored
    if not scored or not scored["groups"]:
        return []
    groups, threshold, years = (scored[name] for name in ("groups", "threshold", "conversion_years"))
    subjects = pd.concat([documents.evaluation.subjects, documents.scored_subjects])
    blocks: list[Block] = [
        Text(
            "People with other diagnoses, who were not trained on: the model can only say how much like "
            "AD their scans are. Each counts with the first scan of that diagnosis."
        ),
        groups_table(groups),
        Chart(
            data_uri(performance_figures.groups_figure(subjects, threshold=threshold)),
            "Box plots of the probability of AD by diagnosis, one dot per subject.",
            "Probability of AD, next to that of the CN and AD test subjects; dashed: the threshold.",
        ),
        Heading(f"Conversion to AD within {years:g} years"),
    ]
    followed = {
        name: group["conversion"] for name, group in groups.items() if group["conversion"]["followed"]
    }
    blocks.append(
        Items(tuple(f"{name}: {_conversion(found)}" for name, found in followed.items()))
        if followed
        else Text(f"Not known: {NOT_FOLLOWED}.")
    )
    if curves := sum(bool(found["curves"]) for found in followed.values()):
        chart = Chart(
            data_uri(performance_figures.conversion_figure(groups, years=years)),
            "Kaplan-Meier curves of the share without AD, for each third of the probability of AD.",
            "Share without AD over time, by third of the probability at the first scan (Kaplan-Meier).",
            wide=curves > 1,
        )
        blocks.append(chart)
    changes = {name: group["change"] for name, group in groups.items() if group["change"]["subjects"]}
    if changes:
        items = tuple(f"{name}: {_change(found)}" for name, found in changes.items())
        blocks += [Heading("Change over time"), Items(items)]
    return blocks


def groups_table(groups: Mapping[str, Any]) -> Table:
    """Return the probabilities of people with other diagnoses."""
    rows = [
        (
            name, str(group["subjects"]), number(group["predicted_ad"], 2),
            *(number(value) for value in group["quartiles"] or [None] * 3),
        )
        for name, group in groups.items()
    ]  # fmt: skip
    columns = ("Diagnosis", "Subjects", "Share predicted AD", "Lower quartile", "Median", "Upper quartile")
    return Table("Probability of AD by diagnosis", columns, rows)


def _conversion(found: Mapping[str, Any]) -> str:
    text = (
        f"{plural(found['followed'], 'subject')} with later visits: {found['converters']} converted, "
        f"{found['stable']} stable, {found['censored']} followed for less time"
    )
    area = (
        f"AUC of converters against stable {interval(found['auc'])}" if found["auc"] else "too few for an AUC"
    )
    p = found["log_rank_p"]
    return f"{text}; {area}" + ("" if p is None else f"; highest against lowest third: log-rank p {p:.2g}")


def _change(found: Mapping[str, Any]) -> str:
    slope = found["log_odds_per_year"]
    text = f"the log-odds of AD change by {interval(slope)} a year" if slope else "too few with several scans"
    return f"{text} ({plural(found['subjects'], 'subject')}, {plural(found['scans'], 'scan')})"


def failures(documents: Documents) -> list[Block]:
    """Return the section on misclassified subjects."""
    metrics = documents.metrics
    return [
        Items(tuple(wrong_calls(documents.evaluation.subjects, metrics["threshold"]))),
        Chart(
            data_uri(
                performance_figures.probability_figure(
                    documents.evaluation.subjects, threshold=metrics["threshold"]
                )
            ),
            "One dot a test subject: probability of AD by diagnosis, with the threshold; "
            f"misclassified subjects are ringed: {_calls(metrics['subject']['confusion'])}.",
            "Probability of AD of each test subject.",
        ),
    ]


def wrong_calls(subjects: pd.DataFrame, threshold: float) -> list[str]:
    """Return a sentence on the misclassified subjects of each diagnosis."""
    sentences = []
    for diagnosis, prediction in (("AD", "CN"), ("CN", "AD")):
        probability = subjects.loc[subjects["diagnosis"] == diagnosis, "probability"].to_numpy(np.float64)
        wrong = probability[(probability >= threshold) != (diagnosis == "AD")]
        text = f"{wrong.size} of {plural(probability.size, f'{diagnosis} subject')} predicted {prediction}"
        if wrong.size:
            low, high = number(float(wrong.min())), number(float(wrong.max()))
            text += f", with probabilities of AD {'of ' + low if low == high else f'from {low} to {high}'}"
        sentences.append(f"{text}; the threshold is {number(threshold)}.")
    return sentences


def _cells_of(metric: Mapping[str, Any] | None) -> tuple[str, str]:
    return ("", "") if metric is None else value_and_ci(metric)


def _cells(row: Mapping[Any, Any], name: str) -> tuple[str, str]:
    if np.isnan(row[name]):
        return "-", "one diagnosis only"
    return number(row[name]), format_ci({"low": row[f"{name}_low"], "high": row[f"{name}_high"]})


def _calls(calls: Mapping[str, int]) -> str:
    ad = calls["true_positive"] + calls["false_negative"]
    cn = calls["false_positive"] + calls["true_negative"]
    share = (calls["true_positive"] + calls["true_negative"]) / (ad + cn)
    return (
        f"{calls['true_positive']} of {ad} AD and {calls['true_negative']} of {cn} CN subjects correctly "
        f"classified, {percent(share)} in all"
    )


def cross_validation(documents: Documents) -> list[Block]:
    """Return the cross-validation's results, if there are folds."""
    summary = documents.cross_validation
    if not summary or not summary["folds"]:
        return []
    rows = [
        (
            title,
            *value_and_ci(summary["pooled"][name]),
            *(number(summary["spread"][name][fact]) for fact in ("mean", "sd")),
            format_ci(summary["spread"][name]),
        )
        for name, title in MEASURES.items()
        if name in summary["spread"]
    ]
    means = ("Mean of folds", "SD of folds", "Lowest to highest fold")
    columns = ("Metric", "All subjects", "95 % interval", *means)
    return [
        Heading("Cross-validation"),
        Text(_sentences(summary)),
        Table(f"{summary['folds']} folds", columns, rows),
        Chart(
            data_uri(performance_figures.folds_figure(summary)),
            f"AUC of all subjects and of each fold, with intervals: {fold_spread(summary)}; the numbers are "
            "in the tables.",
            "AUC with 95 % intervals, of all subjects and of each fold; dashed: chance.",
            wide=True,
        ),
        folds_table(summary),
    ]


def folds_table(summary: Mapping[str, Any]) -> Table:
    """Return each fold's out-of-fold results."""
    counts = summary["counts"]["fold"]
    rows = [
        (
            fold_title(summary, name),
            str(counts[name]["ad"]),
            str(counts[name]["cn"]),
            *value_and_ci(fold["auc"]),
            *(number(fold[measure]["value"]) for measure in ("sensitivity", "specificity", "brier")),
        )
        for name, fold in summary["fold"].items()
    ]
    columns = ("Fold", "AD", "CN", "AUC", "95 % interval", "Sensitivity", "Specificity", "Brier score")
    return Table("Fold by fold", columns, rows)


def fold_spread(summary: Mapping[str, Any]) -> str:
    """Return mean, SD and range of the AUC over folds."""
    spread = summary["spread"]["auc"]
    return (
        f"{number(spread['mean'])} on average over {summary['folds']} folds (SD {number(spread['sd'])}), "
        f"from {number(spread['low'])} to {number(spread['high'])}"
    )


def _sentences(summary: Mapping[str, Any]) -> str:
    counts = summary["counts"]
    text = (
        "One network a fold was trained, and each subject was scored by the network that had not seen it, "
        "with a threshold chosen on other subjects. None of them is the model. Over all "
        f"{counts['subjects']} subjects the AUC is {interval(summary['pooled']['auc'])}, and "
        f"{fold_spread(summary)}. "
    )
    if "left_out" in summary:
        text += (
            f"Each fold is a {summary['left_out']} whose subjects its network has not seen; those of one "
            "with few subjects of a diagnosis only train. "
        )
    if not counts["searched"]:
        return f"{text}No hyperparameter was chosen on them."
    text += f"Hyperparameters were chosen on {counts['searched']} of the {counts['subjects']} subjects."
    if "unsearched" in summary:
        text += f" On the others alone the AUC is {interval(summary['unsearched']['auc'])}."
    return text
