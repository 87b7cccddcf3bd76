"""Metadata tables are read in all their spellings; keys are safe file names."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.cohort.tables import (
    Candidate,
    Table,
    date_order,
    parse_age,
    parse_date,
    parse_sex,
    plain,
    read_table,
    safe_label,
)
from adpet.errors import InputError


class TestReadTable:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_delimiter_is_seen(self, tmp_path, delimiter):
        path = tmp_path / "a.csv"
        path.write_text(delimiter.join("ab") + "\n" + delimiter.join("12") + "\n")
        assert read_table(path).rows == ({"a": "1", "b": "2"},)

    def test_byte_order_mark_blank_lines_and_short_rows_are_harmless(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("\ufeffa,b\n\n1\n,\n", encoding="utf-8")
        assert read_table(path).rows == ({"a": "1", "b": ""},)

    def test_column_without_a_name_is_left_out(self, tmp_path):
        (tmp_path / "a.csv").write_text('"",a,\n1,x,\n')
        assert read_table(tmp_path / "a.csv").rows == ({"a": "x"},)

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.csv: required, but not there"):
            read_table(tmp_path / "gone.csv")

    @pytest.mark.parametrize(
        ("name", "text", "cells"),
        [
            ("a.tsv", 'a\tb\n1\t"low dose\n2\tsee "\n', ["1", '"low dose', "2", 'see "']),
            ("a.tsv", '"a"\t"b"\n"1"\t"x"\n', ["1", "x"]),
            ("a.csv", 'a\tb\n1\t"low dose\n2\tx\n', ["1", '"low dose', "2", "x"]),
            ("a.csv", 'a,b\n1,"low, dose"\n2,"x\ny"\n', ["1", "low, dose", "2", "x\ny"]),
            ("a.tsv", 'a;b\r\n1;"x;y"\r\n', ["1", "x;y"]),
        ],
    )
    def test_quotes_mean_nothing_between_tabs_and_hold_a_cell_together_between_commas(
        self, tmp_path, name, text, cells
    ):
        (tmp_path / name).write_text(text)
        table = read_table(tmp_path / name)
        assert [cell for row in table.rows for cell in row.values()] == cells
        assert table.columns == ("a", "b")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('id,note,dx\n3,"low dose,CN\n4,ok,CN\n5,see ",AD\n', "row 2: a quote is not closed"),
            ('id,dx,note\r3,CN,"low\r4,AD,"\r', "row 2: a quote is not closed"),
            ("id,note,dx\n3,low, dose,CN\n", "row 2: required 3 cells, as in the header; received 4"),
            ("Dx,note,dx \n1,2,3\n", r"two columns have one name \(Dx and dx \)"),
        ],
    )
    def test_table_whose_cells_would_move_to_another_row_or_column_is_refused(self, tmp_path, text, reason):
        path = tmp_path / "a.csv"
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            read_table(path)

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00a", b"", b"\n\n"])
    def test_other_files_are_refused_in_one_line(self, tmp_path, content):
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.csv: required") as caught:
            read_table(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("75", 75), ("75.25", 75.25), ("75,5", 75.5), ("075Y", 75), ("89+", 89), (" 60 ", 60), ("74.5 Years", 74.5), ("74 yrs", 74),
        (">89", 89), ("\u2265 90", 90), ("74 y.o.", 74),
    ],
)  # fmt: skip
def test_ages_are_years(text, years):
    assert parse_age(text) == years


@pytest.mark.parametrize("text", ["", "n/a", "old", "-4", "0", "999", "1e2", "inf"])
def test_impossible_age_is_unknown(text):
    assert math.isnan(parse_age(text))


def test_sex_is_read_in_words_and_letters():
    assert [parse_sex(text) for text in ("F", "female", "M", "Male", "", "X")] == ["F", "F", "M", "M", "", ""]


def test_plain_text_has_single_spaces_and_no_placeholders():
    assert plain("  Coreg,   Avg ") == "Coreg, Avg"
    assert [plain(text) for text in ("n/a", "NaN", "-", "")] == [""] * 4


class TestDates:
    @pytest.mark.parametrize(
        "text",
        [
            "8/9/2021", "08/09/2021", "2021-08-09", "2021-8-9 00:00:00.0", "2021-08-09T13:45:30", "2021/8/9", "2021.08.09",
            "9-Aug-2021", "09 August 2021",
        ],
    )  # fmt: skip
    def test_they_are_read_in_their_variants(self, text):
        assert parse_date(text) == "20210809"

    @pytest.mark.parametrize(
        ("dates", "declared", "order"),
        [
            (["5/11/2021", "13/5/2021"], "auto", "day-first"), (["5/11/2021", "05-31-2021"], "auto", "month-first"),
            (["5/11/2021", "5.11.2021"], "auto", "day-first"), (["5/11/2021", "2021-05-31", ""], "auto", "auto"),
            (["5/11/2021"], "day-first", "day-first"), (["5/11/2021", "31-05-2021"], "month-first", None),
            (["31/5/2021", "5/31/2021"], "auto", None),
        ],
    )  # fmt: skip
    def test_their_order_is_proven_by_the_column_or_declared(self, dates, declared, order):
        table = Table(Path("a.csv"), ("Acq Date",), tuple({"acqdate": date} for date in dates))
        if order is None:
            with pytest.raises(InputError, match="required dates of one order"):
                date_order(table, "acqdate", declared)
        else:
            assert date_order(table, "acqdate", declared) == order

    @pytest.mark.parametrize(
        ("order", "read"),
        [
            ("day-first", ["20211105", "20211231", "", "20210505"]),
            ("month-first", ["20210511", "", "20211231", "20210505"]),
            ("auto", ["", "20211231", "20211231", "20210505"]),
        ],
    )
    def test_they_are_read_in_this_order_and_unknown_without_one(self, order, read):
        texts = ("5/11/2021", "31.12.2021", "12-31-2021", "5/5/2021")
        assert [parse_date(text, order) for text in texts] == read

    @pytest.mark.parametrize(
        "text", ["", "August", "8/9/21", "44417", "20210809", "13/9/2021", "2021-02-30", "9-Abc-2021"]
    )
    def test_impossible_date_is_unknown(self, text):
        assert parse_date(text) == ""


def key(**labels):
    return Candidate(Path("a.nii"), **labels).key


def test_key_is_made_of_subject_session_and_run():
    assert key(subject="01", session="02", run="1") == "sub-01_ses-02_run-1"
    assert key(subject="01") == "sub-01"


@pytest.mark.parametrize("pair", [("Jürgen", "Jurgen"), ("a/b", "ab"), ("Ω", "Φ"), ("../x", "x")])
def test_labels_that_lose_letters_stay_apart(pair):
    first, second = map(safe_label, pair)
    assert first != second


@settings(max_examples=100)
@given(st.text(min_size=1, max_size=20).filter(lambda text: text.strip()))
def test_every_key_is_a_safe_file_name(label):
    name = key(subject=label, session=label)
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert safe_label(label)
