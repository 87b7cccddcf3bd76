"""Promotion and rollback of the champion, with their history.

Each decision is a tag of the registered model, ``adpet.decision.NUMBER.ID``, that is never overwritten:
written before the alias moves, and ended by a second tag once the alias was read back. Anyone who may write
tags may write anything there, so texts are shown as one line of printable characters.
"""

import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.evaluation.leakage import INVALID
from adpet.evaluation.promotion import Condition, Rule, conditions, external_conditions
from adpet.tracking import registry
from adpet.tracking.store import LEAKY, current, reported, user
from adpet.tracking.validation import validations_of

# Kinds of decisions, and how they end; without an end, one is being taken, or its process was killed.
PROMOTION, ROLLBACK, BY_HAND = "promotion", "rollback", "moved by hand"
DONE, OVERTAKEN = "done", "overtaken"

_KEY = re.compile(r"adpet\.decision\.([0-9]{6,})\.([0-9a-f]{12})")
# What a tag says of a decision.
FIELDS = ("kind", "before", "after", "why", "forced", "conditions", "who", "at")
# MLflow's database holds 5000 characters of a tag.
LONGEST_REASON = 500
# Seconds to wait for a simultaneous decision; one takes well below a second.
SETTLE_S = 2.0
_PAUSE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision on the champion, as the history shows it.

    `before` and `after` are versions with the alias; `at` is UTC, ISO 8601, empty for an alias moved by hand;
    `end` is ``done``, ``overtaken`` or empty (unfinished).
    """

    kind: str
    before: int | None
    after: int | None
    why: str = ""
    forced: bool = False
    conditions: tuple[str, ...] = ()
    who: str = ""
    at: str = ""
    number: int = 0
    id: str = ""
    end: str = ""

    @property
    def key(self) -> str:
        """The tag of the registered model."""
        return f"adpet.decision.{self.number:06d}.{self.id}"


@dataclass(frozen=True)
class History:
    """Decisions on a registered model, and its present champion."""

    written: tuple[Decision, ...]
    champion: int | None

    @property
    def rows(self) -> list[Decision]:
        """Decisions, and the moves by hand between them."""
        rows: list[Decision] = []
        now = None
        for decision in self.written:
            if decision.end == DONE:
                if decision.before != now:
                    rows.append(_by_hand(now, decision.before, decision.number))
                now = decision.after
            rows.append(decision)
        return rows if now == self.champion else [*rows, _by_hand(now, self.champion, self.last_number + 1)]

    @property
    def last_number(self) -> int:
        """Number of the last decision, 0 before the first."""
        return max((decision.number for decision in self.written), default=0)

    @property
    def removed(self) -> list[int]:
        """Numbers of decisions that were deleted before the last."""
        return sorted(set(range(1, self.last_number)) - {decision.number for decision in self.written})

    @property
    def champions(self) -> list[int | None]:
        """Champions up to the present one, without those rolled back."""
        line: list[int | None] = [None]
        for decision in self.rows:
            if decision.end != DONE:
                continue
            if decision.kind == ROLLBACK and decision.after in line:
                while line[-1] != decision.after:
                    line.pop()
            else:
                line.append(decision.after)
        return line

    @property
    def pending(self) -> set[str]:
        """Ids of unfinished decisions since the last that is done."""
        last = max((decision.number for decision in self.written if decision.end == DONE), default=0)
        return {decision.id for decision in self.written if not decision.end and decision.number >= last}


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Outcome of a promotion; without conditions for the champion."""

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
    """Outcome of a rollback, with deleted champions it skipped."""

    before: int | None
    after: int
    skipped: tuple[int, ...]


def promote(
    version: int | str, *, model_name: str, rule: Rule, forced: str | None = None, dry_run: bool = False
) -> Promotion:
    """Make a version the champion if it meets every condition.

    `version` is a number, alias or ``models:/`` address; `forced` the reason to promote it whatever the
    conditions say. A dry run changes nothing.
    """
    challenger = registry.named(version, model_name=model_name)
    if challenger.name != model_name:
        raise TrackingError(
            f"{challenger.uri}: required a version of {model_name}; received one of another model; see "
            "params.yaml, tracking.model_name"
        )
    with registry.registered_files(challenger):
        pass
    champion, after = read_history(model_name).champion, challenger.number
    found = [] if champion == after else judge(challenger, champion, rule)
    judged = Promotion(before=champion, after=after, conditions=found, moved=False)
    if champion == after or dry_run or (forced is None and not judged.granted):
        return judged
    decision = Decision(
        kind=PROMOTION,
        before=champion,
        after=after,
        why="every condition is met" if forced is None else forced,
        forced=forced is not None,
        conditions=tuple(f"{name}: {'met' if met else 'NOT MET'}: {text}" for name, met, text in found),
    )
    _decide(model_name, decision)
    return replace(judged, moved=True)


def judge(challenger: registry.Version, champion: int | None, rule: Rule) -> list[Condition]:
    """Apply the rule to a version."""
    try:
        evidence = registry.evidence_of(challenger)
    except registry.NoEvidenceError as error:
        return [Condition("evidence", met=False, text=str(error))]
    if registry.has_tag(challenger, LEAKY, "true"):
        evidence = replace(evidence, leaky=True)
    if registry.has_tag(challenger, registry.LEAKAGE, INVALID):
        evidence = replace(evidence, leakage=INVALID)
    try:
        now = None if champion is None else registry.named(champion, model_name=challenger.name)
        other = None if now is None else registry.evidence_of(now)
    except registry.NoEvidenceError as error:
        found = [*conditions(evidence, None, rule)[:-1], Condition("champion", met=False, text=str(error))]
    else:
        found = conditions(evidence, other, rule)
    external = external_conditions(validations_of(challenger), rule, uri=challenger.uri)
    return [*found[:-1], *external, found[-1]]


def rollback(*, model_name: str, reason: str = "") -> Rollback:
    """Return the alias to the previous champion that still exists.

    A second rollback returns to the champion before that.
    """
    history = read_history(model_name)
    existing, now = registry.version_numbers(model_name), history.champion
    earlier = [number for number in reversed(history.champions[:-1]) if number not in (None, now)]
    after = next((number for number in earlier if number in existing), None)
    gone = earlier if after is None else earlier[: earlier.index(after)]
    skipped = tuple(number for number in dict.fromkeys(gone) if number is not None)
    if after is None:
        none = f"there was none ({skipped_text(skipped)})" if skipped else "there was none"
        raise TrackingError(
            f"models:/{model_name}: required a champion before the present one; {none}; "
            "promote another version with: adpet promote VERSION"
        )
    with registry.registered_files(registry.named(after, model_name=model_name)):
        pass
    why = "; ".join(filter(None, [skipped_text(skipped), reason]))
    _decide(model_name, Decision(kind=ROLLBACK, before=now, after=after, why=why))
    return Rollback(before=now, after=after, skipped=skipped)


def skipped_text(versions: Sequence[int]) -> str:
    """Name the deleted versions that a rollback skipped."""
    plural = "s" if len(versions) > 1 else ""
    return f"skipped, since deleted: version{plural} {', '.join(map(str, versions))}" if versions else ""


def read_history(name: str) -> History:
    """Read decisions on a registered model; refuse changed ones."""
    with reported():
        try:
            model = current().client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"models:/{name}: required a registered model, but there is none yet; run: dvc repro"
            ) from error
    decisions = []
    for key, text in model.tags.items():
        if (place := _KEY.fullmatch(key)) is None:
            continue
        end = next((end for end in (DONE, OVERTAKEN) if f"{key}.{end}" in model.tags), "")
        try:
            known = {field: _printable(value) for field, value in json.loads(text).items() if field in FIELDS}
            decisions.append(Decision(**known, number=int(place[1]), id=place[2], end=end))
        except (AttributeError, ValueError, TypeError) as error:
            raise TrackingError(
                f"tag {key} of the registered model: required a decision as adpet writes it; received "
                "another; correct it in the MLflow UI"
            ) from error
    decisions.sort(key=lambda decision: (decision.number, decision.id))
    champion = model.aliases.get(registry.CHAMPION)
    return History(tuple(decisions), None if champion is None else int(champion))


def printable(text: str) -> str:
    """Return a text as one line of printable characters, single-spaced."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _decide(name: str, decision: Decision) -> None:
    """Write a decision, move the alias, and read it back.

    Of two at once, each sees the other's decision or its effect: the alias decides which is done.
    """
    earlier = _settled(name, besides=set())
    mine = replace(
        decision,
        number=earlier.last_number + 1,
        id=uuid.uuid4().hex[:12],
        who=user(),
        why=printable(decision.why)[:LONGEST_REASON],
        at=_now(),
    )
    _set_tag(name, mine.key, {field: getattr(mine, field) for field in FIELDS})
    end, champion = OVERTAKEN, read_history(name).champion
    if champion == mine.before:
        with reported():
            current().client.set_registered_model_alias(name, registry.CHAMPION, str(mine.after))
        champion = _settled(name, besides={mine.id, *earlier.pending}).champion
        end = DONE if champion == mine.after else OVERTAKEN
    _set_tag(name, f"{mine.key}.{end}", {"at": _now()})
    if end == OVERTAKEN:
        received = "none" if champion is None else f"version {champion}"
        raise TrackingError(
            f"models:/{name}/{mine.after}: required a champion that stays while this is decided; received "
            f"{received}, set meanwhile; see: adpet history; then decide again"
        )


def _settled(name: str, *, besides: set[str]) -> History:
    """Read the history once no other decision is pending."""
    # One that is pending for longer was of a process that was killed.
    deadline = time.monotonic() + SETTLE_S
    while (history := read_history(name)).pending - besides and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return history


def _by_hand(before: int | None, after: int | None, number: int) -> Decision:
    why = "set in the MLflow UI, by another tool, or by an unfinished decision"
    return Decision(kind=BY_HAND, before=before, after=after, why=why, number=number, end=DONE)


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return tuple(map(_printable, value)) if isinstance(value, list | tuple) else value


def _set_tag(name: str, key: str, document: dict[str, Any]) -> None:
    text = json.dumps({field: _printable(value) for field, value in document.items()}, ensure_ascii=False)
    with reported():
        current().client.set_registered_model_tag(name, key, text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
