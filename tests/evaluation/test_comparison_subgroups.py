"""Subgroups: everybody stands in one group of each fact, and nothing is said where nothing can be."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adpet.evaluation.aggregation import subject_probabilities
from adpet.evaluation.comparison import FACTS, subgroup_table, subject_facts


@pytest.fixture
def subjects(make_predictions):
    return subject_probabilities(make_predictions(subjects=40), aggregation="mean_logit")


def _scans(subjects):
    """One scan a subject; the first site has one subject, all sites beyond it both diagnoses."""
    count = len(subjects)
    return pd.DataFrame(
        {
            "subject": subjects["subject"],
            "age": np.linspace(60, 90, count),
            "sex": ["F", "F", "M", "M"] * (count // 4),
            "site": ["S0", *["S1"] * (count - 1)],
            "scanner": "HRRT",
        }
    )


class TestFacts:
    def test_ages_fall_into_decades_whose_ends_are_open(self, subjects):
        scans = _scans(subjects).head(6).assign(age=[64.9, 65.0, 74.9, 75.0, 85.0, np.nan])
        bands = subject_facts(scans)["age"].tolist()
        assert bands == ["under 65", "65 to 74", "65 to 74", "75 to 84", "85 and over", "unknown"]

    def test_a_subject_with_several_scanners_says_so_and_an_empty_cell_is_unknown(self, subjects):
        scans = pd.concat([_scans(subjects).head(2)] * 2, ignore_index=True)
        scans["scanner"] = ["HRRT", "", "D690", ""]
        assert subject_facts(scans)["scanner"].tolist() == ["several", "unknown"]
        assert len(subject_facts(scans)) == 2


class TestTable:
    def test_every_fact_counts_every_subject_once(self, subjects):
        table = subgroup_table(subjects, subject_facts(_scans(subjects)), threshold=0.5)
        for fact in FACTS:
            assert table.loc[table["fact"] == fact, "n"].sum() == len(subjects)
        assert (table["n"] == table["n_ad"] + table["n_cn"]).all()

    def test_values_are_those_of_the_group_alone(self, subjects):
        scans = _scans(subjects)
        table = subgroup_table(subjects, subject_facts(scans), threshold=0.5).set_index(["fact", "group"])
        women = subjects[(scans["sex"] == "F").to_numpy()]
        expected = roc_auc_score(women["diagnosis"] == "AD", women["probability"])
        assert table.loc[("sex", "F"), "auc"] == pytest.approx(expected)

    def test_a_group_of_one_diagnosis_has_empty_cells_and_not_nought(self, subjects):
        table = subgroup_table(subjects, subject_facts(_scans(subjects)), threshold=0.5)
        alone = table[(table["fact"] == "site") & (table["group"] == "S0")].iloc[0]
        assert (alone["n"], alone["n_cn"]) == (1, 1)
        assert alone[["auc", "auc_low", "balanced_accuracy", "balanced_accuracy_high"]].isna().all()

    def test_two_subjects_who_are_told_apart_prove_little(self, subjects):
        facts = subject_facts(_scans(subjects)).assign(sex=["rare", "rare", *["F"] * 38])
        told = subjects.assign(probability=(subjects["diagnosis"] == "AD") * 0.8 + 0.1)
        table = subgroup_table(told, facts, threshold=0.5).set_index("group")
        assert table.loc["rare", "auc"] == 1
        assert table.loc["rare", "auc_low"] < 0.5

    def test_age_bands_stand_in_their_order(self, subjects):
        table = subgroup_table(subjects, subject_facts(_scans(subjects)), threshold=0.5)
        bands = table.loc[table["fact"] == "age", "group"].tolist()
        assert bands == ["under 65", "65 to 74", "75 to 84", "85 and over"]
