"""Write the page's types of `model.json`, ``web/src/model.generated.ts``, from `adpet.contracts`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adpet.contracts import ModelDocument

TARGET = Path(__file__).parents[1] / "web" / "src" / "model.generated.ts"
HEAD = "/** Types of `model.json`, written by scripts/page_types.py from adpet.contracts: do not edit. */"
# Of Prettier, in web/.prettierrc.json.
WIDTH = 110
SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript() -> str:
    """Return interfaces of the document and of each of its sections."""
    schema = ModelDocument.model_json_schema()
    sections = {**schema["$defs"], schema["title"]: schema}
    return "\n".join([HEAD, "", *(line for section in sections.items() for line in _declared(*section)), ""])


def _declared(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a section: one where they fit in it and no field needs a comment."""
    yield f"/** {schema['description']} */"
    fields = schema["properties"]
    types = "; ".join(f"{field}: {_type(value)}" for field, value in fields.items())
    short = f"export type {name} = {{ {types} }};"
    if len(short) <= WIDTH and not any("description" in value for value in fields.values()):
        yield short
        return
    yield f"export interface {name} {{"
    for field, value in fields.items():
        if "$ref" not in value and "description" in value:
            yield f"  /** {value['description']} */"
        yield f"  {field}: {_type(value)};"
    yield "}"


def _type(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"$ref": name}:
            text = str(name).rpartition("/")[2]
        case {"const": value}:
            text = _literal(value)
        case {"enum": values}:
            text = " | ".join(map(_literal, values))
        case {"anyOf": choices}:
            text = " | ".join(map(_type, choices))
        case {"prefixItems": items}:
            text = f"[{', '.join(map(_type, items))}]"
        case {"type": "array", "items": items}:
            text = f"{_type(items)}[]"
        case {"type": "object", "additionalProperties": values}:
            text = f"Record<string, {_type(values)}>"
        case _:
            text = SIMPLE[schema["type"]]
    return text


def _literal(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    TARGET.write_text(typescript(), encoding="utf-8")
