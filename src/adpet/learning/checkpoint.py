"""The state of an unfinished training, in one ``.npz`` without pickle.

It holds all that the next epoch depends on: the network's variables with Dropout's random state,
the optimizer's variables, the best weights so far and the history. It goes with a fingerprint of
what the training is made from, and another training ignores it.
"""

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

from adpet.artifacts import fingerprint, written_aside
from adpet.learning.dataset import SliceRef

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
    with written_aside(path) as aside, aside.open("wb") as file:
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
