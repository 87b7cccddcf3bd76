"""One decision at a time, by tags alone: a SQLite file and a server give no other lock.

Lamport's bakery (1974, Communications of the ACM 17:453-455). A process says that it is choosing, takes a
number above all others, and waits until nobody is choosing and nobody with a lower number is at work. Its
number is that of its decision, so decisions stand in the order in which they were taken. A process that was
killed holds nobody up: on this machine it is seen to be dead, one of another machine is waited for a while.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from adpet.errors import TrackingError
from adpet.tracking.decisions import (
    Book,
    Decision,
    Draft,
    End,
    announce,
    new_id,
    read_book,
    withdraw_announcement,
    write_end,
    write_intent,
)
from adpet.tracking.writers import is_alive, is_elsewhere

# Seconds that one of another machine is believed to be alive for; a decision takes less than one.
PATIENCE = 30.0
# Seconds after which even a living process is not waited for any more.
LONGEST_WAIT = 120.0
_PAUSE = 0.05

NO_TURN = "its turn did not come in time"
CUT_SHORT = "the process ended half-way, before the alias moved"
FOUND_AS_BEFORE = "the process ended half-way, and the alias was found where it had been before"
NOT_KNOWN = "the process ended half-way; whether the alias had moved by then is not known"
COMPLETED = "the process ended half-way, after the alias had moved"


@contextmanager
def turn(name: str, draft: Draft) -> Iterator[tuple[Decision, Book]]:
    """Write an intent, wait for its turn, and yield it with the book as it stands then.

    What others left half-way has been ended by then. Within the block nobody else decides; whoever takes the
    turn ends the decision there with `write_end`. Where it does not, it stands as half-way.

    Raises
    ------
    TrackingError
        If its turn does not come in `LONGEST_WAIT`; the intent has come to nothing then.
    """
    identity = new_id()
    announce(name, identity)
    try:
        number = 1 + max((one.number for one in read_book(name).decisions), default=0)
        mine = write_intent(name, draft, number=number, identity=identity)
    finally:
        withdraw_announcement(name, identity)
    book = _wait(name, mine)
    yield mine, _ended(name, book, mine)


def unfinished(book: Book, *, before: Decision | None = None) -> list[Decision]:
    """Return the decisions that have no end yet, up to `before`."""
    return [one for one in book.decisions if one.end is None and (before is None or one.order < before.order)]


def is_at_work(decision: Decision) -> bool:
    """Say whether the process that takes a decision may be alive."""
    return is_alive(decision.owner) or is_elsewhere(decision.owner)


def _wait(name: str, mine: Decision) -> Book:
    """Wait until nobody chooses and nobody is before `mine`; the dead are not waited for."""
    start = time.monotonic()
    while True:
        book = read_book(name)
        waited = time.monotonic() - start
        owners = [value for identity, value in book.choosing.items() if identity != mine.id]
        owners += [one.owner for one in unfinished(book, before=mine)]
        alive = [one for one in owners if is_alive(one) or (is_elsewhere(one) and waited < PATIENCE)]
        if not alive:
            return book
        if waited > LONGEST_WAIT:
            write_end(name, mine, "void", why=NO_TURN)
            raise TrackingError(
                f"models:/{name}: required that others end their promotion; received none in "
                f"{LONGEST_WAIT:.0f} s from process {alive[0].rsplit(':', 1)[0]}; end it, and try again"
            )
        time.sleep(_PAUSE)


def _ended(name: str, book: Book, mine: Decision) -> Book:
    """End what dead processes left half-way, and take back that they were choosing."""
    left = unfinished(book, before=mine)
    choosing = _chosen_by_the_dead(book, mine)
    if not left and not choosing:
        return book
    # The first one last: were this process killed here, another one would still know which it was.
    for one in reversed(left):
        end, why = _end_of(one, book, is_first=one is left[0])
        write_end(name, one, end, why=why)
    for identity in choosing:
        withdraw_announcement(name, identity)
    return read_book(name)


def _end_of(left: Decision, book: Book, *, is_first: bool) -> tuple[End, str]:
    """Return what is known of a decision that was left half-way.

    Whoever takes its turn has ended all before it. So of several only the first can have moved the alias, and
    only if the champion was the one it was decided against; and where one after it is done, its end was there
    and somebody removed it.
    """
    if any(one.end == "done" and one.order > left.order for one in book.decisions):
        return "unknown", NOT_KNOWN
    if not is_first or left.before != book.recorded:
        return "void", CUT_SHORT
    if book.champion == book.recorded:
        return "void", FOUND_AS_BEFORE
    return ("done", COMPLETED) if book.champion == left.after else ("unknown", NOT_KNOWN)


def _chosen_by_the_dead(book: Book, mine: Decision) -> list[str]:
    return [identity for identity in book.choosing if identity != mine.id]
