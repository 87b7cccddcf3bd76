"""Runs of MLflow, found by the lineage of their result: a killed one is continued, nothing is logged twice.

A run carries the tags ``adpet.lineage`` and ``adpet.kind``. Metrics are keyed by name and step: a step that
the store has already is not sent again, so that curves stay single-valued.
"""

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.params import flatten
from adpet.tracking.models import installed_requirements, ready_models, save_to_run
from adpet.tracking.processes import is_alive, owner, user
from adpet.tracking.store import LINEAGE, current, reported

Kind = Literal["train", "tune", "trial", "fold"]

KIND = "adpet.kind"
LEAKY = "adpet.leaky"

# How often a run was continued, and the process that owns it while it is RUNNING.
_RESUMED = "adpet.resumed"
_OWNER = "adpet.owner"

_PARENT = "mlflow.parentRunId"

# MLflow's limits for one request.
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000


class RunHandle:
    """A run that is being written to; its methods may be called from several threads."""

    def __init__(self, run_id: str, *, fresh: bool, model_id: str | None = None) -> None:
        self.run_id = run_id
        self._client = current().client
        self._model_id = model_id
        self._fresh = fresh
        self._steps: dict[str, set[int]] = {}
        self._lock = threading.RLock()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at a step of a curve, or without one as results that stand alone.

        Nested mappings are flattened by dots; None, a metric that is undefined here, is left out. A step
        that the run has already keeps its first value; a result that changed is logged anew.

        Raises
        ------
        TrackingError
            If a value is no number, or MLflow refuses.
        """
        values = {key: _number(key, value) for key, value in flatten(metrics).items() if value is not None}
        with self._lock, reported():
            new = self._changed(values) if step is None else self._missing(values, step)
            now = int(time.time() * 1000)
            batch = [
                Metric(key, value, now, step or 0, model_id=self._model_id) for key, value in new.items()
            ]
            for start in range(0, len(batch), _METRICS_AT_ONCE):
                self._client.log_batch(self.run_id, metrics=batch[start : start + _METRICS_AT_ONCE])
            if step is not None:
                for key in new:
                    self._steps[key].add(step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters, nested ones by dotted key; those that the run has already keep their value."""
        with self._lock, reported():
            known = {} if self._fresh else self._client.get_run(self.run_id).data.params
            new = [Param(key, str(value)) for key, value in flatten(params).items() if key not in known]
            for start in range(0, len(new), _PARAMS_AT_ONCE):
                self._client.log_batch(self.run_id, params=new[start : start + _PARAMS_AT_ONCE])

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; a value replaces the one before it."""
        with reported():
            self._client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all files of a folder, to `folder` among the run's artifacts."""
        with reported():
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), folder)
            else:
                self._client.log_artifact(self.run_id, str(path), folder)

    def log_dataset(self, name: str, digest: str, source: str, *, context: str = "training") -> None:
        """Say which data went in: its name, DVC's md5 of it (at most 36 characters) and where it lies."""
        dataset = Dataset(name, digest, source_type="local", source=json.dumps({"uri": source}))
        tags = [InputTag("mlflow.data.context", context)]
        with reported():
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def log_model(
        self,
        model: Any,
        *,
        signature_example: npt.NDArray[np.uint8],
        metadata: Mapping[str, Any],
        pip_requirements: Sequence[str] | None = None,
        name: str = "model",
    ) -> str:
        """Save a Keras model with its signature and an input example, in Keras' own format, without pickle.

        A model that a killed process logged whole is not logged again; one that it left half-way is removed.

        Parameters
        ----------
        model : keras.Model
        signature_example : (n, height, width[, channels]) uint8 ndarray
            A few inputs, from which the signature follows; the first is kept as the input example.
        metadata : mapping of str to JSON value
            What whoever loads the model must know beside it.
        pip_requirements : sequence of str, optional
            What it needs to be served; Keras, its backend and NumPy as they are here by default.

        Returns
        -------
        model_id : str
            The id of MLflow's logged model.
        """
        requirements = installed_requirements() if pip_requirements is None else pip_requirements
        with self._lock, reported():
            return save_to_run(
                model,
                run_id=self.run_id,
                name=name,
                signature_example=signature_example,
                metadata=metadata,
                pip_requirements=requirements,
            )

    def _missing(self, values: dict[str, float], step: int) -> dict[str, float]:
        """Return the values whose step the run lacks."""
        for key in values:
            if key not in self._steps:
                history = [] if self._fresh else self._client.get_metric_history(self.run_id, key)
                self._steps[key] = {metric.step for metric in history}
        return {key: value for key, value in values.items() if step not in self._steps[key]}

    def _changed(self, values: dict[str, float]) -> dict[str, float]:
        """Return the values that differ from the run's latest."""
        latest = self._client.get_run(self.run_id).data.metrics
        return {key: value for key, value in values.items() if not _same(latest.get(key), value)}


@contextmanager
def open_run(
    *,
    lineage: str,
    kind: Kind,
    name: str,
    parent: RunHandle | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    reopen: bool = False,
) -> Iterator[RunHandle]:
    """Continue the newest run of this lineage and kind that did not finish, or begin a new one.

    It ends as FINISHED, as FAILED on an exception, as KILLED on Ctrl-C. A run is left alone while another
    living process of this machine writes to it.

    Parameters
    ----------
    lineage : str
        The lineage id of the result; that of a trial is its search's followed by its number.
    parent : RunHandle, optional
        The run to nest this one under. Under one parent a lineage has one run for ever: a finished one
        is opened again, so that a search killed after the end of a trial's run does not show it twice.
    params : mapping, optional
        Parameters, nested or flat.
    reopen : bool
        Continue a finished run of this lineage too, instead of beginning another beside it.
    """
    client = current().client
    parent_id = None if parent is None else parent.run_id
    found = _to_continue(lineage, kind, parent_id, reopen=reopen or parent is not None)
    with reported():
        if found is None:
            run_id = _begin(lineage, kind, name, parent_id)
        else:
            run_id = found.info.run_id
            client.update_run(run_id, status="RUNNING", name=name)
            client.set_tag(run_id, _OWNER, owner())
            client.set_tag(run_id, _RESUMED, str(int(found.data.tags.get(_RESUMED, 0)) + 1))
    handle = RunHandle(run_id, fresh=found is None)
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
        _end(run_id, status)


def find_run(lineage: str, kind: Kind) -> str | None:
    """Return the id of the newest finished run of this lineage and kind, or None."""
    finished = [run for run in _search(lineage, kind, None) if run.info.status == "FINISHED"]
    return str(finished[0].info.run_id) if finished else None


def nested(run_id: str | None) -> RunHandle | None:
    """Return a run that others are begun under, or None where the store does not have it any more."""
    return None if run_id is None else RunHandle(run_id, fresh=False)


@contextmanager
def append_to_run(run_id: str | None) -> Iterator[RunHandle]:
    """Add to a run that has ended, which keeps its status.

    Metrics are linked to the model that the run logged last as well, so that its page shows them.

    Raises
    ------
    TrackingError
        If there is no such run; None, as `find_run` gives it, stands for that too.
    """
    if run_id is None or not _exists(run_id):
        raise TrackingError(
            f"{current().uri}: required the finished training run {run_id or 'of this lineage'}, but it is "
            "not there; log it again with: dvc repro --force train"
        )
    with reported():
        models = ready_models(run_id)
    yield RunHandle(run_id, fresh=False, model_id=models[0].model_id if models else None)


def _begin(lineage: str, kind: Kind, name: str, parent: str | None) -> str:
    """Create a run; its tags are there from its first moment, so that a kill cannot orphan it."""
    tags = {
        LINEAGE: lineage,
        KIND: kind,
        _OWNER: owner(),
        "mlflow.user": user(),
        "mlflow.source.name": f"adpet {'tune' if kind == 'trial' else kind}",
        "mlflow.source.type": "LOCAL",
    }
    if parent is not None:
        tags[_PARENT] = parent
    store = current()
    return str(store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id)


def _end(run_id: str, status: str) -> None:
    """End a run; where it did not finish, a store that is gone must not hide why."""
    try:
        with reported():
            current().client.set_terminated(run_id, status)
    except TrackingError:
        if status == "FINISHED":
            raise


def _to_continue(lineage: str, kind: Kind, parent: str | None, *, reopen: bool) -> Any | None:
    """Return the run to go on with, if there is one."""
    for run in _search(lineage, kind, parent):
        if run.info.status == "FINISHED" and not reopen:
            continue
        if run.info.status == "RUNNING" and is_alive(run.data.tags.get(_OWNER, "")):
            continue
        return run
    return None


def _search(lineage: str, kind: Kind, parent: str | None) -> list[Any]:
    """Return the runs of a lineage and kind that were not deleted, the newest first."""
    store = current()
    query = f"tags.`{LINEAGE}` = '{lineage}' and tags.`{KIND}` = '{kind}'"
    if parent is not None:
        query += f" and tags.`{_PARENT}` = '{parent}'"
    with reported():
        return list(
            store.client.search_runs([store.experiment_id], query, order_by=["attributes.start_time DESC"])
        )


def _exists(run_id: str) -> bool:
    with reported():
        try:
            return bool(current().client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrackingError(f"metric {key}: required a number; received {value!r}") from error


def _same(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))
