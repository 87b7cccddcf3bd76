"""Figures of an evaluation, drawn from what lies in its folder alone: no network, no scans."""

import pandas as pd

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


def draw() -> None:
    """Draw every figure anew."""
    metrics = read_json(METRICS)
    figures = {
        "roc": roc_figure(pd.read_csv(ROC), pd.read_csv(ROC_BAND), metrics=metrics),
        "precision_recall": precision_recall_figure(pd.read_csv(PRECISION_RECALL), metrics=metrics),
        "calibration": calibration_figure(pd.read_csv(CALIBRATION), metrics=metrics),
        "confusion": confusion_figure(metrics),
        "probabilities": probability_figure(pd.read_csv(SUBJECTS), threshold=metrics["threshold"]),
        "baselines": baselines_figure(metrics),
        "subgroups": subgroups_figure(_read_subgroups()),
    }
    for name, figure in figures.items():
        save_figure(figure, EVALUATE / f"{name}.png")


def _read_subgroups() -> pd.DataFrame:
    # Names of sites are words, also "012" and "NA"; only an empty cell is a number that is not there.
    return pd.read_csv(SUBGROUPS, dtype={"group": "str"}, keep_default_na=False, na_values=[""])
