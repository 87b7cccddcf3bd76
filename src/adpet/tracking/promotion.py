"""The champion: a version takes the alias by a rule or by a reasoned decision, and gives it back.

Everything that moves the alias goes through one place, which writes it down (`adpet.tracking.decisions`) and
lets nobody else decide meanwhile (`adpet.tracking.turns`). An alias that was moved in MLflow's UI is noticed
by the next command, and written down as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adpet.errors import TrackingError
from adpet.evaluation.leakage import INVALID
from adpet.evaluation.promotion import Condition, Evidence, Rule, conditions
from adpet.tracking.decisions import CHAMPION, Book, Draft, read_book, write_end
from adpet.tracking.evidence import NoEvidenceError, evidence_of
from adpet.tracking.registry import (
    AUDIT,
    Version,
    is_marked,
    named,
    registered_files,
    version_numbers,
    version_of,
)
from adpet.tracking.store import LEAKY, ForbiddenError, current, reported
from adpet.tracking.turns import is_at_work, turn, unfinished

# How often a promotion is judged anew since another one was quicker.
ATTEMPTS = 10

_OVERTAKEN = "the champion changed before its turn came; it was decided anew"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What came of a promotion.

    Attributes
    ----------
    before, after : int or None, int
        The champion before, and the version in question.
    conditions : list of Condition
        Empty where it is the champion already.
    moved : bool
        Whether it is the champion now.
    """

    before: int | None
    after: int
    conditions: list[Condition]
    moved: bool

    @property
    def granted(self) -> bool:
        """Whether every condition is met."""
        return all(condition.met for condition in self.conditions)


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """What came of a rollback.

    Attributes
    ----------
    before, after : int or None, int
        The champion that goes, and the one that returns.
    skipped : tuple of int
        Champions between them that were deleted, the latest first.
    """

    before: int | None
    after: int
    skipped: tuple[int, ...]


def promote(
    version: int | str, *, model_name: str, rule: Rule, forced: str | None = None, dry_run: bool = False
) -> Promotion:
    """Make a version, named by its number or an alias, the champion, if it meets every condition.

    Parameters
    ----------
    forced : str, optional
        A reason to promote it whatever the conditions say.
    dry_run : bool
        Judge, and change nothing.

    Raises
    ------
    TrackingError
        If there is no such version, it is one of another model, or its files are not those that were
        registered.
    """
    challenger = named(version, model_name=model_name)
    if challenger.name != model_name:
        raise TrackingError(
            f"models:/{challenger.name}/{challenger.number}: required a version of {model_name}; received "
            "one of another model; see params.yaml, tracking.model_name"
        )
    with registered_files(challenger):
        pass
    for _ in range(ATTEMPTS):
        champion = read_book(model_name).champion if dry_run else _settled(model_name).champion
        is_champion = champion == challenger.number
        judged = Promotion(
            before=champion,
            after=challenger.number,
            conditions=[] if is_champion else judge(challenger, champion, rule),
            moved=False,
        )
        if is_champion or dry_run or (forced is None and not judged.granted):
            return judged
        if _move(model_name, _draft(judged, forced)):
            return replace(judged, moved=True)
    raise _contended(model_name)


def judge(challenger: Version, champion: int | None, rule: Rule) -> list[Condition]:
    """Hold a version against the rule; where it has no evidence, that is the condition which is not met."""
    try:
        evidence = _marked(challenger, evidence_of(challenger))
    except NoEvidenceError as error:
        return [Condition("evidence", met=False, text=str(error))]
    if champion is None:
        return conditions(evidence, None, rule)
    try:
        other = evidence_of(version_of(f"models:/{challenger.name}/{champion}"))
    except NoEvidenceError as error:
        alone = conditions(evidence, None, rule)[:-1]
        return [*alone, Condition("champion", met=False, text=str(error))]
    return conditions(evidence, other, rule)


def rollback(*, model_name: str, reason: str = "") -> Rollback:
    """Give the alias back to the champion before the present one; again, to the one before that.

    Versions that were deleted are skipped.

    Raises
    ------
    TrackingError
        If there was none before that exists, or its files are not those that were registered.
    """
    for _ in range(ATTEMPTS):
        found = _way_back(model_name, _settled(model_name))
        with registered_files(version_of(f"models:/{model_name}/{found.after}")):
            pass
        why = "; ".join(filter(None, [told_skipped(found.skipped), reason]))
        if _move(model_name, Draft(kind="rollback", before=found.before, after=found.after, why=why)):
            return found
    raise _contended(model_name)


def told_skipped(versions: Sequence[int]) -> str:
    """Return in words which versions a rollback skipped; nothing where it skipped none."""
    plural = "s" if len(versions) > 1 else ""
    return f"skipped, since deleted: version{plural} {', '.join(map(str, versions))}" if versions else ""


def history(*, model_name: str) -> Book:
    """Return every decision, the earliest first; an alias that was moved by hand is written down before.

    Where the server lets the user read only, it is not, and the book's champion is another than `recorded`.
    """
    try:
        return _settled(model_name)
    except ForbiddenError:
        return read_book(model_name)


def _settled(name: str) -> Book:
    """Return the book once it explains the alias: what was left half-way is ended, a move by hand noted."""
    for _ in range(ATTEMPTS):
        book = read_book(name)
        left = [one for one in unfinished(book) if not is_at_work(one)]
        if book.champion == book.recorded and not left:
            return book
        why = "set in the MLflow UI, or by another tool than adpet"
        seen = Draft(kind="moved by hand", before=book.recorded, after=book.champion, why=why)
        with turn(name, seen) as (mine, now):
            is_so = now.champion != now.recorded
            is_seen = (now.recorded, now.champion) == (seen.before, seen.after)
            write_end(name, mine, "done" if is_so and is_seen else "void")
    raise _contended(name)


def _way_back(name: str, book: Book) -> Rollback:
    """Return the way to the last champion before the present one that still exists."""
    there = version_numbers(name)
    skipped: list[int] = []
    for number in reversed(book.succession[:-1]):
        if number in there and number != book.champion:
            return Rollback(before=book.champion, after=number, skipped=tuple(skipped))
        if number is not None and number not in (book.champion, *skipped):
            skipped.append(number)
    none = f"there was none ({told_skipped(skipped)})" if skipped else "there was none"
    raise TrackingError(
        f"models:/{name}: required a champion before the present one; {none}; "
        "promote another version with: adpet promote VERSION"
    )


def _move(name: str, draft: Draft) -> bool:
    """Move the alias as decided, if the champion is the one that was decided against."""
    with turn(name, draft) as (mine, book):
        if not book.champion == book.recorded == draft.before:
            write_end(name, mine, "void", why=_OVERTAKEN)
            return False
        with reported():
            current().client.set_registered_model_alias(name, CHAMPION, str(draft.after))
        write_end(name, mine, "done")
    return True


def _draft(judged: Promotion, forced: str | None) -> Draft:
    return Draft(
        kind="promotion",
        before=judged.before,
        after=judged.after,
        why="every condition is met" if forced is None else forced,
        forced=forced is not None,
        conditions=tuple(
            f"{condition.name}: {'met' if condition.met else 'NOT MET'}: {condition.text}"
            for condition in judged.conditions
        ),
    )


def _marked(version: Version, evidence: Evidence) -> Evidence:
    """Let the marks of a version and its run count beside its evidence."""
    if is_marked(version, LEAKY, "true"):
        evidence = replace(evidence, leaky=True)
    if is_marked(version, AUDIT, INVALID):
        evidence = replace(evidence, audit=INVALID)
    return evidence


def _contended(name: str) -> TrackingError:
    return TrackingError(
        f"models:/{name}: required a champion that stays while it is decided; received {ATTEMPTS} changes; "
        "try again"
    )
