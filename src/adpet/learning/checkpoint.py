"""Save and restore networks and the state of a training.

The same network gives the same bytes: a saved one holds no time, no memory address and no pickle.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning import keras
from adpet.learning.data import SliceRef
from adpet.storage import atomic_write, fingerprint

# Of a checkpoint's content; those of another format are ignored.
FORMAT = 2

# The earliest time that a ZIP archive can hold.
NO_TIME = (1980, 1, 1, 0, 0, 0)

# The lists of variables in a checkpoint.
GROUPS = ("model", "optimizer", "best")

Arrays = list[npt.NDArray[Any]]
Row = dict[str, float]


@dataclass
class State:
    """State of a training after an epoch, counted from 0.

    All variables in Keras' order, the network's after the best epoch, and the history's rows.
    """

    model: Arrays
    optimizer: Arrays
    best: Arrays
    rows: list[Row]
    best_epoch: int


def save_model(model: keras.Model, path: Path) -> None:
    """Write a network to `path`, which ends in ``.keras``."""
    with atomic_write(path) as aside:
        stamped = aside.with_suffix(".stamped.keras")
        try:
            model.save(stamped)
            _copy_reproducibly(stamped, aside)
        finally:
            stamped.unlink(missing_ok=True)


def load_models(paths: Iterable[Path]) -> list[keras.Model]:
    """Read an ensemble's networks, named alike in every process.

    Keras numbers the tensors that a process makes, and writes the numbers into a model's file.
    """
    keras.utils.clear_session()
    return [load_model(path) for path in paths]


def load_model(path: Path) -> keras.Model:
    """Read a network in Keras' safe mode."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: required a saved Keras model; received: {reason}; run: dvc repro"
        ) from error


def weights_difference(first: Any, second: Any) -> float | None:
    """Return the largest difference; None if bitwise equal."""
    ours, theirs = first.get_weights(), second.get_weights()
    if [weight.shape for weight in ours] != [weight.shape for weight in theirs]:
        return float("inf")
    pairs = list(zip(ours, theirs, strict=True))
    if all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs):
        return None
    return float(np.max([np.abs(a.astype(np.float64) - b).max(initial=0.0) for a, b in pairs]))


def write_checkpoint(path: Path, state: State, mark: str) -> None:
    """Write a checkpoint atomically, under the fingerprint `mark`."""
    facts: dict[str, Any] = {"mark": mark, "rows": state.rows, "best_epoch": state.best_epoch}
    arrays: dict[str, Any] = {}
    for name in GROUPS:
        group = getattr(state, name)
        facts[name] = len(group)
        arrays |= {f"{name}/{i}": array for i, array in enumerate(group)}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def read_checkpoint(path: Path, mark: str) -> State | None:
    """Read this training's checkpoint; None if missing, broken or another's."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            if facts["mark"] != mark:
                return None
            groups = {name: [stored[f"{name}/{i}"] for i in range(facts[name])] for name in GROUPS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return State(**groups, rows=facts["rows"], best_epoch=facts["best_epoch"])


def training_fingerprint(
    model: keras.Model, refs: Mapping[str, Sequence[SliceRef]], settings: Mapping[str, Any]
) -> str:
    """Return a fingerprint of all that decides a training's result.

    Packed files are known by path, size and time of change; the network by layers and initial weights.
    """
    facts: dict[str, Any] = {
        "format": FORMAT,
        "keras": keras.version(),
        "backend": keras.backend.backend(),
        "network": hashlib.sha256(model.to_json().encode()).hexdigest(),
        "weights": _digest(np.ascontiguousarray(value).tobytes() for value in values_of(model.variables)),
        "settings": dict(settings),
    }
    for name, slices in refs.items():
        facts[name] = _digest(json.dumps([str(r.path), r.index, r.label, r.subject]).encode() for r in slices)
        facts[f"{name} files"] = _digest(_file_facts(path) for path in sorted({r.path for r in slices}))
    return fingerprint(facts)


def values_of(variables: Iterable[Any]) -> Arrays:
    """Return copies of the values of Keras variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign_values(variables: Sequence[Any], values: Arrays) -> None:
    """Set Keras variables to what `values_of` returned."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _copy_reproducibly(source: Path, target: Path) -> None:
    """Copy an archive without its time and memory addresses."""
    with zipfile.ZipFile(source) as traced, zipfile.ZipFile(target, "w") as plain:
        for name in sorted(traced.namelist()):
            content = traced.read(name)
            if name == "metadata.json":
                content = json.dumps(json.loads(content) | {"date_saved": None}).encode()
            elif name == "config.json":
                content = json.dumps(_renumbered(json.loads(content), {})).encode()
            plain.writestr(zipfile.ZipInfo(name, NO_TIME), content)


def _renumbered(config: Any, numbers: dict[int, int]) -> Any:
    """Number shared objects from 1, where Keras has addresses."""
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


def _file_facts(path: Path) -> bytes:
    if not path.exists():
        return b""  # its reader reports it
    facts = path.stat()
    return json.dumps([str(path), facts.st_size, facts.st_mtime_ns]).encode()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
