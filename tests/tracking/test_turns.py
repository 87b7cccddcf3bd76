"""One decision at a time, and none that a dead process holds up."""

import pytest

from adpet.errors import TrackingError
from adpet.tracking import turns
from adpet.tracking.decisions import Draft, new_id, read_book, write_end, write_intent
from adpet.tracking.store import current
from adpet.tracking.turns import turn

FIRST = Draft(kind="promotion", before=None, after=1, why="it is good")


AS_BEFORE = "the process ended half-way, and the alias was found where it had been before"
BEFORE_IT_MOVED = "the process ended half-way, before the alias moved"
AFTER_IT_MOVED = "the process ended half-way, after the alias had moved"
NOT_KNOWN = "the process ended half-way; whether the alias had moved by then is not known"


@pytest.fixture
def model(project):
    """A registered model with three versions, of which 1 is the champion."""
    client = current().client
    client.create_registered_model("adpet")
    for _ in range(3):
        client.create_model_version("adpet", "file:///nowhere")
    write_end("adpet", leave_half_way(FIRST), "done")
    put_alias(1)


def put_alias(version):
    current().client.set_registered_model_alias("adpet", "champion", str(version))


def to_version(after, *, before=1):
    return Draft(kind="promotion", before=before, after=after, why="it is good")


def ends():
    """Take a turn, and return how everything after the first decision ended before it."""
    with turn("adpet", to_version(3)) as (mine, book):
        write_end("adpet", mine, "void")
    return [(one.end, one.end_why) for one in book.decisions[1:] if one.id != mine.id]


def leave_half_way(draft, *, number=1):
    """Write an intent down, as a process that is killed then."""
    return write_intent("adpet", draft, number=number, identity=new_id())


class TestWaiting:
    def test_one_whose_turn_does_not_come_comes_to_nothing(self, model, monkeypatch):
        leave_half_way(to_version(2), number=2)
        monkeypatch.setattr(turns, "is_alive", lambda _: True)
        monkeypatch.setattr(turns, "LONGEST_WAIT", 0.2)
        with (
            pytest.raises(TrackingError, match="required that others end their promotion"),
            turn("adpet", to_version(2)),
        ):
            pass
        _, first, second = read_book("adpet").decisions
        assert (first.end, second.end, second.end_why) == (None, "void", "its turn did not come in time")


class TestWhatWasLeftHalfWay:
    def test_where_the_alias_is_as_before_no_more_than_that_is_said(self, model):
        leave_half_way(to_version(2), number=2)
        assert ends() == [("void", AS_BEFORE)]

    def test_where_it_is_on_the_version_it_is_done(self, model):
        leave_half_way(to_version(2), number=2)
        put_alias(2)
        assert ends() == [("done", AFTER_IT_MOVED)]

    def test_where_a_hand_has_put_it_elsewhere_nobody_knows(self, model):
        leave_half_way(to_version(2), number=2)
        put_alias(3)
        assert ends() == [("unknown", NOT_KNOWN)]

    def test_one_behind_another_that_was_left_had_not_moved_it(self, model):
        leave_half_way(to_version(2), number=2)
        leave_half_way(to_version(2), number=3)
        put_alias(2)
        assert ends() == [("done", AFTER_IT_MOVED), ("void", BEFORE_IT_MOVED)]

    def test_one_that_was_decided_against_another_champion_had_not_moved_it(self, model):
        leave_half_way(to_version(2, before=3), number=2)
        put_alias(2)
        assert ends() == [("void", BEFORE_IT_MOVED)]

    def test_of_one_whose_end_was_removed_nobody_knows(self, model):
        leave_half_way(to_version(2), number=2)
        write_end("adpet", leave_half_way(to_version(3, before=2), number=3), "done")
        put_alias(3)
        assert ends() == [("unknown", NOT_KNOWN), ("done", "")]
