"""Write the page's types of `model.json`, ``web/src/model.generated.ts``, from `adpet.contracts`.

The registration's types are those of its constants, which a model must have in common with the code.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adpet.contracts import ModelDocument
from adpet.inference.exported_model import registration_constants

TARGET = Path(__file__).parents[1] / "web" / "src" / "model.generated.ts"
HEAD = "/** Types of `model.json`, which adpet.contracts explains; written by scripts/page_types.py. */"
# Of Prettier, in web/.prettierrc.json.
WIDTH = 110
SIMPLE = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript() -> str:
    """Return interfaces of the document and of each of its sections."""
    schema = ModelDocument.model_json_schema()
    document = {"properties": schema["properties"] | {"registration": {"$ref": "Registration"}}}
    registration = {
        "properties": {name: _schema_of(value) for name, value in registration_constants().items()}
    }
    sections = {**schema["$defs"], "Registration": registration, schema["title"]: document}
    return "\n".join([HEAD, "", *(line for section in sections.items() for line in _declared(*section)), ""])


def _declared(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a section: one if it fits."""
    fields = [f"{field}: {_type(value)};" for field, value in schema["properties"].items()]
    short = f"export type {name} = {{ {' '.join(fields).removesuffix(';')} }};"
    if len(short) <= WIDTH:
        yield short
    else:
        yield from (f"export interface {name} {{", *(f"  {field}" for field in fields), "}")


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
        case {"fields": fields}:
            text = f"{{ {'; '.join(f'{name}: {_type(value)}' for name, value in fields.items())} }}"
        case {"type": "object", "additionalProperties": values}:
            text = f"Record<string, {_type(values)}>"
        case _:
            text = SIMPLE[schema["type"]]
    return text


def _schema_of(value: Any) -> dict[str, Any]:
    """Return the schema of a constant, as it is in JSON."""
    match value:
        case [Mapping() as first, *_]:
            return {"type": "array", "items": _schema_of(first)}
        case list():
            return {"prefixItems": [_schema_of(item) for item in value]}
        case Mapping():
            return {"fields": {name: _schema_of(item) for name, item in value.items()}}
    return {"type": "number"}


def _literal(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    TARGET.write_text(typescript(), encoding="utf-8")
