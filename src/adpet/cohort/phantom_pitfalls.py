"""What is planted in a messy phantom: how scans of the cohort are stored, and who and what lies beside them.

The plan follows from the cohort and the seed alone; the layouts carry it out. Whatever lies beside the cohort
is a copy of a scan of it, so that a mess costs no simulation. Copies are never read as scans: the
usable scans of a messy cohort are the cohort's own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from adpet.cohort.phantom import Row, cohort_rows
from adpet.cohort.phantom_stored import READABLE
from adpet.cohort.scanner import SITES

# "ignored": what no table names, since no reader takes it for a scan.
Verdict = Literal["read", "skipped", "unusable", "ignored"]

# Of the cohort's scans so many are stored in an unusual way,
STORED_SHARE = 2 / 3
# and for each of them so many cannot be used, below the usual cohort.max_rejected_fraction of 0.1.
UNUSABLE_SHARE = 0.08

# So many scans with nothing planted in their files may have something planted beside them.
PLAIN = 4

# What archives call people who are neither AD nor CN.
OTHER_GROUPS: Final = ("MCI", "EMCI", "LMCI", "SMC", "Patient")
SHARED = "the same image under two subjects"
CHANGED = "a diagnosis that changed between visits"


@dataclass(frozen=True)
class Planted:
    """One line of ``planted.csv``: `file` is POSIX, relative to the collection's folder."""

    file: str
    pitfall: str
    verdict: Verdict


@dataclass(frozen=True)
class Guest:
    """A person beside the cohort.

    Attributes
    ----------
    row : Row
        As of `draw_cohort`; `diagnosis` in the archive's words.
    source : Row
        The cohort's scan whose file is copied.
    damage : callable or None
        Makes of the copied bytes what is stored; None where there is no file.
    listed : bool
        Whether the tables have a row for the person.
    """

    row: Row
    source: Row
    pitfall: str
    verdict: Verdict
    damage: Callable[[bytes], bytes] | None
    listed: bool = True


@dataclass(frozen=True)
class Mess:
    """What is planted.

    Attributes
    ----------
    stored : dict of (str, str) to str
        The pitfall of `READABLE` by subject and session; others are stored as they should be.
    guests : tuple of Guest
        People beside the cohort.
    shared : Row or None
        The scan that another subject has too, which makes both unusable.
    changed : Row or None
        The scan of a subject with the disease from before it was diagnosed.
    plain : tuple of Row
        Scans with nothing of all this, in an order of chance.
    """

    stored: dict[tuple[str, str], str]
    guests: tuple[Guest, ...]
    shared: Row | None
    changed: Row | None
    plain: tuple[Row, ...]

    def pitfall(self, row: Row) -> str:
        """Return how a scan is stored, ``""`` for as it should be."""
        return self.stored.get((row["subject"], row["session"]), "")


NO_MESS: Final = Mess({}, (), None, None, ())


def plan_mess(cohort: pd.DataFrame, seed: int) -> Mess:
    """Plan what is planted in a cohort of `draw_cohort`."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4,)))
    rows = cohort_rows(cohort.iloc[rng.permutation(len(cohort))])
    visits = cohort["subject"].value_counts()
    changed = next((row for row in rows if _first_of_several(row, visits) and row["diagnosis"] == "AD"), None)
    # Frames are a pitfall of their own.
    free = [row for row in rows if row is not changed and SITES[row["site"]].frames == 1]
    number = int(STORED_SHARE * len(free))
    stored = dict(zip(map(_scan, free[:number]), cycle(READABLE), strict=False))
    plain = free[number:]
    shared = next((row for row in plain[1:] if visits[row["subject"]] == 1), None)
    sources = [row for row in plain if row is not shared]
    guests = _guests(cohort, sources, shared)
    if SHARED not in {guest.pitfall for guest in guests}:
        shared = None
    return Mess(stored, guests, shared, changed, tuple(sources[:PLAIN]))


def as_it_is(content: bytes) -> bytes:
    """Return an undamaged file."""
    return content


def _first_of_several(row: Row, visits: "pd.Series[int]") -> bool:
    return row["session"] == "01" and visits[row["subject"]] > 1


def _guests(cohort: pd.DataFrame, sources: Sequence[Row], shared: Row | None) -> tuple[Guest, ...]:
    """Return people of other diagnoses, and as many with unusable files as the cohort bears."""
    last = int(cohort["subject"].iloc[-1][1:])
    chosen = [*_others(), *_unusable(int(UNUSABLE_SHARE * len(cohort)), shared)]
    guests = []
    for number, (source, (pitfall, group, facts)) in enumerate(zip(cycle(sources), chosen, strict=False)):
        original = shared if pitfall == SHARED and shared else source
        own = {"subject": f"P{last + 1 + number:04d}", "session": "01", "diagnosis": group}
        guests.append(Guest({**original, **own}, original, pitfall, **facts))
    return tuple(guests)


def _others() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for group in OTHER_GROUPS:
        yield f"diagnosis {group}", group, {"verdict": "skipped", "damage": as_it_is}


def _unusable(budget: int, shared: Row | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield pitfall, group and facts, the most frequent faults first, while `budget` lasts."""
    for number, (pitfall, facts) in enumerate(UNUSABLE.items()):
        # Of a shared image both scans are lost.
        cost = 2 if pitfall == SHARED else 1
        if cost <= budget and (shared or pitfall != SHARED):
            budget -= cost
            yield pitfall, ("AD", "CN")[number % 2], {"verdict": "unusable", **facts}


def _scan(row: Row) -> tuple[str, str]:
    return row["subject"], row["session"]


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 3]


def _emptied(_: bytes) -> bytes:
    return b""


def _text(_: bytes) -> bytes:
    return b"Dear colleague, the images are on the disc that we sent to you. " * 40


UNUSABLE: Final[dict[str, dict[str, Any]]] = {
    "truncated file": {"damage": _truncated},
    "row without file": {"damage": None},
    SHARED: {"damage": as_it_is},
    "zero-byte file": {"damage": _emptied},
    "text called .nii": {"damage": _text},
    "file without row": {"damage": as_it_is, "listed": False},
}
