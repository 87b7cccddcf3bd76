"""The decisions stand in the tags of the registered model, where others may write too."""

import json

import pytest

from adpet.tracking.decisions import Draft, new_id, printable, read_book, write_end, write_intent
from adpet.tracking.store import current


@pytest.fixture
def model(project):
    current().client.create_registered_model("adpet")
    return "adpet"


def decide(number, *, before=None, after=1, kind="promotion", why="it is good"):
    """Write a decision down that has come to its end."""
    draft = Draft(kind=kind, before=before, after=after, why=why)
    decision = write_intent("adpet", draft, number=number, identity=new_id())
    write_end("adpet", decision, "done")
    return decision


def tags():
    return dict(current().client.get_registered_model("adpet").tags)


def set_tag(key, value):
    current().client.set_registered_model_tag("adpet", key, value)


FORGERY = "x]\n2026-01-01 00:00:00  7\r\x1b[2Kanna\u202e"


class TestText:
    def test_it_is_one_line_of_printable_characters_with_single_spaces(self):
        assert printable(FORGERY) == "x] 2026-01-01 00:00:00 7 [2Kanna"
        assert printable("Größe 3 µm, 日本") == "Größe 3 µm, 日本"

    def test_it_is_so_when_it_is_written(self, model, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", FORGERY)
        decide(1, why=FORGERY)
        for value in tags().values():
            document = json.loads(value)
            assert document["who"] == printable(FORGERY)
            assert document["why"] in (printable(FORGERY), "")

    def test_it_is_so_when_somebody_else_wrote_it(self, model):
        decide(1)
        for key, value in tags().items():
            document = json.loads(value) | {"who": FORGERY, "why": FORGERY, "at": FORGERY}
            if "conditions" in document:
                document["conditions"] = [FORGERY]
            set_tag(key, json.dumps(document))
        (one,) = read_book("adpet").decisions
        assert {one.who, one.why, one.end_why, one.at, *one.conditions} == {printable(FORGERY)}


class TestForeignTags:
    def test_a_tag_of_another_form_is_no_decision_and_holds_nobody_up(self, model):
        decide(1)
        for key in ("note", "000002", "000002.anna", f"000002.{'a' * 12}.note", f"two.{'a' * 12}"):
            set_tag(f"adpet.decision.{key}", "to be discussed")
        assert [one.number for one in read_book("adpet").decisions] == [1]


class TestRemoved:
    def test_a_gap_in_the_numbers_is_a_decision_that_was_removed(self, model):
        gone = [decide(number, after=number) for number in (1, 2, 3, 4)][1]
        assert read_book("adpet").removed == []
        key = f"adpet.decision.000002.{gone.id}"
        for one in (key, f"{key}.done"):
            current().client.delete_registered_model_tag("adpet", one)
        assert read_book("adpet").removed == [2]

    def test_two_with_the_same_number_leave_no_gap(self, model):
        for number in (1, 2, 2, 3):
            decide(number)
        assert read_book("adpet").removed == []


class TestSuccession:
    def test_a_rollback_takes_all_off_that_came_after_the_one_it_returns_to(self, model):
        moves = [(None, 1), (1, 2), (2, None), (None, 2)]
        for number, (before, after) in enumerate(moves, start=1):
            decide(number, before=before, after=after)
        assert read_book("adpet").succession == [None, 1, 2, None, 2]
        decide(5, kind="rollback", before=2, after=1)
        assert read_book("adpet").succession == [None, 1]
