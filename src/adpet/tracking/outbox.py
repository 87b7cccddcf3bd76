"""All that waits for MLflow: sessions in the order in which they began, and one pass of sending them.

A session of a run is not sent before those of the same run that began earlier, nor that of a trial before
the run of its search is there. What the store refuses for good is set aside, and holds up nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adpet.errors import TrackingError
from adpet.tracking import journal
from adpet.tracking.delivery import Delivery, MissingRunError
from adpet.tracking.journal import OPEN, OUTBOX, REFUSED, Glance, RunKey, Session
from adpet.tracking.store import Store, UnreachableError, one_line


@dataclass(frozen=True)
class Problem:
    """Why something waits, and which run, where that is known; `passes` says that MLflow is away."""

    text: str
    key: RunKey | None = None
    passes: bool = False


@dataclass
class Round:
    """What one pass through the outbox came to; later sessions of runs that are `held` wait.

    `unborn` are held runs that the store does not have yet, so that it cannot nest others below them.
    """

    sent: int = 0
    runs: set[RunKey] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    held: set[RunKey] = field(default_factory=set)
    unborn: set[RunKey] = field(default_factory=set)

    def problem_of(self, key: RunKey) -> Problem | None:
        """Return what keeps a run waiting, or else what keeps others."""
        own = [problem for problem in self.problems if problem.key == key]
        return next(iter(own + self.problems), None)


class Outbox:
    """The project's unsent sessions, as one process sees them.

    `own` are those that it writes; `refused` tells of what it has set aside, until somebody says so.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / journal.OUTBOX
        self.own: dict[str, Session] = {}
        self.refused: list[str] = []
        self._deliveries: dict[str, Delivery] = {}

    def send(self, store: Store, *, only: str | None) -> Round:
        """Send what is there by now, as far as the store takes it.

        Parameters
        ----------
        only : str, optional
            The name of a store: sessions that were meant for another one stay.
        """
        journal.clean(self.folder)
        done = Round()
        for name in journal.names(self.folder):
            seen = self._seen(name, done)
            if seen and _is_for(seen, only) and not self._send_one(seen, store, done):
                break
        return done

    def waiting(self, *, only: str | None) -> dict[RunKey, int]:
        """Return how many lines of which runs the store has not taken."""
        counts: dict[RunKey, int] = {}
        for seen in self._sessions(only):
            if lines := journal.unsent(self.folder, seen.name):
                counts[seen.key] = counts.get(seen.key, 0) + lines
        return counts

    def stores(self) -> list[str]:
        """Return the names of the stores that something waits for."""
        return sorted({seen.store for seen in self._sessions(None) if seen.store})

    def opens(self, key: RunKey, *, only: str | None) -> bool:
        """Say whether a session begins or continues this run."""
        return any(seen.key == key and seen.first["do"] == OPEN for seen in self._sessions(only))

    def release(self) -> None:
        """Let other processes have what this one leaves: all but what it still writes."""
        held = {name: delivery.session for name, delivery in self._deliveries.items()} | self.own
        for name, session in held.items():
            if name not in self.own or session.ended:
                self.own.pop(name, None)
                self._deliveries.pop(name, None)
                session.release()

    def _sessions(self, only: str | None) -> Iterator[Glance]:
        """Yield what can be seen of the sessions for a store; those that cannot be read are left out."""
        for name in journal.names(self.folder):
            seen = self._seen(name, Round())
            if seen and _is_for(seen, only):
                yield seen

    def _seen(self, name: str, done: Round) -> Glance | None:
        """Return what can be seen of a session; None where it was sent in this moment, or cannot be read."""
        try:
            return journal.glance(self.folder, name)
        except TrackingError as error:
            done.problems.append(Problem(self._stays(name, error)))
            return None

    def _delivery(self, name: str) -> Delivery | None:
        """Return a session on its way; None where another process has it."""
        if name not in self._deliveries:
            session = self.own.get(name) or journal.claim(self.folder, name)
            if session is None:
                return None
            self._deliveries[name] = Delivery(session)
        return self._deliveries[name]

    def _send_one(self, seen: Glance, store: Store, done: Round) -> bool:
        """Send one session, unless it has to wait; return whether to go on with the next."""
        parent = seen.first.get("parent")
        if seen.key in done.held or (parent and RunKey(**parent) in done.unborn):
            over, go_on = False, True
        else:
            over, go_on = self._attempt(seen, store, done)
        if not over:
            done.held.add(seen.key)
            if seen.first["do"] == OPEN and journal.run_id(self.folder, seen.name) is None:
                done.unborn.add(seen.key)
        return go_on

    def _attempt(self, seen: Glance, store: Store, done: Round) -> tuple[bool, bool]:
        """Send one session; return whether it holds up no other of its run, and whether to go on at all."""
        try:
            return self._advance(seen, store, done), True
        except MissingRunError as error:
            # It waits for a run that a later session may bring.
            done.problems.append(Problem(str(error), seen.key))
            return True, True
        except UnreachableError as error:
            done.problems.append(Problem(str(error), seen.key, passes=True))
            return False, not error.silent
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one session must not keep the others
            done.problems.append(Problem(self._stays(seen.name, error), seen.key))
            return False, True

    def _stays(self, name: str, error: Exception) -> str:
        """Return what is wrong with a session, and what to do about it."""
        is_said = isinstance(error, TrackingError)
        what = str(error) if is_said else f"{type(error).__name__}: {one_line(error)}"
        return (
            f"{what} (it stays in {self.folder / name}; mend that and run adpet sync, or remove this folder "
            "and run the stage again)"
        )

    def _advance(self, seen: Glance, store: Store, done: Round) -> bool:
        """Send what a session has by now; return whether nothing of it is left."""
        delivery = self._delivery(seen.name)
        if delivery is None:
            return False
        before = delivery.sent
        try:
            over = seen.name not in self.own or self.own[seen.name].ended
            delivery.advance(store, over=over)
            if over:
                self._finish(delivery.session)
            return over
        finally:
            if delivery.sent > before:
                done.sent += delivery.sent - before
                done.runs.add(seen.key)

    def _finish(self, session: Session) -> None:
        """Take a session out of the outbox; what was refused of it is kept, and told of."""
        reasons = session.refused()
        if reasons:
            session.set_aside(self.root / REFUSED)
            self.refused.append(
                f"{len(reasons)} entries of the {session.key.kind} run {session.key.lineage} were refused "
                f"({reasons[0]}); they are kept in {REFUSED / session.name}: move this folder to {OUTBOX}/ "
                "to have it sent again"
            )
        else:
            session.remove()
        self.own.pop(session.name, None)
        self._deliveries.pop(session.name, None)
        session.release()


def _is_for(seen: Glance, only: str | None) -> bool:
    """Say whether a session may go to the store of this name: what was written offline may go to any."""
    return only is None or seen.store in (None, only)
