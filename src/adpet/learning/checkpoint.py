"""Save and restore networks, training state and pretrained weights."""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.learning.data import SliceRef
from adpet.storage import atomic_write, fingerprint


def weights_difference(first: Any, second: Any) -> float | None:
    """Return the largest difference between the weights of two Keras models; None for the same bits.

    Networks whose weights have other shapes are infinitely far apart. What is compared with NaN gives NaN.
    """
    ours, theirs = first.get_weights(), second.get_weights()
    if [one.shape for one in ours] != [one.shape for one in theirs]:
        return float("inf")
    pairs = list(zip(ours, theirs, strict=True))
    if all(one.dtype == two.dtype and one.tobytes() == two.tobytes() for one, two in pairs):
        return None
    apart = [np.abs(one.astype(np.float64) - two.astype(np.float64)).max(initial=0.0) for one, two in pairs]
    return float(np.max(apart))


# The earliest time that a ZIP archive can hold.
NO_TIME = (1980, 1, 1, 0, 0, 0)


def save_model(model: keras.Model, path: Path) -> None:
    """Write `model` to `path`, which ends in ``.keras``."""
    with atomic_write(path) as aside:
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


# Raised when the meaning of a checkpoint's content changes, so that older ones are ignored.
FORMAT = 1

Arrays = list[npt.NDArray[Any]]
Row = dict[str, float]


@dataclass
class State:
    """What an epoch leaves to the next.

    Attributes
    ----------
    model, optimizer : list of ndarray
        All variables, in Keras' order.
    best : list of ndarray
        The network's variables after the best epoch.
    rows : list of dict
        The history, one row an epoch.
    best_epoch : int
        Counted from 0.
    """

    model: Arrays
    optimizer: Arrays
    best: Arrays
    rows: list[Row]
    best_epoch: int


def write_checkpoint(path: Path, state: State, mark: str) -> None:
    """Write `state` under the fingerprint `mark`; a kill leaves the earlier checkpoint whole."""
    groups = {"model": state.model, "optimizer": state.optimizer, "best": state.best}
    arrays: dict[str, Any] = {
        f"{name}/{i}": array for name, group in groups.items() for i, array in enumerate(group)
    }
    facts = {"mark": mark, "rows": state.rows, "best_epoch": state.best_epoch}
    facts |= {name: len(group) for name, group in groups.items()}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, facts=np.array(json.dumps(facts)), **arrays)


def read_checkpoint(path: Path, mark: str) -> State | None:
    """Return the state at `path`, or None where there is none, it is broken or another training's."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            if facts["mark"] != mark:
                return None
            groups = {
                name: [stored[f"{name}/{i}"] for i in range(facts[name])]
                for name in ("model", "optimizer", "best")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return State(**groups, rows=facts["rows"], best_epoch=facts["best_epoch"])


def training_fingerprint(
    model: keras.Model, refs: Mapping[str, Sequence[SliceRef]], settings: Mapping[str, Any]
) -> str:
    """Return a fingerprint of all that decides a training's result.

    `settings` are JSON values. Packed files are known by path, size and time of change; the
    network by its layers and initial weights.
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


def _file_facts(path: Path) -> bytes:
    # A missing file has its say when it is read.
    facts = path.stat() if path.exists() else None
    return json.dumps([str(path), facts and facts.st_size, facts and facts.st_mtime_ns]).encode()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
