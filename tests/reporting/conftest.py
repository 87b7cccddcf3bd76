"""Documents as the stages write them, for the report and the model card."""

import numpy as np
import pandas as pd
import pytest

from adpet.evaluation.comparison import COMPARED
from adpet.evaluation.saliency import SCORES

AGES, PEOPLE = {"known": 18, "mean": 74.0, "sd": 7.0}, {"F": 9, "M": 9, "unknown": 0}


def ingest_document() -> dict:
    group = {"scans": 18, "subjects": 18, "age": AGES, "sex": PEOPLE}
    nothing = {"files": 0, "reasons": {}}
    return {
        "scans": 36,
        "subjects": 36,
        "diagnosis": {"AD": group, "CN": group},
        "sites": {"S01": 20, "S02": 16},
        "scanners": {"HR+": 36},
        "rejected": {"unusable": nothing, "skipped": nothing},
        "warnings": [],
    }


def leakage_document() -> dict:
    from adpet.evaluation.leakage import ARMS

    measure = {"value": 0.75, "low": 0.6, "high": 0.9}
    arm = {
        "slice": {"accuracy": measure, "auc": measure},
        "training_accuracy": 1.0,
        "test_subjects": 15,
        "shared_subjects": 0,
    }
    return {
        "verdict": "clean",
        "reason": "new subjects are at chance",
        "gap": {
            "true_labels": {"value": 0.18, "low": 0.06, "high": 0.3},
            "shuffled_labels": {"value": 0.4, "low": 0.27, "high": 0.52},
        },
        "arms": dict.fromkeys(ARMS, arm),
        "cohort": {"subjects": 60, "planes": 16, "step_mm": 3.0},
    }


def cam_document() -> dict:
    group = {"scans": 18, "ad_pattern": {"mass": 0.2, "over_volume": 2.5}}
    score = {"value": 0.7, "low": 0.6, "high": 0.8}
    areas = {"deletion": 0.5, "insertion": 0.4}
    return {
        "exact": {"ad": group, "cn": group},
        "referenced": {"ad": group, "cn": group},
        "outside": 0.02,
        "alarms": [],
        "method": "cam",
        "reference_scans": 60,
        "truth": {
            "scans": 12,
            "untrained": {
                "networks": 2,
                "scans": 24,
                "untrained referenced": {score: {"lowest": 0.4, "highest": 0.6} for score in SCORES},
            },
            "area_share": 0.4,
            "scores": {
                "referenced": dict.fromkeys(SCORES, score),
                "untrained referenced": dict.fromkeys(SCORES, score | {"value": 0.5}),
            },
            "differences": {"referenced": {"group mean": dict.fromkeys(SCORES, score | {"low": -0.1})}},
            "verdict": {"referenced": "A patient's own map adds nothing measurable to the group mean."},
            "side": {"least_asymmetry": 0.05, "subjects": 9, "left": 4, "agreement": {"referenced": score}},
        },
        "sanity": {
            "scans": 2,
            "cascade": [{"layer": "none", "similarity": 1.0}, {"layer": "head", "similarity": -0.1}],
            "area_over_random": {"exact": areas, "referenced": areas},
        },
    }


def trained_document() -> dict:
    params = {
        "seed": 1,
        "normalize": {"align": "affine", "grid_mm": 8.0, "smoothing_mm": 8.0, "reference": "global"},
        "slice": {"range_mm": [-84.0, 36.0], "step_mm": 8.0},
        "model": {"input_size": 64, "alpha": 0.5, "feature_layer": "block_6_expand_relu", "weights": "none"},
        "train": {"optimizer": "adamw", "epochs": 3, "batch_size": 32, "learning_rate": 0.001},
    }
    lineage = {
        "id": "0123456789abcdef",
        "data": "d41d8cd98f00b204e9800998ecf8427e.dir",
        "split": "38d180545e60015b12c972b8bd928afcbbb673835b03ae26745df2cbf0e29ee0",
        "params": params,
        "commit": "d11ab7cc2a6ac69682b673b6ce48c40922de57a1",
        "code": "211fc0a27a661ccc",
        "seed": 1,
        "backend": "tensorflow",
        "versions": {"keras": "3.15.1", "numpy": "2.4.6"},
    }
    return {"lineage": lineage, "best_epoch": 1, "final": {"val_loss": 0.4}, "folds": [FOLD] * 5}


FOLD = {"trained_on": ["a"], "validated_on": ["b"], "best_epoch": 1}


def split_document() -> dict:
    part = {"subjects": 36, "scans": 36, "slices": 576, "AD": 18, "CN": 18, "age_mean": 74.2, "women": 0.5}
    return {"hash": "f" * 64, "unit": "subject", "leaky": False, "parts": {"test": part}}


@pytest.fixture(scope="session")
def evaluated(make_predictions):
    """The evaluation of a fair network: its document, and its tables."""
    from adpet.evaluation.aggregation import Pooling, subject_probabilities
    from adpet.evaluation.comparison import subgroup_table
    from adpet.evaluation.metrics import (
        calibration_points,
        evaluation,
        precision_recall_curves,
        roc_band,
        roc_curves,
    )
    from adpet.reporting.components import Evaluation

    test, validation = make_predictions(), make_predictions(prefix="val-", seed=1)
    metrics = evaluation(test, validation, pooling=Pooling(), seed=0, resamples=100)
    lead = {"value": 0.1, "low": 0.02, "high": 0.2}
    area, names = {"value": 0.7, "low": 0.5, "high": 0.85}, ("regions", "voxels", "site")
    metrics |= {
        "baselines": dict.fromkeys(names, dict.fromkeys(COMPARED, area)),
        "differences": dict.fromkeys(names, dict.fromkeys(COMPARED, lead)),
        "leakage": {"leaky": 0},
        "oracle": {"auc": {"value": 0.99, "low": 0.97, "high": 1.0}},
    }
    subjects = subject_probabilities(test, Pooling())
    facts = subjects[["subject"]].assign(age="65 to 74", sex="F", site="S01", scanner="HR+")
    facts.loc[0, "site"] = "S02"
    tables = Evaluation(
        subjects=subjects.drop(columns="subject"),
        subgroups=subgroup_table(subjects, facts, threshold=metrics["threshold"]),
        roc=roc_curves(subjects, test),
        roc_band=roc_band(subjects, seed=0, resamples=100),
        precision_recall=precision_recall_curves(subjects, test),
        calibration=calibration_points(subjects, test),
    )
    return metrics, tables


@pytest.fixture(scope="session")
def make_documents(evaluated):
    """Documents of a report: a network that beats its baselines, a clean leakage test, maps that find the truth.

    Changes of a document are merged into it.
    """
    from adpet.evaluation.comparison import findings
    from adpet.reporting.components import Documents

    def make(*, lead=None, leaky=False, **changes):
        metrics, tables = evaluated
        if lead is not None:
            scores = dict.fromkeys(COMPARED, lead)
            metrics = metrics | {"differences": dict.fromkeys(("regions", "voxels", "site"), scores)}
        if leaky:
            metrics = metrics | {"baselines": {}, "differences": {}, "leakage": {"leaky": 1}}
        history = pd.DataFrame({"epoch": [0, 1, 2], "loss": [0.7, 0.5, 0.4], "val_loss": [0.7, 0.5, 0.6]})
        standard = {
            "metrics": metrics,
            "findings": findings(metrics),
            "evaluation": tables,
            "trained": trained_document(),
            "history": history,
            "ingest": ingest_document(),
            "split": split_document(),
            "aggregation": "mean_logit",
            "is_simulated": True,
            "leakage": leakage_document(),
            "cam": cam_document(),
        }
        for key, change in changes.items():
            standard[key] = standard[key] | change if key in standard and isinstance(change, dict) else change
        return Documents(**standard)

    return make


@pytest.fixture(scope="session")
def cross_validated():
    """Pooled results of three folds of eight subjects; in the last one a network that is at chance."""
    from adpet.evaluation.cross_validation import COLUMNS, pooled_summary

    def make(searched=8):
        rng = np.random.default_rng(3)
        subjects = pd.DataFrame({"subject": [f"s{number:02}" for number in range(24)], "threshold": 0.5})
        subjects["diagnosis"] = ["AD", "CN"] * 12
        subjects["fold"] = np.repeat([0, 1, 2], 8)
        shifted = np.where(subjects["fold"] == 2, 0.0, 0.4) * np.where(subjects["diagnosis"] == "AD", 1, -1)
        subjects["probability"] = 0.5 + shifted + rng.uniform(-0.05, 0.05, 24)
        subjects["searched"] = np.arange(24) < searched
        return pooled_summary(subjects[list(COLUMNS)], seed=0, resamples=100)

    return make


@pytest.fixture(scope="session")
def sanity_tables():
    """Cascade, and curves of deletion and insertion."""
    cascade = pd.DataFrame({"layer": ["none", "head", "Conv1"], "similarity": [1.0, 0.2, 0.0]})
    cascade["lowest"], cascade["highest"] = cascade["similarity"] - 0.1, cascade["similarity"] + 0.1
    curves = [
        {"scan": scan, "map": name, "share": share, "deletion": 2 - share, "insertion": share}
        for scan in ("a", "b")
        for name in ("exact", "referenced", "random")
        for share in (0.0, 0.5, 1.0)
    ]
    return cascade, pd.DataFrame(curves)
