import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.cohort.reader import follow_policy, in_order_of_time
from adpet.cohort.tables import Candidate, Findings

WORDS = {"AD": "AD", "Dementia": "AD", "CN": "CN"}


def scan(session, diagnosis="CN", *, subject="1", date="", age=math.nan, run=""):
    file = Path(f"{subject}_{session}.nii")
    return Candidate(file, subject, session, run, diagnosis=diagnosis, date=date, age=age)


def settle(policy, *scans, diagnoses=None):
    found = Findings(candidates=list(scans), diagnoses=diagnoses or {})
    kept = follow_policy(found, policy=policy, diagnosis_map=WORDS)
    return {(one.subject, one.session): one.diagnosis for one in kept}, found.rejected


class TestVisit:
    def test_each_scan_has_the_diagnosis_of_its_visit(self):
        kept, rejected = settle("visit", scan("1", "CN"), scan("2", "MCI"), scan("3", "AD"))
        assert [*kept.values()] == ["CN", "MCI", "AD"]
        assert not rejected


class TestBaseline:
    def test_all_scans_have_the_diagnosis_of_the_first(self):
        kept, rejected = settle(
            "baseline", scan("m12", "AD"), scan("m6", "MCI"), scan("1", "CN", subject="2")
        )
        assert kept == {("1", "m6"): "MCI", ("1", "m12"): "MCI", ("2", "1"): "CN"}
        assert not rejected

    def test_a_later_diagnosis_does_not_stand_in_for_an_unknown_first_one(self):
        kept, rejected = settle("baseline", scan("m6", ""), scan("m12", "AD"))
        assert not kept
        assert [item.kind for item in rejected] == ["unusable"] * 2
        assert "no diagnosis of the subject's first scan" in rejected[0].reason


class TestStableOnly:
    @pytest.mark.parametrize(
        "pair", [("CN", "MCI"), ("MCI", "AD"), ("AD", "MCI"), ("AD", "CN"), ("EMCI", "LMCI")]
    )
    def test_who_changes_is_skipped_whatever_the_change(self, pair):
        first, second = pair
        kept, rejected = settle("stable-only", scan("1", first), scan("2", second), scan("1", subject="2"))
        assert [*kept] == [("2", "1")]
        assert [item.kind for item in rejected] == ["skipped"] * 2
        assert f"diagnosis changes ({', '.join(sorted(pair))})" in rejected[0].reason

    def test_another_word_for_the_same_is_no_change(self):
        kept, _ = settle("stable-only", scan("1", "AD"), scan("2", "dementia"), scan("3", "ad"))
        assert len(kept) == 3

    def test_an_unknown_diagnosis_is_no_change(self):
        kept, _ = settle("stable-only", scan("1", "AD"), scan("2", ""))
        assert len(kept) == 2

    def test_visits_without_a_scan_count(self):
        kept, _ = settle("stable-only", scan("1", "CN"), diagnoses={"1": {"CN", "MCI"}})
        assert not kept


class TestOrderOfTime:
    def order(self, *scans):
        return [one.session for one in in_order_of_time(scans)]

    def test_dates_come_before_ages_and_labels(self):
        scans = scan("a", date="20210101", age=60), scan("b", date="20200101", age=70)
        assert self.order(*scans) == ["b", "a"]

    def test_ages_stand_in_for_dates(self):
        assert self.order(scan("a", age=71.5), scan("b", age=70, date="20200101")) == ["b", "a"]

    def test_labels_tell_visits_of_one_year_of_age_apart(self):
        assert self.order(scan("m12", age=70), scan("m6", age=70)) == ["m6", "m12"]

    def test_labels_are_in_natural_order_where_neither_is_known_of_all(self):
        assert self.order(scan("m12", age=60), scan("m6"), scan("m108")) == ["m6", "m12", "m108"]

    def test_names_of_a_first_session_come_first(self):
        assert self.order(scan("1"), scan("m06"), scan("Baseline"), scan("sc")) == [
            "sc",
            "Baseline",
            "1",
            "m06",
        ]

    @given(
        st.lists(
            st.tuples(
                st.text(max_size=3),
                st.sampled_from(["", "20200101", "20210101"]),
                st.sampled_from([math.nan, 70, 71]),
            ),
            min_size=1,
            max_size=6,
            unique_by=lambda one: one[0].casefold(),
        )
    )
    def test_it_does_not_depend_on_how_the_table_is_sorted(self, drawn):
        scans = [scan(session, date=date, age=age) for session, date, age in drawn]
        assert in_order_of_time(scans) == in_order_of_time(scans[::-1])
