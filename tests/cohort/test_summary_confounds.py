"""Groups that a factor alone tells apart are warned of; sound cohorts, small or with many sites, are not."""

import math

import numpy as np
import pandas as pd
import pytest

from adpet.cohort.scans import scans_table
from adpet.cohort.summary import FACTORS, MAX_P, first_visits, judge_factors
from adpet.simulation.cohort import SimulationRecipe, draw_cohort


def cohort(number, *, seed=0, sites=4, **columns):
    """Subjects whose diagnosis has to do with nothing, or with the columns that are given."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "subject": [f"{n}" for n in range(number)],
            "diagnosis": rng.permutation(["AD", "CN"] * (number // 2)),
            "age": rng.normal(75, 7, number),
            "sex": rng.choice(["F", "M"], number),
            "site": rng.integers(sites, size=number).astype(str),
            "scanner": rng.choice(["HR+", "HRRT", "D690"], number),
            "level": "",
        }
    )
    return table.assign(**columns)


def suspicious(subjects):
    return {factor.name for factor in judge_factors(subjects) if factor.tells_apart or factor.one_group}


def told(subjects, name):
    (factor,) = (factor for factor in judge_factors(subjects) if factor.name == name)
    return factor


def is_ad(subjects):
    return subjects["diagnosis"] == "AD"


class TestFalseAlarms:
    @pytest.mark.parametrize(("number", "sites"), [(20, 3), (60, 20), (180, 60), (600, 8)])
    def test_of_sound_cohorts_few_are_warned_of(self, number, sites):
        # 40 cohorts of 4 factors with two tests each, at a rate of 1 in 100: 3 alarms are expected at most.
        alarms = sum(len(suspicious(cohort(number, seed=seed, sites=sites))) for seed in range(40))
        assert alarms <= 8

    def test_a_large_sound_cohort_has_an_auc_of_a_half(self):
        for factor in judge_factors(cohort(2000, sites=50)):
            assert factor.auc == pytest.approx(0.5, abs=0.04)

    @pytest.mark.parametrize("number", [16, 180])
    def test_the_phantom_is_balanced(self, number):
        drawn = draw_cohort(
            SimulationRecipe(ad_subjects=number // 2, cn_subjects=number // 2, seed=2019)
        ).assign(level="", path="", content="")
        drawn["scan"] = "sub-" + drawn["subject"] + "_ses-" + drawn["session"]
        columns = drawn.assign(frame_seconds="")
        subjects = first_visits(scans_table(columns.to_dict("records")))
        assert len(subjects) == number
        assert suspicious(subjects) == set()


class TestWarnings:
    def test_a_diagnosis_made_of_the_scanner(self):
        subjects = cohort(60)
        subjects["scanner"] = np.where(is_ad(subjects), "HR+", "HRRT")
        factor = told(subjects, "scanner")
        assert factor.auc == 1
        assert factor.p < 0.001
        assert factor.one_group == ("HR+", "HRRT")

    def test_a_scanner_that_most_of_one_group_has(self):
        subjects = cohort(120)
        often = np.random.default_rng(1).random(120) < np.where(is_ad(subjects), 0.85, 0.2)
        factor = told(subjects.assign(scanner=np.where(often, "HR+", "HRRT")), "scanner")
        assert factor.tells_apart
        assert factor.one_group == ()

    @pytest.mark.parametrize("change", [10, -10])
    def test_groups_of_different_age(self, change):
        subjects = cohort(100)
        assert "age" in suspicious(subjects.assign(age=subjects["age"] + change * is_ad(subjects)))

    def test_ages_between_those_of_the_other_group(self):
        subjects = cohort(100)
        spread = np.where(is_ad(subjects), 2, 15)
        ages = 75 + spread * np.random.default_rng(2).normal(size=100)
        assert "age" in suspicious(subjects.assign(age=ages))

    def test_an_age_that_one_group_lacks(self):
        subjects = cohort(60)
        factor = told(subjects.assign(age=subjects["age"].where(is_ad(subjects))), "age")
        assert factor.tells_apart
        assert "unknown" in factor.one_group

    def test_a_processing_level_that_one_group_has(self):
        subjects = cohort(60)
        assert suspicious(subjects.assign(level=np.where(is_ad(subjects), "averaged", "uniform"))) == {
            "level"
        }

    def test_one_large_site_of_one_group_among_many_mixed_ones(self):
        subjects = cohort(200, sites=10)
        ill = subjects.index[is_ad(subjects)][:20]
        subjects.loc[ill, "site"] = "hospital"
        assert told(subjects, "site").one_group == ("hospital",)

    def test_small_sites_of_one_group_are_chance(self):
        subjects = cohort(100).assign(site=[f"{n // 2}" for n in range(100)])
        factor = told(subjects, "site")
        assert factor.one_group == ()
        assert not factor.tells_apart


class TestWhatCannotBeJudged:
    def test_a_factor_that_is_the_same_for_all_is_left_out(self):
        names = {factor.name for factor in judge_factors(cohort(20).assign(site="", age=math.nan))}
        assert names == set(FACTORS) - {"site", "age", "level"}

    @pytest.mark.parametrize("number", [0, 5])
    def test_one_group_alone_is_not_compared(self, number):
        assert judge_factors(cohort(20).query("diagnosis == 'AD'").head(number)) == []


def test_the_first_scan_of_a_subject_counts():
    rows = [
        {"scan": f"s{visit}", "subject": "1", "session": visit, "diagnosis": "AD", "age": 70.0 + int(visit),
         "sex": "F", "site": "A", "scanner": f"scanner {visit}", "level": visit, "path": visit,
         "frame_seconds": "", "content": ""}
        for visit in "21"
    ]  # fmt: skip
    (subject,) = first_visits(scans_table(rows)).to_dict("records")
    assert (subject["age"], subject["scanner"], subject["level"]) == (71.0, "scanner 1", "1")


def test_the_same_subjects_are_judged_the_same():
    assert judge_factors(cohort(50)) == judge_factors(cohort(50))
    assert 0 < told(cohort(50), "sex").p <= 1
    assert MAX_P < 0.05
