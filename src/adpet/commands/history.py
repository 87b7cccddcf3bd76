"""Tell who was champion when, why, and by whose decision."""

import argparse
from pathlib import Path

from adpet.params import load_params
from adpet.tracking import promotion
from adpet.tracking.decisions import Book, Decision
from adpet.tracking.store import connect

HEADER = ("when (UTC)", "champion", "before", "by", "decision")


def main(_: argparse.Namespace) -> None:
    """Print the history."""
    print(run())


def run() -> str:
    """Return every decision on the champion as a table, the earliest first.

    An alias that was moved past adpet is written down in the registry before; where the user may only read,
    a last line tells of it.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    book = promotion.history(model_name=tracking.model_name)
    rows = _rows(book)
    if not rows and book.champion is None:
        return f"{tracking.model_name} never had a champion; make one with: adpet promote"
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (HEADER, *rows)]
    if book.champion != book.recorded:
        lines.append(_not_written_down(book.champion))
    return "\n".join(lines)


def _not_written_down(champion: int | None) -> str:
    where = "is gone" if champion is None else f"points to version {champion} now"
    return f"the alias {where}, which is not yet written down: that takes EDIT on the model"


def _rows(book: Book) -> list[tuple[str, ...]]:
    """Return a row for each decision, and one for each that was removed, in their order."""
    numbered = [(one.number, _row(one)) for one in book.decisions if not one.is_idle_look]
    numbered += [(number, _removed(number)) for number in book.removed]
    return [row for _, row in sorted(numbered, key=lambda one: one[0])]


def _removed(number: int) -> tuple[str, ...]:
    return ("?",) * (len(HEADER) - 1) + (f"decision {number} was removed from the registry",)


def _row(decision: Decision) -> tuple[str, ...]:
    moved = _version(decision.after) if decision.end == "done" else "unchanged"
    return (
        decision.at[:19].replace("T", " "),
        "unknown" if decision.end == "unknown" else moved,
        _version(decision.before),
        decision.who if decision.kind != "moved by hand" else f"? (seen by {decision.who})",
        _told(decision),
    )


def _version(number: int | None) -> str:
    return "none" if number is None else str(number)


def _told(decision: Decision) -> str:
    """Return what was decided, why, and where it did not come to its end."""
    what: str = decision.kind
    if decision.forced:
        missed = [text.partition(":")[0] for text in decision.conditions if ": NOT MET: " in text]
        what += f" by force (not met: {', '.join(missed) or 'nothing'})"
    if decision.why:
        what += f": {decision.why}"
    if decision.end == "done":
        return f"{what} [{decision.end_why}]" if decision.end_why else what
    state = "unfinished" if decision.end is None else decision.end_why
    return f"{what} [meant for version {_version(decision.after)}; {state}]"
