"""Summaries count all that was found and warn of confounds, sound cohorts aside."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from made_up import scan_row

from adpet.cohort.scans import Collection, rejected_table, scans_table
from adpet.cohort.summary import (
    COLUMNS,
    FACTORS,
    TECHNICAL,
    first_visits,
    ingest_report,
    measure_confounds,
    quality_text,
    report_text,
)
from adpet.simulation.cohort import SimulationRecipe, draw_cohort


def row(number, diagnosis, session="1", **values):
    usual = {"age": 60.0 + number % 20, "sex": "FM"[number // 2 % 2], "site": "AB"[number // 2 % 2]}
    return scan_row(str(number), session, diagnosis, **usual | {"level": "averaged"} | values)


def collection(change=lambda number, diagnosis: {}, *, reasons=()):
    rows = [row(n, d, **change(n, d)) for n in range(40) for d in [("AD", "CN")[n % 2]]]
    rows += [row(0, "AD", "2", age=62.0), row(1, "CN", "2", age=63.0), row(1, "CN", "3", age=64.0)]
    rejected = [
        {"file": f"{n}.nii", "reason": reason, "kind": kind} for n, (kind, reason) in enumerate(reasons)
    ]
    return Collection(
        scans_table(rows), rejected_table(rejected), tracers={"FDG": 43, "AV45": 7}, levels={"averaged": 43, "raw": 9}
    )  # fmt: skip


@pytest.fixture
def report():
    reasons = [("skipped", "tracer AV45 is not FDG")] * 7 + [
        ("unusable", "truncated: " + "it is short " * 20)
    ]
    return ingest_report(collection(reasons=reasons))


def scanner_of_the_group(_, diagnosis):
    return {"scanner": {"AD": "Siemens Biograph 64 TruePoint", "CN": "GE Discovery 690"}[diagnosis]}


class TestQuality:
    def scans(self, **columns):
        scans = collection().scans
        return scans.assign(passed=True, flagged="", **dict.fromkeys(TECHNICAL, 0.1) | columns)

    def test_scans_are_told_by_group_and_by_sites_with_flags(self):
        scans = self.scans()
        scans.loc[scans["scan"] == "sub-0_ses-1", ["passed", "flagged"]] = [False, ""]
        scans.loc[scans["scan"] == "sub-1_ses-1", "flagged"] = "asymmetry 0.3, required 0.25 or less"
        assert quality_text(scans).splitlines() == [
            "AD         21 scans, 1 set aside, 0 flagged",
            "CN         22 scans, 0 set aside, 1 flagged",
            "A          23 scans, 1 set aside, 1 flagged",
        ]

    @pytest.mark.parametrize("name", TECHNICAL)
    def test_measure_that_gives_the_diagnosis_away_is_warned_of(self, name):
        rng = np.random.default_rng(0)
        noise = rng.normal(0, 0.01, 43)
        assert "WARNING" not in quality_text(self.scans(**{name: 0.2 + noise}))
        apart = np.where(collection().scans["diagnosis"] == "AD", 0.1, 0.2) + noise
        assert f"told apart by {name} alone" in quality_text(self.scans(**{name: apart}))

    def test_cohort_without_a_usable_scan_is_told(self):
        assert "22 scans, 22 set aside" in quality_text(self.scans().assign(passed=False))


class TestReport:
    def test_groups_are_compared_per_subject_at_the_first_scan(self, report):
        assert report["balance"]["sex"]["AD"] == {"F": 10, "M": 10}
        assert report["balance"]["age"]["AD"] == {"known": 20, "unknown": 0, "mean": 69.0, "sd": 5.9}
        assert "scanner" not in report["balance"]
        assert report["warnings"] == []

    def test_scanner_that_gives_the_diagnosis_away_is_warned_of(self):
        first, *others = ingest_report(collection(scanner_of_the_group))["warnings"]
        assert "told apart by scanner alone (AUC 1.00 beyond chance, p <0.001)" in first
        assert [text.partition(" has subjects of one group alone")[0] for text in others] == [
            "scanner GE Discovery 690",
            "scanner Siemens Biograph 64 TruePoint",
        ]

    @pytest.mark.parametrize(
        ("ad", "cn", "visits", "said"),
        [
            (20, 20, 3, []),
            (
                8,
                80,
                1,
                ["only 8 AD subjects: an AUC of 0.9 is uncertain by 0.15", "80 CN and 8 AD: training weighs"],
            ),
            (3, 3, 1, ["only 3 AD subjects: an AUC of 0.9 is uncertain by 0.29"]),
            (30, 30, 20, ["one subject has 20 of 79 scans"]),
        ],
    )
    def test_small_or_lopsided_cohort_is_told_what_to_expect(self, ad, cn, visits, said):
        rows = [row(n, "AD" if n < ad else "CN", age=70.0, sex="F", site="A") for n in range(ad + cn)]
        rows += [row(0, "AD", str(visit), age=70.0, sex="F", site="A") for visit in range(2, visits + 1)]
        warnings = ingest_report(Collection(scans_table(rows), rejected_table([])))["warnings"]
        assert all(text.startswith(words) for text, words in zip(warnings, said, strict=True))

    def test_report_is_json(self, report):
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        json.dumps(ingest_report(Collection(scans_table([]), rejected_table([]))), allow_nan=False)


class TestText:
    def test_text_says_what_was_found(self, report):
        text = report_text(report)
        for part in (
            "43 used, of 40 subjects (20 AD, 20 CN)",
            "38 with 1, 1 with 2, 1 with 3",
            "43 averaged (there are: 43 averaged, 9 raw)",
            "7 AV45, 43 FDG",
            "        7  skipped   tracer AV45 is not FDG",
            "        1  unusable  truncated: it is short",
            "69.0 (SD 5.9)",
        ):
            assert part in text
        assert "WARNING" not in text

    @pytest.mark.parametrize(
        "change", [lambda *_: {}, scanner_of_the_group, lambda n, d: {"site": "x" * 50 + str(n)}]
    )
    def test_no_line_is_wider_than_a_terminal(self, change):
        reasons = [("unusable", "a word " * 40), ("unusable", "x" * 300)]
        text = report_text(ingest_report(collection(change, reasons=reasons)))
        assert max(map(len, text.splitlines())) <= COLUMNS


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
    return {factor.name for factor in measure_confounds(subjects) if factor.tells_apart or factor.one_group}


def factor_of(subjects, name):
    (factor,) = (factor for factor in measure_confounds(subjects) if factor.name == name)
    return factor


def is_ad(subjects):
    return subjects["diagnosis"] == "AD"


class TestFalseAlarms:
    @pytest.mark.parametrize(("number", "sites"), [(20, 3), (60, 20), (180, 60), (600, 8)])
    def test_of_sound_cohorts_few_are_warned_of(self, number, sites):
        # 40 cohorts of 4 factors with two tests each, at a rate of 1 in 100: 3 alarms are expected at most.
        alarms = sum(len(suspicious(cohort(number, seed=seed, sites=sites))) for seed in range(40))
        assert alarms <= 8

    @pytest.mark.parametrize("number", [16, 180])
    def test_simulated_cohort_is_balanced(self, number):
        drawn = draw_cohort(
            SimulationRecipe(ad_subjects=number // 2, cn_subjects=number // 2, seed=2019)
        ).assign(level="", path="", content="")
        drawn["scan"] = "sub-" + drawn["subject"] + "_ses-" + drawn["session"]
        columns = drawn.assign(frame_seconds="")
        subjects = first_visits(scans_table(columns.to_dict("records")))
        assert len(subjects) == number
        assert suspicious(subjects) == set()


class TestWarnings:
    def test_scanner_that_most_of_one_group_has(self):
        subjects = cohort(120)
        often = np.random.default_rng(1).random(120) < np.where(is_ad(subjects), 0.85, 0.2)
        factor = factor_of(subjects.assign(scanner=np.where(often, "HR+", "HRRT")), "scanner")
        assert factor.tells_apart
        assert factor.one_group == ()

    @pytest.mark.parametrize("change", [10, -10])
    def test_groups_of_different_age(self, change):
        subjects = cohort(100)
        assert "age" in suspicious(subjects.assign(age=subjects["age"] + change * is_ad(subjects)))

    def test_age_that_one_group_lacks(self):
        subjects = cohort(60)
        factor = factor_of(subjects.assign(age=subjects["age"].where(is_ad(subjects))), "age")
        assert factor.tells_apart
        assert "unknown" in factor.one_group

    def test_one_large_site_of_one_group_among_many_mixed_ones(self):
        subjects = cohort(200, sites=10)
        ill = subjects.index[is_ad(subjects)][:20]
        subjects.loc[ill, "site"] = "hospital"
        assert factor_of(subjects, "site").one_group == ("hospital",)


class TestWhatCannotBeJudged:
    def test_factor_that_is_the_same_for_all_is_left_out(self):
        names = {factor.name for factor in measure_confounds(cohort(20).assign(site="", age=math.nan))}
        assert names == set(FACTORS) - {"site", "age", "level"}

    @pytest.mark.parametrize("number", [0, 5])
    def test_one_group_alone_is_not_compared(self, number):
        assert measure_confounds(cohort(20).query("diagnosis == 'AD'").head(number)) == []


def test_first_scan_of_a_subject_counts():
    rows = [
        row(1, "AD", visit, age=70.0 + int(visit), scanner=f"scanner {visit}", level=visit) for visit in "21"
    ]
    (subject,) = first_visits(scans_table(rows)).to_dict("records")
    assert (subject["age"], subject["scanner"], subject["level"]) == (71.0, "scanner 1", "1")
