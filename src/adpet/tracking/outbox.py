"""All that waits for MLflow: sessions in the order in which they began, and one pass of sending them.

A session of a run is not sent before those of the same run that began earlier, nor that of a trial before
the run of its search is there.
"""

from dataclasses import dataclass, field
from pathlib import Path

from adpet.errors import TrackingError
from adpet.tracking import journal
from adpet.tracking.delivery import Delivery, MissingRunError
from adpet.tracking.journal import END, OPEN, RunKey, Session
from adpet.tracking.store import Store, UnreachableError


@dataclass
class Round:
    """What one pass through the outbox came to."""

    sent: int = 0
    runs: set[RunKey] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class Outbox:
    """The project's unsent sessions, as one process sees them; `own` are those that it writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / journal.OUTBOX
        self.own: dict[str, Session] = {}
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
        held: set[RunKey] = set()
        unborn: set[RunKey] = set()
        for name in journal.names(self.folder):
            first, _ = journal.waiting(self.folder, name)
            if not first or not _is_for(first, only):
                continue
            key, parent = RunKey(first["kind"], first["lineage"]), first.get("parent")
            blocked = key in held or (parent and RunKey(**parent) in unborn)
            delivery = None if blocked else self._delivery(name)
            if delivery is None:
                over, go_on = False, True
            else:
                over, go_on = self._advance(delivery, store, done)
            if not over:
                held.add(key)
                if first["do"] == OPEN and journal.run_id(self.folder, name) is None:
                    unborn.add(key)
            if not go_on:
                break
        return done

    def waiting(self, *, only: str | None) -> dict[RunKey, int]:
        """Return how many lines of which runs the store has not taken."""
        counts: dict[RunKey, int] = {}
        for name in journal.names(self.folder):
            first, lines = journal.waiting(self.folder, name)
            if lines and _is_for(first, only):
                key = RunKey(first["kind"], first["lineage"])
                counts[key] = counts.get(key, 0) + lines
        return counts

    def opens(self, key: RunKey, *, only: str | None) -> bool:
        """Say whether a session begins or continues this run."""
        facts = {"do": OPEN, "kind": key.kind, "lineage": key.lineage}
        firsts = (journal.waiting(self.folder, name)[0] for name in journal.names(self.folder))
        return any(facts.items() <= first.items() and _is_for(first, only) for first in firsts)

    def release(self) -> None:
        """Let other processes have what this one leaves: all but what it still writes."""
        held = {name: delivery.session for name, delivery in self._deliveries.items()} | self.own
        for name, session in held.items():
            if name not in self.own or session.ended:
                self.own.pop(name, None)
                self._deliveries.pop(name, None)
                session.release()

    def _delivery(self, name: str) -> Delivery | None:
        """Return a session on its way; None where another process has it."""
        if name not in self._deliveries:
            session = self.own.get(name) or journal.claim(self.folder, name)
            if session is None:
                return None
            self._deliveries[name] = Delivery(session)
        return self._deliveries[name]

    def _advance(self, delivery: Delivery, store: Store, done: Round) -> tuple[bool, bool]:
        """Send one session; return whether it holds up no other of its run, and whether to go on at all."""
        key, before = delivery.session.key, delivery.sent
        try:
            delivery.advance(store)
            return self._finish(delivery, store), True
        except MissingRunError as error:
            # It waits for a run that a later session may bring.
            done.problems.append(str(error))
            return True, True
        except UnreachableError as error:
            done.problems.append(str(error))
            return False, not error.silent
        except TrackingError as error:
            done.problems.append(f"{error} (it stays in {delivery.session.folder})")
            return False, True
        finally:
            if delivery.sent > before:
                done.sent += delivery.sent - before
                done.runs.add(key)

    def _finish(self, delivery: Delivery, store: Store) -> bool:
        """Remove a session of which everything is sent, and to which nobody writes any more."""
        session = delivery.session
        if session.name in self.own and not (session.ended and delivery.last == END):
            return False
        delivery.close(store)
        self.own.pop(session.name, None)
        self._deliveries.pop(session.name, None)
        session.remove()
        session.release()
        return True


def _is_for(first: dict[str, object], only: str | None) -> bool:
    """Say whether a session may go to the store of this name: what was written offline may go to any."""
    return only is None or first.get("store") in (None, only)
