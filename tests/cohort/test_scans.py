"""Scans tables are typed, checked, and come back as they were written."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import scan_row as row
from pandas.testing import assert_frame_equal

from adpet.cohort.scans import (
    SCAN_COLUMNS,
    Collection,
    check_scans,
    ingest_summary,
    read_scans,
    read_typed,
    rejected_table,
    require_usable,
    scans_table,
    score_only_table,
    set_aside_conflicts,
    subject_table,
    write_table,
)
from adpet.cohort.splits import SPLIT_COLUMNS
from adpet.errors import InputError
from adpet.stages.common.tables import ALIGNMENT_COLUMNS


def rejected(unusable=0, skipped=0):
    kinds = ["unusable"] * unusable + ["skipped"] * skipped
    return rejected_table(
        [{"file": f"{n}.nii", "reason": f"{kind} indeed", "kind": kind} for n, kind in enumerate(kinds)]
    )


def collection(*rows, **counts):
    return Collection(scans_table(rows), rejected(**counts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diagnosis": "MCI"}, "sub-2_ses-1: column diagnosis: required AD or CN; received 'MCI'"),
        ({"sex": "f"}, "column sex: required F, M or nothing; received 'f'"),
        ({"scan": "SUB-1_ses-1"}, "column scan: required a key that occurs once"),
        ({"subject": ""}, "column subject: required a subject"),
        ({"path": "data/raw/sub-1_ses-1.nii"}, "column path: required a path that occurs once"),
        ({"content": "abc"}, "column content: required 64 hexadecimal digits; received 'abc'"),
    ],
)
def test_bad_cell_is_named_with_its_scan_and_column(change, message):
    with pytest.raises(InputError, match=message):
        check_scans(scans_table([row("1"), {**row("2"), **change}]))


class TestSetAsideConflicts:
    def test_all_scans_of_a_subject_with_both_diagnoses_go(self):
        kept = set_aside_conflicts(collection(row("1"), row("1", "2"), row("1", "3", "CN"), row("2")))
        assert list(kept.scans["subject"]) == ["2"]
        assert set(kept.rejected["reason"]) == {"subject 1 is AD in one scan and CN in another"}
        assert len(kept.rejected) == 3

    def test_both_subjects_of_one_image_go(self):
        kept = set_aside_conflicts(
            collection(row("1"), row("2", content=row("1")["content"]), row("3"), unusable=1)
        )
        assert list(kept.scans["subject"]) == ["3"]
        assert len(kept.rejected) == 3
        assert set(kept.rejected["kind"]) == {"unusable"}

    def test_image_that_one_subject_has_twice_is_kept_once(self):
        kept = set_aside_conflicts(collection(row("1"), row("1", "2", content=row("1")["content"])))
        assert list(kept.scans["session"]) == ["1"]
        assert list(kept.rejected["file"]) == ["data/raw/sub-1_ses-2.nii"]


class TestRequireUsable:
    sound = (row("1"), row("2", diagnosis="CN"))

    def test_skipped_files_are_no_damage(self):
        require_usable(collection(*self.sound, skipped=100), max_rejected_fraction=0)

    def test_more_damage_stops_with_the_first_reasons(self):
        with pytest.raises(InputError, match=r"3 of 5 scans.*0\.5.*0\.nii: unusable indeed.*rejected\.csv"):
            require_usable(collection(*self.sound, unusable=3), max_rejected_fraction=0.5)

    def test_scored_people_count_among_all(self):
        damaged = collection(*self.sound, unusable=3)
        scored = score_only_table([{**row("3"), "baseline": True}])
        require_usable(replace(damaged, score_only=scored), max_rejected_fraction=0.5)

    def test_diagnosis_without_scans_stops(self):
        with pytest.raises(InputError, match=r"received 1 AD, 0 CN.*skipped indeed.*cohort\.diagnosis_map"):
            require_usable(collection(row("1"), skipped=1), max_rejected_fraction=1)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


class TestFiles:
    @settings(max_examples=40)
    @given(
        texts=st.fixed_dictionaries({"site": TEXT, "scanner": TEXT, "path": TEXT.map("a{}".format)}),
        subject=st.sampled_from(["NA", "007", "null", "1e5", 'ä, "b"', " x "]),
        age=st.one_of(st.floats(0, 120), st.just(float("nan"))),
    )
    def test_scans_table_comes_back_exactly(self, tmp_path_factory, texts, subject, age):
        path = tmp_path_factory.mktemp("round") / "scans.csv"
        table = scans_table([row("1"), {**row("2"), **texts, "subject": subject, "age": age}])
        write_table(path, table)
        assert_frame_equal(read_scans(path), table, check_exact=True)

    def test_table_is_checked_on_reading(self, tmp_path):
        path = tmp_path / "scans.csv"
        scans_table([row("1", diagnosis="MCI")]).to_csv(path, index=False)
        with pytest.raises(InputError, match=r"scans\.csv: .*required AD or CN; received 'MCI'"):
            read_scans(path)

    @pytest.mark.parametrize(
        "content", ["", "a,b\n1,2\n", "\0\0", ",".join(SCAN_COLUMNS) + "\n1,1,1,AD,old,F,,,p,,c\n"]
    )
    def test_other_tables_are_refused(self, tmp_path, content):
        path = tmp_path / "scans.csv"
        path.write_text(content)
        with pytest.raises(InputError, match=r"scans\.csv: required"):
            read_scans(path)


class TestSubjectTable:
    def test_age_is_that_of_the_first_scan(self):
        table = subject_table(scans_table([row("1", "10", age=72.0), row("1", "2", age=70.0)]))
        assert table.to_dict("records") == [
            {"subject": "1", "diagnosis": "AD", "age": 70.0, "sex": "F", "site": "A"}
        ]

    def test_what_one_visit_lacks_another_tells(self):
        rows = [row("1", age=float("nan"), sex="", site=""), row("1", "2", age=71.0)]
        (subject,) = subject_table(scans_table(rows)).to_dict("records")
        assert (subject["age"], subject["sex"], subject["site"]) == (71.0, "F", "A")


class TestSummary:
    def test_scans_subjects_visits_and_reasons_are_counted(self):
        rows = (
            row("1", age=70.0),
            row("1", "2", age=71.0),
            row("2", age=80.0, sex="M", site="B"),
            row("3", diagnosis="CN", age=float("nan"), sex="", site=""),
        )
        summary = ingest_summary(collection(*rows, unusable=1, skipped=3))
        assert (summary["scans"], summary["subjects"]) == (4, 3)
        assert summary["subjects_by_visits"] == {"1": 2, "2": 1}
        assert summary["sites"] == {"A": 2, "B": 1, "unknown": 1}
        assert summary["diagnosis"]["AD"] == {
            "scans": 3, "subjects": 2, "age": {"known": 2, "mean": 75.0, "sd": 7.07},
            "sex": {"F": 1, "M": 1, "unknown": 0},
        }  # fmt: skip
        assert summary["diagnosis"]["CN"]["age"] == {"known": 0, "mean": None, "sd": None}
        assert summary["rejected"] == {
            "unusable": {"files": 1, "reasons": {"unusable indeed": 1}},
            "skipped": {"files": 3, "reasons": {"skipped indeed": 3}},
        }

    def test_same_images_have_the_same_content_whatever_they_are_called(self):
        first, second = row("1")["content"], row("2")["content"]
        one = ingest_summary(collection(row("1"), row("2")))["content"]
        swapped = ingest_summary(collection(row("8", content=second), row("9", content=first)))["content"]
        assert one == swapped
        assert one != ingest_summary(collection(row("1")))["content"]


@pytest.mark.parametrize("scan", ["../sub-1", "sub-1/../../x", "/sub-1", "a\\b", "", ".."])
def test_key_that_would_lead_its_files_elsewhere_is_refused(tmp_path, scan):
    """The tables may have come with ``dvc pull``; stages name files by their keys."""
    for name, columns in (
        ("scans", SCAN_COLUMNS),
        ("split", SPLIT_COLUMNS),
        ("alignment", ALIGNMENT_COLUMNS),
    ):
        values = {"str": "x", "float64": 1.0, "int64": 1, "bool": True}
        table = pd.DataFrame([{column: values[dtype] for column, dtype in columns.items()} | {"scan": scan}])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        with pytest.raises(
            InputError, match=rf"{name}.csv: column scan: required a key that can name a file"
        ):
            read_typed(tmp_path / f"{name}.csv", columns)
