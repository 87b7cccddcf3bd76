"""Who was champion when, why, and by whose decision: tags of the registered model, only ever added to.

A decision has a key of its own, ``adpet.decision.NUMBER.ID``, under which its intent is written before the
alias moves; ``.done`` behind it says that it moved, ``.void`` that it did not, ``.unknown`` that nobody can
tell any more. Nothing is overwritten, since no two decisions share an id, and they are ordered by number,
then id. A decision that has no end was killed half-way, or is being taken just now: `adpet.tracking.turns`
tells which.

Whoever may write tags may write anything there: what is told of them is one line of printable characters.
"""

import json
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.tracking.store import current, reported
from adpet.tracking.writers import owner, user

Kind = Literal["promotion", "rollback", "moved by hand"]
End = Literal["done", "void", "unknown"]

CHAMPION = "champion"

_DECISION = "adpet.decision."
_KEY = re.compile(re.escape(_DECISION) + r"[0-9]{6,}\.[0-9a-f]{12}")
# Set while a process is about to choose its number; the one thing that is taken away again.
_CHOOSING = "adpet.choosing."
# A database holds 5000 characters of a tag.
LONGEST_REASON = 500


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What is to be decided: `before` and `after` are the champion's versions, None for none."""

    kind: Kind
    before: int | None
    after: int | None
    why: str
    forced: bool = False
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Decision(Draft):
    """A decision as it stands in the registry.

    Attributes
    ----------
    who : str
        The user of the MLflow server, or else of the operating system; of an alias that was moved by hand,
        who noticed.
    at : str
        UTC, ISO 8601: when the alias moved, or when it was to be moved.
    end : {"done", "void", "unknown"} or None
        None where it was killed half-way, or is being taken.
    end_why : str
        Why it came to nothing or is not known, or that somebody else ended it.
    owner : str
        The process that took it.
    """

    number: int
    id: str
    who: str
    at: str
    owner: str
    end: End | None = None
    end_why: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """Its place among all decisions."""
        return self.number, self.id

    @property
    def is_idle_look(self) -> bool:
        """Whether it looked for a move by hand, and found none after all."""
        return self.kind == "moved by hand" and self.end != "done"


@dataclass(frozen=True)
class Book:
    """All that the registry knows of its champions at one moment.

    Attributes
    ----------
    decisions : tuple of Decision
        The earliest first.
    champion : int or None
        The version that has the alias.
    choosing : dict of str to str
        The processes that are about to choose a number, by id.
    """

    decisions: tuple[Decision, ...]
    champion: int | None
    choosing: dict[str, str]

    @property
    def recorded(self) -> int | None:
        """The champion by the decisions alone; another one than `champion` was moved by hand."""
        done = [one for one in self.decisions if one.end == "done"]
        return done[-1].after if done else None

    @property
    def removed(self) -> list[int]:
        """The numbers of decisions that somebody removed, but for the last ones, of which nothing is left.

        A number is one more than the highest that is written down, and none is ever taken away by adpet.
        """
        numbers = {one.number for one in self.decisions}
        return sorted(set(range(1, max(numbers, default=0))) - numbers)

    @property
    def succession(self) -> list[int | None]:
        """The champions one after the other up to the present one; a rollback takes all after its own off."""
        line: list[int | None] = [None]
        for one in self.decisions:
            if one.end != "done":
                continue
            if one.kind == "rollback" and one.after in line:
                while line[-1] != one.after:
                    line.pop()
            else:
                line.append(one.after)
        return line


def read_book(name: str) -> Book:
    """Read the decisions on a registered model.

    Raises
    ------
    TrackingError
        Where there is no such model.
    """
    with reported():
        try:
            model = current().client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise TrackingError(
                f"models:/{name}: required a registered model, but there is none yet; run: dvc repro"
            ) from error
    champion = dict(model.aliases).get(CHAMPION)
    tags = dict(model.tags)
    choosing = {
        key.removeprefix(_CHOOSING): printable(value)
        for key, value in tags.items()
        if key.startswith(_CHOOSING)
    }
    return Book(_decisions(tags), None if champion is None else int(champion), choosing)


def printable(text: str) -> str:
    """Return a text as one line of printable characters with single spaces between them."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def new_id() -> str:
    """Return an id that no other decision has."""
    return uuid.uuid4().hex[:12]


def announce(name: str, identity: str) -> None:
    """Say that this process is about to choose its number."""
    _set(name, _CHOOSING + identity, owner())


def withdraw_announcement(name: str, identity: str) -> None:
    """Say that it has chosen."""
    with reported():
        current().client.delete_registered_model_tag(name, _CHOOSING + identity)


def write_intent(name: str, draft: Draft, *, number: int, identity: str) -> Decision:
    """Write down what is to be decided, before it is."""
    decision = Decision(
        **{**vars(draft), "why": printable(draft.why)[:LONGEST_REASON]},
        number=number,
        id=identity,
        who=user(),
        at=_now(),
        owner=owner(),
    )
    document = {key: value for key, value in vars(decision).items() if key not in ("end", "end_why")}
    _set(name, _key(decision), _written(document))
    return decision


def write_end(name: str, decision: Decision, end: End, *, why: str = "") -> None:
    """Write down that the alias moved, that it did not, or that this is not known, and why."""
    document = {"at": _now(), "who": user(), "why": why}
    _set(name, f"{_key(decision)}.{end}", _written(document))


def _decisions(tags: dict[str, str]) -> tuple[Decision, ...]:
    """Put the decisions together from tags, each with its end."""
    keys = [key for key in tags if _KEY.fullmatch(key)]
    return tuple(sorted((_decision(tags, key) for key in keys), key=lambda one: one.order))


def _decision(tags: dict[str, str], key: str) -> Decision:
    try:
        document = _read(tags[key])
        # Where a process that was taken for dead went on, its alias moved after all: done is the last word.
        for end in get_args(End):
            if f"{key}.{end}" in tags:
                ended = _read(tags[f"{key}.{end}"])
                at = ended["at"] if end == "done" else document["at"]
                return Decision(**{**document, "end": end, "end_why": ended["why"], "at": at})
        return Decision(**document)
    except (ValueError, KeyError, TypeError) as error:
        raise TrackingError(
            f"tag {key} of the registered model: required a decision as adpet writes it; received another; "
            "correct it in the MLflow UI"
        ) from error


def _written(document: dict[str, Any]) -> str:
    return json.dumps({key: _printable(value) for key, value in document.items()}, ensure_ascii=False)


def _read(text: str) -> dict[str, Any]:
    return {key: _printable(value) for key, value in dict(json.loads(text)).items()}


def _printable(value: Any) -> Any:
    """Return a value of a document with printable texts, also in lists."""
    if isinstance(value, str):
        return printable(value)
    return tuple(map(_printable, value)) if isinstance(value, list | tuple) else value


def _key(decision: Decision) -> str:
    return f"{_DECISION}{decision.number:06d}.{decision.id}"


def _set(name: str, key: str, value: str) -> None:
    with reported():
        current().client.set_registered_model_tag(name, key, value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
