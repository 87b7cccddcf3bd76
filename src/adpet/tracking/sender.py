"""A thread that sends what a stage tells its runs, beside the stage's work.

The stage never waits for it but at its end, and there for a bounded time; `adpet sync` and the next stage
send what was left.
"""

import sys
import threading
import time
from typing import Any

from adpet.errors import TrackingError
from adpet.tracking import journal
from adpet.tracking.journal import END, OUTBOX, RunKey, Session
from adpet.tracking.outbox import Outbox, Problem, Round
from adpet.tracking.store import SENDING, UnreachableError, environment, one_line, reconnect, target

# Seconds before a store that failed is asked again: twice as long each time, up to the last.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 60.0

# Seconds that a sender which has been told to stop is given for what it is sending.
_LAST_WORDS_S = 1.0


class _Process:
    """What this process has in hand: the outbox, the sessions that it writes, and the thread that sends."""

    outbox: Outbox | None = None
    writing: set[str]
    sender: "Sender | None" = None


_Process.writing = set()


def begin(operation: str, key: RunKey, **facts: Any) -> Session:
    """Begin to write to a run; what is written is sent from now on."""
    wish = target()
    outbox = _outbox()
    session = journal.begin(
        outbox.folder, do=operation, kind=key.kind, lineage=key.lineage, store=wish.name, **facts
    )
    outbox.own[session.name] = session
    _Process.writing.add(session.name)
    if not wish.offline:
        if _Process.sender is None or not _Process.sender.go_on():
            _Process.sender = Sender(outbox)
            _Process.sender.start()
        _Process.sender.notify()
    return session


def notify() -> None:
    """Say that a session has news."""
    if _Process.sender is not None:
        _Process.sender.notify()


def leave(session: Session, status: str | None) -> None:
    """End writing to a run. Where it was the last, wait a little for the store, and say what waits longer."""
    session.append(END, status=status)
    _Process.writing.discard(session.name)
    notify()
    if _Process.writing:
        return
    last = Round()
    if _Process.sender is None or _Process.sender.stopped:
        _outbox().release()
    else:
        last = _Process.sender.finish(target().wait_s)
        _Process.sender.stop()
    say_refusals()
    lines = sum(_outbox().waiting(only=target().name).values())
    if lines:
        problem = last.problem_of(session.key)
        said = problem.text if problem else "it takes long"
        why = "tracking.offline" if target().offline else said
        print(f"MLflow: {lines} entries wait in {OUTBOX}/ ({why}); run: adpet sync", file=sys.stderr)


def deliver(*, only: str | None) -> Round:
    """Send all that waits, for as long as the store takes something, and return what that came to.

    Parameters
    ----------
    only : str, optional
        The name of a store: what was meant for another one stays. None sends everything.
    """
    if _Process.sender is not None:
        _Process.sender.join()
        _Process.sender = None
    total = Round()
    with environment(SENDING):
        while True:
            done = _one_round(_outbox(), only=only)
            total.sent += done.sent
            total.runs |= done.runs
            total.problems = done.problems
            if not done.sent or not done.problems:
                break
    _outbox().release()
    return total


def is_to_come(key: RunKey) -> bool:
    """Say whether a run waits in the outbox for the store."""
    return _outbox().opens(key, only=target().name)


def waiting(*, only: str | None) -> dict[RunKey, int]:
    """Return how many lines of which runs the store has not taken."""
    return _outbox().waiting(only=only)


def stores() -> list[str]:
    """Return the names of the stores that something waits for."""
    return _outbox().stores()


def refusals() -> list[str]:
    """Return a line for each session of which the store has refused something, once."""
    said, _outbox().refused = _outbox().refused, []
    return said


def say_refusals() -> None:
    """Say on stderr what the store has refused, once."""
    for line in refusals():
        print(f"MLflow: {line}", file=sys.stderr)


class Sender(threading.Thread):
    """The thread that sends beside a stage's work."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(name="adpet sender", daemon=True)
        self._outbox = outbox
        self._change = threading.Condition()
        self._asked = self._answered = 0
        self._hurry = self._stopped = self._over = False
        self._last = Round()
        self._only = target().name

    def go_on(self) -> bool:
        """Take back a stop, and say whether it was in time."""
        with self._change:
            self._stopped = False
            return self.is_alive() and not self._over

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop: it may still be sending its last."""
        return self._stopped

    def notify(self) -> None:
        """Say that there is something to send."""
        with self._change:
            self._asked += 1
            self._change.notify_all()

    def finish(self, seconds: float) -> Round:
        """Wait until all is sent, the store fails without having taken anything more, or time is up."""
        deadline = time.monotonic() + seconds
        with self._change:
            self._hurry = True
            while True:
                self._asked += 1
                self._change.notify_all()
                asked = self._asked
                while self._answered < asked and time.monotonic() < deadline:
                    self._change.wait(deadline - time.monotonic())
                if self._answered < asked or not (self._last.sent and self._last.problems):
                    break
            self._hurry = False
            return self._last

    def stop(self) -> None:
        """End the thread after what it is sending at this moment."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self.join(_LAST_WORDS_S)

    def run(self) -> None:
        """Send whenever there is news, and again after a pause when the store failed."""
        pause: float | None = None
        with environment(SENDING):
            while self._wait(pause):
                with self._change:
                    asked = self._asked
                done = _one_round(self._outbox, only=self._only)
                pause = min(2 * (pause or _FIRST_PAUSE_S / 2), _LAST_PAUSE_S) if done.problems else None
                with self._change:
                    self._answered, self._last = asked, done
                    self._change.notify_all()
        self._outbox.release()

    def _wait(self, pause: float | None) -> bool:
        """Wait for news, or for the end of a pause; return whether to go on."""

        def news() -> bool:
            return self._stopped or (self._asked > self._answered and (pause is None or self._hurry))

        with self._change:
            self._change.wait_for(news, pause)
            self._over = self._stopped
            return not self._over


def _one_round(outbox: Outbox, *, only: str | None) -> Round:
    """Send what waits to the store that `connect` was told of, opened now if need be."""
    try:
        return outbox.send(reconnect(), only=only)
    except TrackingError as error:
        return Round(problems=[Problem(str(error), passes=isinstance(error, UnreachableError))])
    except Exception as error:  # noqa: BLE001 - whatever it is must not end the stage, which says it at its end
        return Round(problems=[Problem(f"{type(error).__name__}: {one_line(error)}")])


def _outbox() -> Outbox:
    """Return the outbox of the project that this process is connected for."""
    root = target().root
    if _Process.outbox is None or _Process.outbox.root != root:
        _Process.outbox = Outbox(root)
    return _Process.outbox
