"""Write ``docs/reference.md``: parameters, commands and documents, from the code.

What a parameter means stands in ``params.yaml``, next to it; types and limits are those of the models.
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adpet import cli, contracts
from adpet.params import Params

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference.md"
HEAD = ("# Reference", "", "Every parameter, command and document; written by `scripts/reference.py`.")
SIMPLE = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`",
    "null": "`null`", "object": "mapping",
}  # fmt: skip
LIMITS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
LIMITS["multipleOf"] = "in steps of"
Schema = Mapping[str, Any]


def reference() -> str:
    """Return the whole page."""
    text = "\n".join([*HEAD, *_parameters(), *_commands(), *_documents(), ""])
    return re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text)


def _parameters() -> Iterator[str]:
    yield from ("", "## Parameters", "", "Of `params.yaml`; a key that the file lacks takes its default.")
    yield "A key of a section follows a dot: `dvc exp run -S train.epochs=30`."
    schema, meanings = Params.model_json_schema(), _meanings((ROOT / "params.yaml").read_text("utf-8"))
    parts, columns = schema["$defs"], ("parameter", "meaning", "allowed", "default")

    def rows(fields: Schema, section: str = "", above: str = "") -> Iterator[tuple[str, ...]]:
        for name, field in fields.items():
            key, is_mapping = f"{above}{name}", "$ref" in field
            default = "" if is_mapping else f"`{json.dumps(field['default'])}`".replace('"', "")  # as in YAML
            allowed = "mapping" if is_mapping else _type(field)
            yield f"`{key}`", meanings.get(f"{section}{key}", ""), allowed, default
            if is_mapping:
                yield from rows(parts[_part(field)]["properties"], section, f"{key}.")

    sections = {name: parts[_part(field)] for name, field in schema["properties"].items() if "$ref" in field}
    yield from _table(columns, rows({k: v for k, v in schema["properties"].items() if k not in sections}))
    for name, section in sections.items():
        text = meanings[name] or section["description"].removesuffix(".")
        yield from ("", f"### {name}", "", f"{text[0].upper()}{text[1:]}.")
        yield from _table(columns, rows(section["properties"], f"{name}."))


def _meanings(text: str) -> dict[str, str]:
    """Return the comment next to each key that has a line of its own."""
    found, above = {}, [""]
    for indent, name, comment in re.findall(r"^( *)(\w+):(?:.*? # *(.*)|.*)$", text, re.MULTILINE):
        above[len(indent) // 2 :] = [name]
        found[".".join(above)] = comment
    return found


def _commands() -> Iterator[str]:
    yield from ("", "## Commands")
    for title, names in (("Stages, which `dvc repro` runs:", cli.STAGES), ("For people:", cli.COMMANDS)):
        rows = ((f"`adpet {name}`", summary) for name, summary in names.items())
        yield from ("", title, *_table(("command", "what it does"), rows))
    for name in (*cli.STAGES, *cli.COMMANDS):
        if options := [(_usage(action), action.help or "") for action in _actions(name)]:
            yield from ("", f"### adpet {name}", *_table(("argument", "meaning"), options))


def _actions(command: str) -> list[argparse.Action]:
    """Return a command's arguments but ``--help``; argparse has no public list."""
    commands = next(action for action in cli._parser(command)._actions if action.dest == "command")  # noqa: SLF001
    return [action for action in dict(commands.choices or {})[command]._actions if action.dest != "help"]  # noqa: SLF001


def _usage(action: argparse.Action) -> str:
    values = f"{{{','.join(action.choices)}}}" if action.choices else action.metavar or action.dest.upper()
    words = [*action.option_strings[-1:], *([] if action.nargs == 0 else [values])]
    return f"`{' '.join(words)}{'...' * (action.nargs == '+')}`"


def _documents() -> Iterator[str]:
    yield from ("", "## Documents", "", "JSON that stages hand to each other; `adpet.contracts` checks it.")
    classes = [value for value in vars(contracts).values() if isinstance(value, type)]
    forms = [form for form in classes if issubclass(form, contracts.Contract) and form.model_fields]
    parts = {name for form in forms for name in form.model_json_schema().get("$defs", {})}
    rows = {form.__name__: _form_row(form) for form in forms}
    yield from _table(("document", "fields"), (row for name, row in rows.items() if name not in parts))
    yield from ("", "Their parts:", *_table(("part", "fields"), (rows[name] for name in sorted(parts))))


def _form_row(form: type[contracts.Contract]) -> tuple[str, str]:
    """Return what a form is, and its fields that are not those of a base."""
    schema, base = form.model_json_schema(), form.__mro__[1]
    inherited = getattr(base, "model_fields", {})
    fields = [f"those of `{base.__name__}`"] if inherited else []
    own = (item for item in schema["properties"].items() if item[0] not in inherited)
    fields += [
        f"`{name}`: {_type(field)}. {field.get('description', '')}".rstrip(" .") for name, field in own
    ]
    content = schema["description"].partition("\n")[0].replace("``", "`")
    return f"`{form.__name__}`<br>{content}", "<br>".join(fields)


def _type(schema: Schema) -> str:
    """Say which values are allowed."""
    match schema:
        case {"$ref": _}:
            text = f"`{_part(schema)}`"
        case {"const": value}:
            text = f"`{value}`"
        case {"enum": values}:
            text = " or ".join(f"`{value}`" for value in values)
        case {"anyOf": choices}:
            text = " or ".join(map(_type, choices))
        case {"prefixItems": items}:
            text = f"list of {len(items)}: {', '.join(dict.fromkeys(map(_type, items)))}"
        case {"type": "array", "items": items}:
            text = f"list of {_type(items)}"
        case {"additionalProperties": {} as values}:
            text = f"mapping to {_type(values)}"
        case _:
            text = SIMPLE[schema["type"]]
    limits = [f"{word} {schema[limit]}" for limit, word in LIMITS.items() if limit in schema]
    return f"{text} {' '.join(limits)}".rstrip()


def _part(field: Schema) -> str:
    return str(field["$ref"]).rpartition("/")[2]


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield ""
    for row in (columns, ["---" for _ in columns], *rows):
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
