"""Write a preset's values into ``params.yaml``, and say what changed."""

from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from adpet.errors import ParameterError
from adpet.params import flatten, load_params, read_yaml, set_by_key, validate_params
from adpet.paths import PARAMS
from adpet.storage import atomic_write

PRESETS = Path("presets")


def run(name: str | None) -> str:
    """Apply the preset `name` and return what changed, or return the names there are.

    The comments and the other values of ``params.yaml`` stay as they are.

    Raises
    ------
    ParameterError
        Where there is no such preset, or its values are refused.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if name is None:
        return "\n".join(names)
    if name not in names:
        raise ParameterError(f"presets/: required one of {', '.join(names)}; received {name!r}")
    before = load_params().flat()
    path = PRESETS / f"{name}.yaml"
    values = flatten(read_yaml(path))
    yaml = YAML()
    yaml.width = 200
    document = yaml.load(PARAMS)
    for key, value in values.items():
        if key not in before:
            raise ParameterError(f"{path}: {key}: unknown key; compare with params.yaml")
        set_by_key(document, key, value)
    validate_params(document, source=str(path))
    text = StringIO()
    yaml.dump(document, text)
    with atomic_write(PARAMS) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8")
    return _changes(before, load_params().flat()) + "\nNow run: dvc repro"


def _changes(before: dict[str, object], after: dict[str, object]) -> str:
    lines = [f"{key}: {before[key]} -> {after[key]}" for key in after if before[key] != after[key]]
    return "\n".join(lines) or "params.yaml holds these values already"
