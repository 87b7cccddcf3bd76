"""Runs in the project's own store, by lineage and kind.

A run that was killed, or is made again, is continued: a step that it has keeps its first value, so that
curves stay single-valued. Names that MLflow would refuse are changed (`safe_name`).
"""

import hashlib
import json
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

from adpet.errors import TrackingError
from adpet.storage import flatten
from adpet.tracking.models import log_keras_model, ready_models
from adpet.tracking.store import LINEAGE, Store, local, reported, user
from adpet.tracking.ui_notes import run_name

Kind = Literal["train", "tune", "trial", "fold", "validate"]

KIND: Final = "adpet.kind"
PARENT: Final = "mlflow.parentRunId"

# MLflow's limits: characters of a name, and of a dataset's name and digest.
NAME_LIMIT: Final = 250
DATASET_NAME_LIMIT: Final = 500
DATASET_DIGEST_LIMIT: Final = 36

# Functions that are called with a run's id after each change, and whether its stage is through with it.
observers: list[Callable[[str, bool], None]] = []

_HASH_DIGITS = 8


class RunHandle:
    """A run to write to."""

    def __init__(self, store: Store, run_id: str, *, model_id: str | None = None) -> None:
        self.run_id = run_id
        self._store, self._model_id = store, model_id
        self._steps: dict[str, set[int]] = {}

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers at a step, or results without a step.

        Nested mappings are flattened by dots; None, an undefined metric, is left out. A step that the run
        has already keeps its first value; a result is logged again if it changed.
        """
        values = {
            safe_name(key): _number(key, value)
            for key, value in flatten(metrics).items()
            if value is not None
        }
        with self._writing():
            if step is None:
                latest = self._store.client.get_run(self.run_id).data.metrics
                new = {key: value for key, value in values.items() if not same(latest.get(key), value)}
            else:
                new = {key: value for key, value in values.items() if step not in self._known(key)}
            now = int(time.time() * 1000)
            logged = [
                Metric(key, value, now, step or 0, model_id=self._model_id) for key, value in new.items()
            ]
            self._store.client.log_batch(self.run_id, metrics=logged)
            if step is not None:
                for key in new:
                    self._steps[key].add(step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters by dotted key; known ones keep their value."""
        values = {safe_name(key): str(value) for key, value in flatten(params).items()}
        with self._writing():
            known = self._store.client.get_run(self.run_id).data.params
            new = [Param(key, value) for key, value in values.items() if key not in known]
            self._store.client.log_batch(self.run_id, params=new)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; a value replaces the one before it."""
        with self._writing():
            new = [RunTag(safe_name(key), str(value)) for key, value in tags.items()]
            self._store.client.log_batch(self.run_id, tags=new)

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file or a folder's files to the artifacts."""
        with self._writing():
            log = self._store.client.log_artifacts if path.is_dir() else self._store.client.log_artifact
            log(self.run_id, str(path), folder)

    def log_table(self, name: str, table: pd.DataFrame) -> None:
        """Log a table that MLflow compares, replacing one so named."""
        client, file = self._store.client, f"{name}.json"
        with self._writing():
            # MLflow appends to a table that is there already: an empty one replaces it first.
            client.log_text(self.run_id, table.head(0).to_json(orient="split", index=False), file)
            # As objects: pandas warns of how MLflow looks for pictures among texts.
            client.log_table(self.run_id, table.astype(object), file)

    def log_dataset(self, name: str, digest: str, source: str, *, counts: Mapping[str, int]) -> None:
        """Log the data: name, DVC's md5, path, numbers of scans."""
        dataset = Dataset(
            shortened(name, DATASET_NAME_LIMIT),
            shortened(digest, DATASET_DIGEST_LIMIT),
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(counts)),
        )
        used = DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
        with self._writing():
            self._store.client.log_inputs(self.run_id, [used])

    def log_model(
        self, model: Any, *, signature_example: npt.NDArray[np.uint8], metadata: Mapping[str, Any]
    ) -> None:
        """Log a Keras model once, without pickle.

        The signature follows from `signature_example`, (n, height, width[, channels]) uint8, whose first is
        kept as the input example; `metadata` is the preprocessing that the model needs, as JSON values.
        """
        with self._writing():
            log_keras_model(
                self._store, self.run_id, model, signature_example=signature_example, metadata=metadata
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with reported(f"{self._store.shown}: "):
            yield
        _changed(self.run_id, over=False)

    def _known(self, key: str) -> set[int]:
        """Return the steps that a curve has."""
        if key not in self._steps:
            history = self._store.client.get_metric_history(self.run_id, key)
            self._steps[key] = {metric.step for metric in history}
        return self._steps[key]


@contextmanager
def open_run(
    *,
    lineage: str,
    kind: Kind,
    name: str,
    parent: str | None = None,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Iterator[RunHandle]:
    """Continue the newest run of a lineage, or begin one.

    It ends as FINISHED, as FAILED on an exception, as KILLED on Ctrl-C. The lineage id of a trial is its
    search's followed by its number; `parent` is the id of the run to nest this one under.
    """
    store = local()
    with reported(f"{store.shown}: "):
        earlier = search(store, lineage, kind, parent)
        run_id = str(earlier[0].info.run_id) if earlier else _create(store, lineage, kind, name, parent)
        store.client.update_run(run_id, status="RUNNING", name=name)
    handle = RunHandle(store, run_id)
    status = "KILLED"
    try:
        handle.set_tags(tags or {})
        handle.log_params(params or {})
        with _system_metrics(run_id, store):
            yield handle
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        with reported(f"{store.shown}: "):
            store.client.set_terminated(run_id, status)
        _changed(run_id, over=kind != "trial")


@contextmanager
def _system_metrics(run_id: str, store: Store) -> Iterator[None]:
    """Log the machine's load, where MLflow's variable asks for it."""
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=store.uri)
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


@contextmanager
def append_to_run(lineage: str) -> Iterator[RunHandle]:
    """Add results to a training, whose status stays.

    Results are linked to the model that the run logged last, so that its page shows them. Where the run is
    missing, since it was made in another clone, one is created for the results.
    """
    store = local()
    with reported(f"{store.shown}: "):
        known = search(store, lineage, "train")
        finished = [run for run in known if run.info.status == "FINISHED"]
        if known:
            run_id = str((finished or known)[0].info.run_id)
        else:
            run_id = _create(store, lineage, "train", run_name("train", lineage), None)
            store.client.set_terminated(run_id, "FINISHED")
        models = ready_models(run_id, store)
    try:
        yield RunHandle(store, run_id, model_id=models[0].model_id if models else None)
    finally:
        _changed(run_id, over=True)


def find_run(lineage: str, kind: Kind, store: Store | None = None) -> str | None:
    """Return the id of the newest finished run, if any."""
    store = store or local()
    with reported(f"{store.shown}: "):
        finished = [run for run in search(store, lineage, kind) if run.info.status == "FINISHED"]
    return str(finished[0].info.run_id) if finished else None


def search(store: Store, lineage: str, kind: str, parent: str | None = None) -> list[Any]:
    """Return runs of a lineage and kind, the newest first."""
    query = f"tags.`{LINEAGE}` = '{lineage}' and tags.`{KIND}` = '{kind}'"
    if parent is not None:
        query += f" and tags.`{PARENT}` = '{parent}'"
    return list(
        store.client.search_runs([store.experiment_id], query, order_by=["attributes.start_time DESC"])
    )


def same(known: float | None, value: float) -> bool:
    """Return True if a store has this value, infinity clipped."""
    if known is None:
        return False
    first, second = np.nan_to_num([known, value], nan=np.nan)
    return bool(np.array_equal(first, second, equal_nan=True))


def safe_name(name: str) -> str:
    """Return a parameter, metric or tag name that MLflow takes.

    One that it would refuse is changed, and ends in digits of its SHA-256, so that no two become the same.

    >>> safe_name("train.learning_rate")
    'train.learning_rate'
    >>> safe_name("diagnosis_map.CN (control)")
    'diagnosis_map.CN _control_-3b1f8c5e'
    """
    is_own_path = posixpath.normpath(name) == name != "." and not name.startswith(("..", "/"))
    if is_own_path and re.fullmatch(r"[\w.\- :/]+", name):
        return shortened(name, NAME_LIMIT)
    return _marked(re.sub(r"^[./]+|[^\w.\- :]", "_", name), name, NAME_LIMIT)


def shortened(text: str, limit: int) -> str:
    """Shorten a text, to end in digits of its SHA-256."""
    return text if len(text) <= limit else _marked(text, text, limit)


def _marked(text: str, original: str, limit: int) -> str:
    digits = hashlib.sha256(original.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{text[: limit - _HASH_DIGITS - 1]}-{digits}"


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrackingError(f"metric {key}: required a number; received {value!r}") from error


def _create(store: Store, lineage: str, kind: str, name: str, parent: str | None) -> str:
    """Create a run with tags that it is found by."""
    tags = {
        LINEAGE: lineage,
        KIND: kind,
        "mlflow.user": user(),
        "mlflow.source.name": f"adpet {'tune' if kind == 'trial' else kind}",
        "mlflow.source.type": "LOCAL",
    }
    if parent is not None:
        tags[PARENT] = parent
    return str(store.client.create_run(store.experiment_id, tags=tags, run_name=name).info.run_id)


def _changed(run_id: str, *, over: bool) -> None:
    for observer in observers:
        observer(run_id, over)
