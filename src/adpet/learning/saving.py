"""Write a network as a ``.keras`` file whose bytes follow from the network alone, and read it back.

Keras stamps the time of saving into the archive; here it is left out, so that the same training
gives the same file. There is no pickle in it, and it is read in Keras' safe mode.
"""

import json
import zipfile
from pathlib import Path

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
            _without_times(stamped, aside)
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


def _without_times(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as stamped, zipfile.ZipFile(target, "w") as plain:
        for name in sorted(stamped.namelist()):
            content = stamped.read(name)
            if name == "metadata.json":
                metadata = json.loads(content)
                metadata["date_saved"] = None
                content = json.dumps(metadata, sort_keys=True).encode()
            plain.writestr(zipfile.ZipInfo(name, NO_TIME), content)
