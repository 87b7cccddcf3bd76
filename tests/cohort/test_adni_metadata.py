from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.cohort.adni_metadata import MAX_DAYS, Exam, VisitDiagnoses, read_visit_diagnoses
from adpet.errors import InputError

TABLE = """PTID,RID,VISCODE,VISCODE2,EXAMDATE,DIAGNOSIS
002_S_0295,295,bl,bl,2006-11-02,1
002_S_0295,295,v05,m12,11/30/2007,2
002_S_0295,295,v11,m24,2008-12-01,3.0
"""


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "DXSUM.csv"
        path.write_text(text)
        return read_visit_diagnoses(path)

    return of


def at(table, visit="", day=""):
    return table.at("002_S_0295", visit=visit, day=day)


class TestMatching:
    @pytest.mark.parametrize("visit", ["m12", "v05", "V05", "M12"])
    def test_either_code_of_a_visit_matches(self, read, visit):
        assert at(read(TABLE), visit) == "MCI"

    def test_the_code_wins_over_a_nearer_date(self, read):
        assert at(read(TABLE), "m24", "20061102") == "Dementia"

    @pytest.mark.parametrize(
        ("day", "diagnosis"), [("20061201", "CN"), ("20070901", "MCI"), ("20090401", "Dementia")]
    )
    def test_without_a_code_the_nearest_exam_counts(self, read, day, diagnosis):
        assert at(read(TABLE), "7", day) == diagnosis

    @pytest.mark.parametrize(("day", "found"), [("20090530", True), ("20090531", False)])
    def test_an_exam_half_a_year_away_is_another_visit(self, read, day, found):
        table = read(TABLE)
        assert MAX_DAYS == 180
        if found:
            assert at(table, day=day) == "Dementia"
        else:
            with pytest.raises(
                InputError, match=r"no visit of 002_S_0295 .* within 180 days \(20090531\); add it"
            ):
                at(table, day=day)

    def test_a_code_that_two_phases_use_is_told_apart_by_the_date(self, read):
        table = read("RID,VISCODE,EXAMDATE,DIAGNOSIS\n295,bl,2006-11-02,1\n295,bl,2018-01-05,3\n")
        assert at(table, "bl", "20180203") == "Dementia"
        with pytest.raises(InputError, match="says CN and Dementia of 002_S_0295"):
            at(table, "bl")

    def test_of_two_exams_equally_near_the_earlier_one_counts(self, read):
        table = read("RID,EXAMDATE,DIAGNOSIS\n295,2008-01-11,3\n295,2008-01-01,1\n")
        assert at(table, day="20080106") == "CN"

    def test_two_diagnoses_of_one_day_are_a_contradiction(self, read):
        table = read("RID,EXAMDATE,DIAGNOSIS\n295,2008-01-01,3\n295,2008-01-01,1\n")
        with pytest.raises(InputError, match="says CN and Dementia"):
            at(table, day="20080106")

    @given(st.dates(min_value=date(1990, 1, 1)))
    def test_no_diagnosis_comes_from_farther_away_than_is_stated(self, day):
        exams = {"20061102": "CN", "20071130": "MCI"}
        table = _table(exams)
        distance = {exam: abs((date.fromisoformat(exam) - day).days) for exam in exams}
        nearest = min(distance, key=distance.get)
        if distance[nearest] > MAX_DAYS:
            with pytest.raises(InputError):
                at(table, day=day.strftime("%Y%m%d"))
        else:
            assert at(table, day=day.strftime("%Y%m%d")) == exams[nearest]


class TestTable:
    @pytest.mark.parametrize(
        "text",
        [
            "RID,VISCODE,DIAGNOSIS\n295,bl,3\n",
            "RID,VISCODE2,DIAGNOSIS\n0295.0,bl,3\n",
            "PTID,VISCODE,DIAGNOSIS\n002_S_0295,bl,Dementia\n",
            "ptid,rid,viscode,dx\nn/a,295,bl,Dementia\n",
        ],
    )
    def test_subject_and_diagnosis_are_read_in_their_variants(self, read, text):
        assert at(read(text), "bl") == "Dementia"

    def test_a_row_without_a_diagnosis_is_no_visit(self, read):
        table = read(
            "RID,VISCODE,EXAMDATE,DIAGNOSIS\n295,m06,2008-01-01,\n295,m12,2008-03-01,-4\n295,m18,2008-04-01,1\n"
        )
        assert at(table, "m06", "20080101") == "CN"
        assert table.known("002_S_0295") == {"CN"}

    def test_a_subject_without_visits_is_told(self, read):
        with pytest.raises(InputError, match=r"DXSUM\.csv has no diagnosis of 941_S_6962; add one"):
            read(TABLE).at("941_S_6962", visit="bl", day="")

    def test_a_number_that_is_no_diagnosis_is_refused(self, read):
        with pytest.raises(
            InputError,
            match=r"required as diagnosis 1 \(CN\), 2 \(MCI\), 3 \(Dementia\) or a word; received 7",
        ):
            read("RID,VISCODE,DIAGNOSIS\n295,bl,7\n")

    def test_missing_columns_are_named(self, read):
        with pytest.raises(
            InputError,
            match="required the columns PTID or RID, VISCODE or VISCODE2 or EXAMDATE; received DIAGNOSIS",
        ):
            read("DIAGNOSIS\n1\n")


def _table(exams):
    return VisitDiagnoses("DXSUM.csv", {"295": [Exam(frozenset(), day, word) for day, word in exams.items()]})
