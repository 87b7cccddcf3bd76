"""Write a network as a ``.keras`` file whose bytes follow from the network alone, and read it back.

Keras writes the time of saving and addresses in memory into the archive; here they are left out,
so that the same training gives the same file. There is no pickle in it, and it is read in Keras' safe mode.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from adpet.artifacts import written_aside
from adpet.errors import InputError

# The earliest time that a ZIP archive can hold.
NO_TIME = (1980, 1, 1, 0, 0, 0)


def save_model(model: keras.Model, path: Path) -> None:
    """Write `model` to `path`, which ends in ``.keras``."""
    with written_aside(path) as aside:
        stamped = aside.with_suffix(".stamped.keras")
        try:
            model.save(stamped)
            _without_traces(stamped, aside)
        finally:
            stamped.unlink(missing_ok=True)


def load_model(path: Path) -> keras.Model:
    """Read a network that `save_model` wrote.

    Raises
    ------
    InputError
        Where there is no such file, or it is not one.
    """
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: required a saved Keras model; received: {reason}; run: dvc repro"
        ) from error


def _without_traces(source: Path, target: Path) -> None:
    """Copy an archive without the time and the memory addresses of the process that wrote it."""
    with zipfile.ZipFile(source) as traced, zipfile.ZipFile(target, "w") as plain:
        for name in sorted(traced.namelist()):
            content = traced.read(name)
            if name == "metadata.json":
                content = _json(json.loads(content) | {"date_saved": None})
            elif name == "config.json":
                content = _json(_renumbered(json.loads(content), {}))
            plain.writestr(zipfile.ZipInfo(name, NO_TIME), content)


def _renumbered(config: Any, numbers: dict[int, int]) -> Any:
    """Return `config` with its shared objects counted from 1, where Keras has their addresses."""
    if isinstance(config, list):
        return [_renumbered(item, numbers) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        key: numbers.setdefault(value, len(numbers) + 1)
        if key == "shared_object_id"
        else _renumbered(value, numbers)
        for key, value in config.items()
    }


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()
