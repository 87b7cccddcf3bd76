"""Preset: write its values into ``params.yaml``."""

import argparse
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from adpet.errors import ParameterError
from adpet.params import Params, load_params, rename_sections, validate_params
from adpet.paths import PARAMS
from adpet.storage import atomic_write, flatten, read_yaml, set_by_key

PRESETS = Path("presets")

# The preset that adds missing keys and renames old sections, as DVC wants them after an upgrade.
DEFAULTS = "defaults"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("name", nargs="?", help="the preset (default: list them)")


def main(*, name: str | None) -> str:
    """Apply a preset and return the changes, or all names.

    The comments and the other values of ``params.yaml`` stay as they are.
    """
    names = [DEFAULTS, *sorted(path.stem for path in PRESETS.glob("*.yaml"))]
    if name is None:
        return "\n".join(names)
    if name not in names:
        raise ParameterError(f"presets/: required one of {', '.join(names)}; received {name!r}")
    before = load_params().flat()
    yaml = YAML()
    yaml.width = 200
    document = yaml.load(PARAMS)
    rename_sections(document, source=str(PARAMS))
    path = PRESETS / f"{name}.yaml"
    values = _missing(document) if name == DEFAULTS else flatten(read_yaml(path))
    for key, value in values.items():
        # What a search space may name is checked with the values.
        if name != DEFAULTS and key not in before and not key.startswith("tune.space."):
            raise ParameterError(f"{path}: {key}: unknown key; compare with params.yaml")
        set_by_key(document, key, value)
    validate_params(document, source=str(path))
    text = StringIO()
    yaml.dump(document, text)
    with atomic_write(PARAMS) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8")
    changes = [f"{key}: added" for key in values] if name == DEFAULTS else []
    after = load_params().flat()
    changes += [
        f"{key}: {before.get(key)} -> {value}" for key, value in after.items() if before.get(key) != value
    ]
    return "\n".join(changes or ["params.yaml holds these values already"]) + "\nNow run: dvc repro"


def _missing(document: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults of missing keys, by dotted key."""
    missing: dict[str, Any] = {}
    for section, values in Params().model_dump(mode="json").items():
        if isinstance(values, dict) and section in document:
            missing |= {f"{section}.{key}": values[key] for key in values if key not in document[section]}
        elif section not in document:
            missing[section] = values
    return missing
