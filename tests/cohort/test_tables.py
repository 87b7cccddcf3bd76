"""Metadata tables are read in all their spellings; keys are safe file names."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.cohort.tables import (
    Candidate,
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

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.csv: required, but not there"):
            read_table(tmp_path / "gone.csv")

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00a", b"", b"\n\n"])
    def test_other_files_are_refused_in_one_line(self, tmp_path, content):
        path = tmp_path / "a.csv"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.csv: required") as caught:
            read_table(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "years"),
    [("75", 75), ("75.25", 75.25), ("75,5", 75.5), ("075Y", 75), ("89+", 89), (" 60 ", 60)],
)
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
        "text", ["8/9/2021", "08/09/2021", "2021-08-09", "2021-8-9 00:00:00.0", "2021-08-09T13:45:30"]
    )
    def test_they_are_read_in_their_variants(self, text):
        assert parse_date(text) == "20210809"

    @pytest.mark.parametrize("text", ["", "August", "8/9/21", "20210809", "13/9/2021", "2021-02-30"])
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
