"""Folds of a cross-validation: everybody is tested once, by a network that others were trained for."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.cohort.splits import cross_validation_folds, fold_parts
from adpet.errors import InputError


def _people(count):
    return pd.DataFrame(
        {
            "subject": [f"sub-{number:03d}" for number in range(count)],
            "diagnosis": np.where(np.arange(count) % 2 == 1, "AD", "CN"),
            "age": np.linspace(60, 90, count),
            "sex": np.where(np.arange(count) % 3 == 0, "F", "M"),
        }
    )


@settings(max_examples=30)
@given(count=st.integers(40, 120), folds=st.integers(3, 10), seed=st.integers(0, 100))
def test_folds_are_equal_balanced_and_together_everybody(count, folds, seed):
    found = cross_validation_folds(_people(count), folds=folds, seed=seed)
    assert found["subject"].tolist() == _people(count)["subject"].tolist()
    sizes = found["fold"].value_counts()
    assert sorted(sizes.index) == list(range(folds))
    assert sizes.max() - sizes.min() <= 3
    cases = found.groupby("fold")["diagnosis"].agg(lambda group: (group == "AD").mean())
    assert cases.between(0.2, 0.8).all()


def test_each_subject_is_tested_once_validates_once_and_never_both():
    found = cross_validation_folds(_people(40), folds=4, seed=0)
    parts = pd.DataFrame(
        {fold: fold_parts(found, fold=fold).set_index("subject")["part"] for fold in range(4)}
    )
    for part, times in (("test", 1), ("validation", 1), ("train", 2)):
        assert ((parts == part).sum(axis=1) == times).all()


def test_more_folds_than_subjects_of_a_diagnosis_are_refused():
    with pytest.raises(InputError, match="required AD in each of 10 parts"):
        cross_validation_folds(_people(12), folds=10, seed=0)
