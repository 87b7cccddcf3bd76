"""Runs of MLflow, found by the lineage of their result: a killed one is continued, nothing is logged twice.

What a run is told is written to the disk first (`journal`) and sent beside the work (`sender`): a store that
is slow, restarts or is gone neither stops nor slows the work. A run carries the tags ``adpet.lineage`` and
``adpet.kind``. Metrics are keyed by name and step: a step that the store has already is not sent again, so
that curves stay single-valued. A name that MLflow would refuse is changed (`naming`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adpet.errors import TrackingError
from adpet.params import flatten
from adpet.tracking import lookup, sender
from adpet.tracking.journal import ADD, OPEN, RunKey, Session
from adpet.tracking.models import MODEL_FILE, installed_requirements, model_digest, write_model
from adpet.tracking.naming import DATASET_DIGEST_LIMIT, DATASET_NAME_LIMIT, safe_name, shortened
from adpet.tracking.outbox import Problem
from adpet.tracking.store import CHECK, UnreachableError, current, environment, reached, target
from adpet.tracking.writers import owner, user

Kind = Literal["train", "tune", "trial", "fold"]


class RunHandle:
    """A run that is being written to; its methods may be called from several threads."""

    def __init__(self, session: Session) -> None:
        self.key = session.key
        self._session = session

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at a step of a curve, or without one as results that stand alone.

        Nested mappings are flattened by dots; None, a metric that is undefined here, is left out. A step
        that the run has already keeps its first value; a result that changed is logged anew.

        Raises
        ------
        TrackingError
            If a value is no number.
        """
        defined = {key: value for key, value in flatten(metrics).items() if value is not None}
        values = {safe_name(key): _number(key, value) for key, value in defined.items()}
        self._tell("metrics", values=values, step=step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones by dotted key; those that the run has already keep their value."""
        self._tell("params", values={safe_name(key): str(value) for key, value in flatten(params).items()})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; a value replaces the one before it."""
        self._tell("tags", values={safe_name(key): str(value) for key, value in tags.items()})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all files of a folder, to `folder` among the run's artifacts."""
        if path.is_dir():
            for inner in sorted(path.iterdir()):
                inside = inner.name if inner.is_dir() else ""
                self.log_artifact(inner, "/".join(filter(None, (folder, inside))) or None)
            return
        self._tell("artifact", sha256=self._session.keep(path), name=path.name, folder=folder)

    def log_dataset(
        self,
        name: str,
        digest: str,
        source: str,
        *,
        context: str = "training",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """Say which data went in: name, DVC's md5, where it lies, how much it is."""
        self._tell(
            "dataset",
            name=shortened(name, DATASET_NAME_LIMIT),
            digest=shortened(digest, DATASET_DIGEST_LIMIT),
            source=source,
            context=context,
            profile=json.dumps(dict(counts or {})),
        )

    def log_model(
        self,
        model: Any,
        *,
        signature_example: npt.NDArray[np.uint8],
        metadata: Mapping[str, Any],
        pip_requirements: Sequence[str] | None = None,
        name: str = "model",
    ) -> None:
        """Save a Keras model with its signature and an input example, in Keras' own format, without pickle.

        A model that a killed process logged whole is not logged again, and one left half-way is completed.

        Parameters
        ----------
        model : keras.Model
        signature_example : (n, height, width[, channels]) uint8 ndarray
            A few inputs, from which the signature follows; the first is kept as the input example.
        metadata : mapping of str to JSON value
            What whoever loads the model must know beside it.
        pip_requirements : sequence of str, optional
            What it needs to be served; Keras, its backend and NumPy as they are here by default.
        """
        digest = model_digest(model)
        folder = f"{name}-{digest[:16]}"
        if self._session.kept(folder).exists():  # the same model once more
            return
        with self._session.folder_kept(folder) as aside:
            write_model(
                model,
                aside,
                signature_example=signature_example,
                metadata=metadata,
                pip_requirements=installed_requirements() if pip_requirements is None else pip_requirements,
            )
        files = self._session.digests(folder)
        del files[MODEL_FILE]  # which is to name the logged model
        self._tell("model", folder=folder, digest=digest, name=name, files=files)

    def _tell(self, operation: str, **facts: Any) -> None:
        self._session.append(operation, **facts)
        sender.notify()


@contextmanager
def open_run(
    *,
    lineage: str,
    kind: Kind,
    name: str,
    parent: RunHandle | RunKey | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    reopen: bool = False,
) -> Iterator[RunHandle]:
    """Continue the newest run of this lineage and kind that did not finish, or begin a new one.

    It ends as FINISHED, as FAILED on an exception, as KILLED on Ctrl-C. A run is left alone while another
    living process writes to it.

    Parameters
    ----------
    lineage : str
        The lineage id of the result; that of a trial is its search's followed by its number.
    parent : RunHandle or RunKey, optional
        The run to nest this one under, where there is one. Under one parent a lineage has one run for
        ever: a finished one is opened again, so that a search killed after the end of a trial's run does
        not show it twice.
    params : mapping, optional
        Parameters, nested or flat.
    reopen : bool
        Continue a finished run of this lineage too, instead of beginning another beside it.
    """
    above = parent.key if isinstance(parent, RunHandle) else parent
    session = sender.begin(
        OPEN,
        RunKey(kind, lineage),
        name=name,
        parent=None if above is None else {"kind": above.kind, "lineage": above.lineage},
        reopen=reopen,
        owner=owner(),
        user=user(),
    )
    handle = RunHandle(session)
    status = "KILLED"
    try:
        if tags:
            handle.set_tags(tags)
        if params:
            handle.log_params(params)
        yield handle
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        sender.leave(session, status)


def find_run(lineage: str, kind: Kind) -> str | None:
    """Return the id of the newest finished run of this lineage and kind in the store, or None."""
    return lookup.finished(current(), RunKey(kind, lineage))


def delivered_run(lineage: str, kind: Kind) -> str | None:
    """Return what `find_run` does, once everything that waits for the run is in the store.

    What the store refuses for good is said on stderr.

    Raises
    ------
    TrackingError
        Where something waits still.
    """
    key = RunKey(kind, lineage)
    done = sender.deliver(only=target().name)
    sender.say_refusals()
    left = sender.waiting(only=target().name).get(key, 0)
    if left:
        problem = done.problem_of(key) or Problem("another process is sending it", passes=True)
        then = "when MLflow is there again" if problem.passes else "when that is mended"
        raise TrackingError(
            f"required all of the {kind} run in MLflow, but {left} entries wait ({problem.text}); {then}, "
            "run: dvc repro"
        )
    return find_run(lineage, kind)


@contextmanager
def append_to_run(lineage: str, kind: Kind = "train") -> Iterator[RunHandle]:
    """Add to the newest run of this lineage and kind, which has finished and keeps its status.

    Metrics are linked to the model that the run logged last as well, so that its page shows them.

    Raises
    ------
    TrackingError
        If the store is there, but no such run is, nor one that waits to be sent.
    """
    key = RunKey(kind, lineage)
    _require_run(key)
    session = sender.begin(ADD, key)
    try:
        yield RunHandle(session)
    finally:
        sender.leave(session, None)


def _require_run(key: RunKey) -> None:
    store = reached()
    if store is None or sender.is_to_come(key):
        return
    try:
        with environment(CHECK):
            found = lookup.finished(store, key)
    except UnreachableError:  # since it was reached: what is added waits
        return
    if found is None:
        raise TrackingError(lookup.not_there(store, key))


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrackingError(f"metric {key}: required a number; received {value!r}") from error
