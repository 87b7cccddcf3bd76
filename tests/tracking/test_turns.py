"""One decision at a time, and none that a dead process holds up."""

import pytest

from adpet.errors import TrackingError
from adpet.tracking import turns
from adpet.tracking.decisions import Draft, new_id, read_book, write_intent
from adpet.tracking.store import current
from adpet.tracking.turns import turn

FIRST = Draft(kind="promotion", before=None, after=1, why="it is good")


@pytest.fixture
def model(project):
    current().client.create_registered_model("adpet")


def leave_half_way(draft, *, number=1):
    """Write an intent down, as a process that is killed then."""
    return write_intent("adpet", draft, number=number, identity=new_id())


class TestWaiting:
    def test_one_whose_turn_does_not_come_comes_to_nothing(self, model, monkeypatch):
        leave_half_way(FIRST)
        monkeypatch.setattr(turns, "is_alive", lambda _: True)
        monkeypatch.setattr(turns, "LONGEST_WAIT", 0.2)
        with (
            pytest.raises(TrackingError, match="required that others end their promotion"),
            turn("adpet", FIRST),
        ):
            pass
        first, second = read_book("adpet").decisions
        assert (first.end, second.end, second.end_why) == (None, "void", "its turn did not come in time")
