"""Cross-validation: a threshold a fold, every subject once."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adpet.evaluation.cross_validation import COLUMNS, fold_subjects, pooled_summary


@pytest.fixture
def fold_predictions(make_predictions):
    def made(fold, shift=0.0):
        test = make_predictions(prefix=f"fold{fold}-", seed=fold, slices=4)
        validation = make_predictions(prefix=f"val{fold}-", seed=10 + fold, slices=4).assign(
            part="validation"
        )
        both = pd.concat([test, validation], ignore_index=True)
        logit = np.log(both["probability"] / (1 - both["probability"])) + shift
        return both.assign(probability=1 / (1 + np.exp(-logit)))

    return made


def _subjects(fold_predictions, shifts=(0.0, 0.0, 0.0)):
    tables = [
        fold_subjects(fold_predictions(fold, shift), fold=fold, aggregation="mean_logit", positions=4)
        for fold, shift in enumerate(shifts)
    ]
    subjects = pd.concat(tables).sort_values("subject", ignore_index=True)
    return subjects.assign(searched=np.arange(len(subjects)) % 4 < 2)[list(COLUMNS)]


def test_fold_gives_test_subjects_and_validation_threshold(fold_predictions):
    predictions = fold_predictions(0)
    found = fold_subjects(predictions, fold=0, aggregation="mean_probability", positions=4)
    assert found["subject"].str.startswith("fold0-").all()
    assert set(found["threshold"]) == {0.5}  # as many AD as CN subjects validate


def test_subjects_are_classified_by_their_own_folds_threshold(fold_predictions):
    # The folds' networks are unlike in their offset: one threshold for all would call a fold wrong.
    summary = pooled_summary(_subjects(fold_predictions, (-6.0, 0.0, 6.0)), seed=0, resamples=100)
    assert summary["pooled"]["accuracy"]["value"] > 0.7
    assert summary["pooled"]["accuracy"]["value"] == pytest.approx(summary["spread"]["accuracy"]["mean"])


def test_summary_counts_every_subject_once(fold_predictions):
    subjects = _subjects(fold_predictions)
    summary = pooled_summary(subjects, seed=0, resamples=100)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    folds = {fold: {"ad": 18, "cn": 18} for fold in "012"}
    assert summary["counts"] == {"subjects": 108, "searched": 54, "fold": folds}
    pooled = roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"])
    assert summary["pooled"]["auc"]["value"] == pytest.approx(pooled)
    areas = [summary["fold"][str(fold)]["auc"]["value"] for fold in range(3)]
    spread = summary["spread"]["auc"]
    assert (spread["low"], spread["high"]) == (min(areas), max(areas))
    assert spread["sd"] == pytest.approx(np.std(areas, ddof=1))


def test_subjects_new_to_the_search_are_reported_separately(fold_predictions):
    subjects = _subjects(fold_predictions)
    rest = subjects[~subjects["searched"]]
    found = pooled_summary(subjects, seed=0, resamples=100)["unsearched"]["auc"]["value"]
    assert found == pytest.approx(roc_auc_score(rest["diagnosis"] == "AD", rest["probability"]))
    unsearched = pooled_summary(subjects.assign(searched=False), seed=0, resamples=100)
    assert "unsearched" not in unsearched
