"""Errors that a user can mend, one line each."""

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class AdpetError(Exception):
    """What is wrong, where, and what to do next."""


class ParameterError(AdpetError):
    """A key of ``params.yaml`` is unknown, mistyped or contradictory."""


class InputError(AdpetError):
    """A scan, table or folder cannot be used."""


class LeakageError(AdpetError):
    """A subject is on two sides of a split."""


class TrackingError(AdpetError):
    """The tracking server or model registry cannot do it."""


def told_apart(value: float, limit: float) -> tuple[str, str]:
    """Write both with three digits, or more until they differ."""
    for digits in range(3, 18):
        # Adding 0 makes -0 a 0.
        texts = f"{value + 0:.{digits}g}", f"{limit + 0:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def not_installed(what: str, error: ModuleNotFoundError, *, extra: str) -> AdpetError:
    """Return the error of a package that an extra installs."""
    return AdpetError(f"{what}: required {error.name}; received none; run: pip install '.[{extra}]'")


def validation_messages(errors: Sequence["ErrorDetails"], document: Any, model: Any) -> list[str]:
    """Return pydantic's errors by key; 'or' joins a union's alternatives."""
    required: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        key = _key_path(error["loc"], document)
        if error["type"] == "value_error":
            text = str(error["ctx"]["error"])
            separator = "." if key and not text.startswith("required") else ": " if key else ""
            required[key + separator + text, ""] = []
        elif error["type"] == "extra_forbidden":
            required[_unknown_key(error["loc"], model), ""] = []
        else:
            wanted = error["msg"].removeprefix("Input should be ")
            required.setdefault((key, repr(error["input"])), []).append(wanted)
    return [
        f"{key or 'top level'}: required {' or '.join(dict.fromkeys(wanted))}; received {received}"
        if wanted
        else key
        for (key, received), wanted in required.items()
    ]


def _key_path(location: tuple[int | str, ...], document: Any) -> str:
    """Return the dotted key of a location, without union branches."""
    names = []
    for name in location:
        try:
            document = document[name]
        except (KeyError, IndexError, TypeError):
            break
        names.append(str(name))
    return ".".join(names)


def _unknown_key(location: tuple[int | str, ...], model: Any) -> str:
    *sections, key = map(str, location)
    for section in sections:
        model = model.model_fields[section].annotation
    allowed = list(model.model_fields)
    close = difflib.get_close_matches(key, allowed, n=1)
    hint = f"; did you mean {'.'.join([*sections, close[0]])}?" if close else ""
    return f"{'.'.join([*sections, key])}: unknown key; allowed here: {', '.join(allowed)}{hint}"
