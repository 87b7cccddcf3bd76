"""Print who was champion when, why, and by whose decision."""

from pathlib import Path

from adpet.params import load_params
from adpet.tracking import promotion
from adpet.tracking.promotion import BY_HAND, DONE, Decision
from adpet.tracking.store import connect

HEADER = ("when (UTC)", "champion", "before", "by", "decision")


def main() -> str:
    """Return decisions on the champion as a table."""
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    history = promotion.read_history(tracking.model_name)
    numbered = [(decision.number, _row(decision)) for decision in history.rows]
    unknown = ("?",) * (len(HEADER) - 1)
    numbered += [(n, (*unknown, f"decision {n} was removed from the registry")) for n in history.removed]
    rows = [row for _, row in sorted(numbered, key=lambda pair: pair[0])]
    if not rows:
        return f"{tracking.model_name} never had a champion; make one with: adpet promote"
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (HEADER, *rows))


def _row(decision: Decision) -> tuple[str, ...]:
    return (
        decision.at[:19].replace("T", " ") or "?",
        _version(decision.after) if decision.end == DONE else "unchanged",
        _version(decision.before),
        "?" if decision.kind == BY_HAND else decision.who,
        _text(decision),
    )


def _version(number: int | None) -> str:
    return "none" if number is None else str(number)


def _text(decision: Decision) -> str:
    """Return what was decided, why, and how it ended."""
    what = decision.kind
    if decision.forced:
        missed = [text.partition(":")[0] for text in decision.conditions if ": NOT MET: " in text]
        what += f" by force (not met: {', '.join(missed) or 'nothing'})"
    if decision.why:
        what += f": {decision.why}"
    if decision.end == DONE:
        return what
    return f"{what} [meant for version {_version(decision.after)}; {decision.end or 'unfinished'}]"
