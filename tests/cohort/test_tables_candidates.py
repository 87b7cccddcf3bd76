from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.cohort.tables import Candidate, safe_label


def key(**labels):
    return Candidate(Path("a.nii"), **labels).key


def test_a_key_is_made_of_subject_session_and_run():
    assert key(subject="01", session="02", run="1") == "sub-01_ses-02_run-1"
    assert key(subject="01") == "sub-01"


def test_separators_are_dropped_from_labels():
    assert safe_label("941_S_6962") == "941S6962"


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
