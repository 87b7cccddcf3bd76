"""Figures of an evaluation, drawn from what lies in its folder alone: no network, no scans."""

from adpet.artifacts import (
    CALIBRATION,
    EVALUATE,
    METRICS,
    PRECISION_RECALL,
    ROC,
    ROC_BAND,
    SUBGROUPS,
    SUBJECTS,
    read_json,
)
from adpet.evidence.drawing import save_figure
from adpet.evidence.figures import (
    calibration_figure,
    confusion_figure,
    precision_recall_figure,
    probability_figure,
    roc_figure,
)
from adpet.evidence.forest_figures import baselines_figure, subgroups_figure
from adpet.stages.tables import read_results


def draw() -> None:
    """Draw every figure anew."""
    metrics = read_json(METRICS)
    figures = {
        "roc": roc_figure(read_results(ROC), read_results(ROC_BAND), metrics=metrics),
        "precision_recall": precision_recall_figure(read_results(PRECISION_RECALL), metrics=metrics),
        "calibration": calibration_figure(read_results(CALIBRATION), metrics=metrics),
        "confusion": confusion_figure(metrics),
        "probabilities": probability_figure(read_results(SUBJECTS), threshold=metrics["threshold"]),
        "baselines": baselines_figure(metrics),
        "subgroups": subgroups_figure(read_results(SUBGROUPS)),
    }
    for name, figure in figures.items():
        save_figure(figure, EVALUATE / f"{name}.png")
