"""Report on an external validation, as one self-contained HTML page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from adpet.evaluation import metrics as scoring
from adpet.evaluation.comparison import BASELINES, comparison_sentence
from adpet.reporting import performance_figures as figures
from adpet.reporting.brain_figures import group_map_figure
from adpet.reporting.components import (
    MEASURES,
    Block,
    Chart,
    Items,
    Table,
    Text,
    data_uri,
    humanize,
    interval,
    number,
    plural,
    typeset,
    value_and_ci,
)
from adpet.reporting.performance import (
    baselines_table,
    confusion_table,
    groups_table,
    leakage_sentence,
    measures_table,
    prevalence_sentence,
    subgroups_table,
    wrong_calls,
)
from adpet.reporting.report import PURPOSE, Line, Tone, page
from adpet.reporting.style import AD_COLOUR, GREY, LIGHT_GREY, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Intervals of the calibration line that hold these are calibrated.
CALIBRATED = {"calibration_slope": 1.0, "calibration_intercept": 0.0}
SUBJECT_COLUMNS = ["subject", "diagnosis", "probability"]
# Most reasons that the page lists one by one.
REASONS_LISTED = 20
# What recalibration can change.
SHIFTED = ("brier", "log_loss", "calibration_slope", "calibration_intercept", "accuracy", "sensitivity",
           "specificity")  # fmt: skip
MAPS = {"cam": ("Where the network looked", "logit"), "z": ("Where these brains are unusual", "SD")}


@dataclass(frozen=True, eq=False, kw_only=True)
class External:
    """Results of a model on another collection.

    `document` is ``validation.json``; `maps` are means over the scans of a group, flat, on the grid of
    `underlay`; `model_document` is that of the recalibrated model.
    """

    document: dict[str, Any]
    predictions: pd.DataFrame
    subjects: pd.DataFrame
    baselines: dict[str, pd.DataFrame]
    refused: pd.DataFrame
    unusable: pd.DataFrame
    flagged: pd.DataFrame
    subgroups: pd.DataFrame
    decisions: pd.DataFrame
    affine: npt.NDArray[np.float64]
    underlay: npt.NDArray[np.float32]
    seed: int
    resamples: int
    others: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SUBJECT_COLUMNS))
    maps: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    model_document: dict[str, Any] | None = None


def external_html(found: External) -> str:
    """Return the page, which names no subject."""
    sections = [
        ("performance", "Performance on these subjects", list(_performance(found))),
        ("baselines", "Comparison with baselines", list(_baselines(found))),
        ("decisions", "Decision curves", list(_decisions(found))),
        ("recalibration", "Recalibration", list(_recalibration(found))),
        ("others", "Other diagnoses", list(_others(found))),
        ("maps", "Maps", list(_maps(found))),
        ("subgroups", "Subgroups", list(_subgroups(found))),
        ("scans", "Scans that were not used", list(_scans(found))),
    ]
    title = f"External validation of {found.document['model']} on {found.document['cohort']}"
    return page(title, list(_summary(found)), [section for section in sections if section[2]])


def empty_html() -> str:
    """Return the page of a project without another collection."""
    text = "There is no other collection: external.raw in params.yaml names a folder without scans."
    return page("External validation", [Line("plain", "Scans", text)], [])


def _summary(found: External) -> Iterator[Line]:
    document, metrics = found.document, found.document["evaluation"]
    subject, counts, own = metrics["subject"], metrics["counts"], document["own_auc"]
    below = subject["auc"]["high"] < own["low"]
    tone: Tone
    if document["leaky"]:
        yield Line(
            "bad", "Model", "LEAKY: trained and tested on the same subjects, so its own AUC is no result."
        )
    yield Line(
        "doubt" if below else "plain",
        "Performance",
        f"AUC per subject {interval(subject['auc'])} on {plural(counts['subjects'], 'subject')} of another "
        f"collection ({counts['subjects_ad']} AD, {counts['subjects_cn']} CN); on the model's own test "
        f"subjects {interval(own)}.",
    )
    for name in ("atlas", "regions"):
        if name in metrics["differences"]:
            lead = metrics["differences"][name]
            tone = "good" if lead["auc"]["low"] > 0 else "doubt"
            yield Line(tone, "Baseline", typeset(comparison_sentence(name, lead)))
    off = [name for name, ideal in CALIBRATED.items()
           if not subject[name]["low"] <= ideal <= subject[name]["high"]]  # fmt: skip
    yield Line(
        "doubt" if off else "good",
        "Calibration",
        f"Slope {interval(subject['calibration_slope'])}, intercept "
        + interval(subject["calibration_intercept"])
        + ("; not calibrated here: see Recalibration" if off else "")
        + typeset("; ".join(filter(None, ["", prevalence_sentence(document)]))),
    )
    sentence = leakage_sentence(document)
    tone = "plain" if document["leakage_checks"] else "doubt"
    yield Line(tone, "Leakage", f"{sentence[:1].upper()}{sentence[1:]}.")
    yield Line(
        "plain",
        "Scans",
        f"{document['answered']} answered, {document['flagged']} of them flagged; "
        f"{document['refused']} refused by the quality checks, {document['unusable']} unusable files, "
        f"{document['skipped']} skipped (other diagnoses, other tracers and so on). {PURPOSE}",
    )


def _performance(found: External) -> Iterator[Block]:
    metrics = found.document["evaluation"]
    yield Text(
        "The model as it is: its own normalization, calibration and threshold "
        f"({number(metrics['threshold'])}). Intervals are 95 %, by a bootstrap over subjects."
    )
    yield measures_table(metrics)
    curves = scoring.roc_curves(found.subjects, found.predictions)
    band = scoring.roc_band(found.subjects, seed=found.seed, resamples=found.resamples)
    yield Chart(
        data_uri(figures.roc_figure(curves, band, metrics=metrics)),
        f"ROC curve of the subjects with its bootstrap band; area {interval(metrics['subject']['auc'])}.",
        "ROC curve per subject with its 95 % band, and per slice (thin).",
    )
    points = scoring.calibration_points(found.subjects, found.predictions)
    yield Chart(
        data_uri(figures.calibration_figure(points, metrics=metrics)),
        "Observed share of AD over predicted probability in bins of subjects; the numbers are in the table.",
        "Calibration: on the diagonal, predicted and observed shares agree.",
    )
    yield confusion_table(metrics)
    yield Items(tuple(wrong_calls(found.subjects, metrics["threshold"])))
    yield Chart(
        data_uri(figures.probability_figure(found.subjects, threshold=metrics["threshold"])),
        "One dot per subject: probability of AD by diagnosis, with the threshold.",
        "Probability of AD of each subject.",
    )


def _baselines(found: External) -> Iterator[Block]:
    metrics = found.document["evaluation"]
    if not metrics["baselines"]:
        yield Text("The model comes without baselines; make them with: dvc repro evaluate export register.")
        return
    yield Text(
        "Each baseline was fitted to the model's own training subjects and came with the model; none has "
        "seen these subjects. Differences are of the network less the baseline, on the same resamples."
    )
    yield baselines_table(metrics)
    yield Chart(
        data_uri(figures.baselines_figure(metrics)),
        "AUC of the network and of each baseline, and the paired differences; the numbers are in the table.",
        "AUC with 95 % intervals, and its difference by the paired bootstrap.",
        wide=True,
    )


def _decisions(found: External) -> Iterator[Block]:
    yield Text(
        "Net benefit of predicting AD from a probability on: true positives less false positives, which cost "
        "the odds of that probability (Vickers and Elkin 2006). A model helps where its curve is above those "
        "of predicting AD for all subjects and for none. Without calibration the curve is shifted."
    )
    yield Chart(
        data_uri(decision_figure(found.decisions)),
        "Net benefit over the probability from which AD is predicted: network, baselines, AD for all "
        "subjects, AD for none.",
        "Decision curves.",
    )


@styled
def decision_figure(table: pd.DataFrame) -> "Figure":
    """Draw the decision curves of `external.decision_table`."""
    figure = new_figure(5.4, 4.2)
    axes = figure.add_subplot()
    axes.axhline(0, color=LIGHT_GREY, linewidth=1, label="AD for none")
    axes.plot(table["probability"], table["all"], color=GREY, linewidth=1, label="AD for all")
    styles = {"regions": "--", "atlas": ":"}
    for name, style in styles.items():
        if name in table:
            axes.plot(table["probability"], table[name], style, color="black", linewidth=1.2,
                      label=humanize(BASELINES[name]))  # fmt: skip
    axes.plot(table["probability"], table["network"], color=AD_COLOUR, linewidth=2, label="Network")
    if "recalibrated" in table:
        axes.plot(
            table["probability"], table["recalibrated"], "--", color=AD_COLOUR, label="Network, recalibrated"
        )
    best = float(table.drop(columns="probability").to_numpy().max())
    axes.set(xlim=(0, 1), ylim=(-0.15 * best, 1.08 * best))
    axes.set(xlabel="Probability from which AD is predicted", ylabel="Net benefit per subject")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _recalibration(found: External) -> Iterator[Block]:
    document, before = found.document, found.document["evaluation"]["subject"]
    if not document["recalibration"]:
        yield Text(
            "Not asked for. adpet validate --recalibrate all fits a new intercept to these subjects, "
            "--recalibrate cn to their CN scans alone, each subject by the others, and this page shows what "
            "changes."
        )
        return
    after, by = document["recalibration"]["subject"], document["recalibration"]["shift"]
    fitted_to = {"all": "all subjects", "cn": "the CN subjects alone"}[document["recalibration"]["reference"]]
    yield Text(
        f"The log-odds of AD shift by {number(by)}, fitted to {fitted_to}. The figures are cross-fitted: "
        "each subject is shifted by what the others gave. Intervals take the shift as fixed. The "
        "threshold is "
        f"{number(document['recalibration']['threshold'])}, before "
        f"{number(document['evaluation']['threshold'])}. The AUC stays. The folder recalibrated, next to "
        "this page, is the model with the shift, for adpet predict."
    )
    rows = [(MEASURES[name], *value_and_ci(before[name]), *value_and_ci(after[name])) for name in SHIFTED]
    columns = ("Metric", "Before", "95 % interval", "After", "95 % interval")
    yield Table("What recalibration changes", columns, rows)


def _others(found: External) -> Iterator[Block]:
    groups = found.document["score_only"]
    if not groups:
        return
    yield Text(
        "People with other diagnoses, which the model was not trained on: it can only say how much like AD "
        "their scans are. They count in none of the figures above."
    )
    yield groups_table(groups)
    subjects = pd.concat([found.subjects, found.others])
    yield Chart(
        data_uri(figures.groups_figure(subjects, threshold=found.document["evaluation"]["threshold"])),
        "Box plots of the probability of AD by diagnosis, one dot per subject; the numbers are in the table.",
        "Probability of AD of each subject, by diagnosis; dashed: the threshold.",
    )


def _maps(found: External) -> Iterator[Block]:
    shape = found.underlay.shape
    diagnosis = found.predictions.drop_duplicates("scan")["diagnosis"]
    for name, (title, unit) in MAPS.items():
        ad, cn = (found.maps[f"{name}_{group}"].reshape(shape) for group in ("ad", "cn"))
        figure = group_map_figure(
            ad, cn, ad - cn, found.underlay, found.affine, unit=unit,
            n_ad=int((diagnosis == "AD").sum()), n_cn=int((diagnosis == "CN").sum()),
        )  # fmt: skip
        yield Chart(
            data_uri(figure, "png"),
            f"{title}: mean maps of AD and of CN scans, and their difference, on coronal sections.",
            f"{title}, in {unit}: means over scans.",
            wide=True,
        )


def _subgroups(found: External) -> Iterator[Block]:
    yield Text("Subgroups are post hoc and small: an odd one is a question, not a result.")
    yield replace(subgroups_table(found.subgroups), caption="Subgroups of the subjects")
    yield Chart(
        data_uri(figures.subgroups_figure(found.subgroups)),
        "AUC and balanced accuracy with intervals by age, sex, site and scanner; the numbers are in the "
        "table.",
        "Thin line: all subjects.",
        wide=True,
    )


def _scans(found: External) -> Iterator[Block]:
    document = found.document
    if document["unusable"]:
        yield Text(f"{plural(document['unusable'], 'file')} unusable; refused.csv has the reasons.")
    if found.refused.empty:
        yield Text("No scan was refused by the quality checks.")
        return
    counts = found.refused["reason"].value_counts()
    yield Text(f"{plural(len(found.refused), 'scan')} refused; refused.csv lists them by name.")
    listed = [f"{count}: {reason}" for reason, count in counts.head(REASONS_LISTED).items()]
    more = len(counts) - len(listed)
    yield Items((*listed, *([f"{more} other reasons"] if more else [])))
