"""One person is one subject in every spelling of the id; other people stay apart."""

import re
from pathlib import Path

import pytest

from adpet.cohort.identity import person_key, rows_by_id, unify_subjects
from adpet.cohort.tables import Candidate, Findings, read_table
from adpet.errors import InputError

ONE_PERSON = [
    ("S001", "s001", "S 001", "S-001", "S1", "sub-S001", "s_0001", "\uff33\uff10\uff10\uff11"),
    ("014", "14", "14.0", "14,0", "sub-014", "1\uff14", "sub14", "SUB_014", "Subject 14", "sub-subj014"),
    ("941_S_6962", "941-s-6962", "941S6962"),
    ("Müller 3", "muller3", "Mu\u0308ller_03"),
    ("000", "0"),
]
TWO_PEOPLE = [
    ("1_12", "11_2"), ("1.2", "12"), ("S1", "S10"), ("S1", "T1"), ("1.05", "1.5.0"), ("が1", "か1"), ("P7a", "P7b"),
]  # fmt: skip


@pytest.mark.parametrize("spellings", ONE_PERSON)
def test_person_key_is_one_for_all_spellings(spellings):
    assert len(set(map(person_key, spellings))) == 1


@pytest.mark.parametrize(("first", "second"), TWO_PEOPLE)
def test_person_key_keeps_people_apart(first, second):
    assert person_key(first) != person_key(second)


def test_unify_subjects_takes_the_most_frequent_spelling_in_any_order():
    subjects = ["S003", "s003", "S003", "7", "s-004", "S004"]
    for order in (1, -1):
        found = Findings(
            [Candidate(Path(f"{i}.nii"), subject=name) for i, name in enumerate(subjects)][::order],
            visits={"s003": {"AD"}, "S003": {"CN"}, "9": {"AD"}},
        )
        unified, spellings = unify_subjects(found)
        assert {scan.subject for scan in unified.candidates} == {"S003", "7", "s-004"}
        assert sorted(spellings) == [["S003", "s003"], ["s-004", "S004"]]
        assert unified.visits == {"S003": {"AD", "CN"}, "9": {"AD"}}


def test_rows_without_an_id_are_ignored(tmp_path):
    (tmp_path / "a.tsv").write_text("participant_id\tdx\n1\tAD\n\tmean\nn/a\tsd\n")
    assert rows_by_id(read_table(tmp_path / "a.tsv"), "participantid")["1"][""]["dx"] == "AD"


@pytest.mark.parametrize(
    ("rows", "received"),
    [
        ("sub-01\tb1\tAD\nsub-01\tb1\tCN\n", "sub-01 twice"),
        ("sub-01\tn/a\tAD\nsub-1\tn/a\tAD\n", "sub-01 and sub-1"),
        ("1\tses-2\tAD\n1.0\t02\tAD\n", "1 and 1.0"),
    ],
)
def test_rows_that_nothing_tells_apart_are_refused_with_both_named(tmp_path, rows, received):
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tsession_id\tdx\n" + rows)
    with pytest.raises(InputError, match=re.escape(f"received {received}, and nothing tells them apart")):
        rows_by_id(read_table(path), "participantid", "sessionid")
