"""Mirror of the project's own runs on the server that MLFLOW_TRACKING_URI names.

A run is known there by lineage, kind and parent. What the server has is not sent again, so that a pass may be
repeated at any time: curves by step, results that changed, files of another size or newer than the last pass.
A thread sends beside the work; a server that is away costs the work nothing.
"""

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow.entities import LoggedModelStatus, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from adpet.errors import TrackingError
from adpet.processes import locked
from adpet.tracking import runs, store
from adpet.tracking.models import DIGEST, SERVED, logged_models, send_model
from adpet.tracking.runs import KIND, PARENT, Kind, find_run, log_batches, same, search
from adpet.tracking.store import LEAKY, LINEAGE, SQLITE, Store, current, local, names_server, reported, user
from adpet.tracking.ui_notes import NOTE

# Seconds between two passes of one run, after a failure, and that the end of a stage waits for the server.
PAUSE_S: Final = 1.0
PAUSE_AFTER_FAILURE_S: Final = 30.0
WAIT_S: Final = 10.0

# The tag of a local run that the server lacks something of, and that of the server's with the last pass (ms).
UNSENT: Final = "adpet.unsent"
SENT: Final = "adpet.sent"

# Tags that each store has for itself, or that people write on the server.
_IS_UNSENT = f"tags.`{UNSENT}` = 'true'"
_ONE_AT_A_TIME = threading.Lock()
_OWN_TAGS = {UNSENT, SENT, PARENT, NOTE, "mlflow.user", "mlflow.runName"}


def start_tracking(project_root: Path, *, experiment: str, required: bool = False) -> None:
    """Connect to the local store, and mirror what this process logs where a server is named.

    Parameters
    ----------
    required : bool
        Whether the server must answer now, as for the registry.
    """
    store.connect(project_root, experiment, required=required)
    runs.observers[:] = [_Sender().notify] if names_server() else []


def shared_run(lineage: str, kind: Kind = "train") -> str | None:
    """Return the id of a finished run in the store of the registry, after it was sent there.

    Raises
    ------
    TrackingError
        If the server does not answer, or refuses something.
    """
    run_id = find_run(lineage, kind)
    if run_id is None or not current().is_server:
        return find_run(lineage, kind, current())
    return Mirror(local(), current()).send(run_id)


def sync_all() -> tuple[int, list[str]]:
    """Send all runs of the local store; return how many, and the problems of the others.

    Raises
    ------
    UnreachableError
        If the server does not answer.
    """
    mirror = Mirror(local(), current())
    sent, problems = 0, []
    for run in _all_runs(local()):
        try:
            mirror.send(run.info.run_id)
        except store.UnreachableError:
            raise
        except TrackingError as error:
            problems.append(f"run {run.info.run_name}: {error}")
        else:
            sent += 1
    return sent, problems


class Mirror:
    """Brings runs of one store to another; remembers what it has sent."""

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self._ids: dict[str, str] = {}
        self._steps: dict[tuple[str, str], set[int]] = {}

    def send(self, run_id: str) -> str:
        """Send what the server lacks of a run; return the run's id there.

        Raises
        ------
        TrackingError
            If the server does not answer, or refuses something; whatever it lacks is sent by the next call.
        """
        with _ONE_AT_A_TIME, reported(f"{self._target.shown}: "):
            return self._send(run_id)

    def _send(self, run_id: str) -> str:
        started = int(time.time() * 1000)
        run = self._source.client.get_run(run_id)
        there = self._counterpart(run)
        target_id = str(there.info.run_id)
        is_over = run.info.status != "RUNNING"
        self._send_params_and_tags(run, there)
        linked = self._send_models(run_id, target_id) if is_over else {}
        self._send_metrics(run, there, linked)
        if is_over:
            self._send_datasets(run, there)
            self._send_artifacts(run, there)
            if there.info.status != run.info.status:
                self._target.client.set_terminated(target_id, run.info.status, run.info.end_time)
            # Last, so that a pass that was cut short is repeated.
            log_batches(self._target, target_id, tags=[RunTag(SENT, str(started))])
            if UNSENT in run.data.tags:
                self._source.client.delete_tag(run_id, UNSENT)
        elif there.info.status != "RUNNING":
            self._target.client.update_run(target_id, status="RUNNING")
        return target_id

    def _counterpart(self, run: Any) -> Any:
        """Return the run on the server; create it where it is missing or was deleted."""
        known = self._ids.get(run.info.run_id)
        if known is not None:
            try:
                there = self._target.client.get_run(known)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
            else:
                if there.info.lifecycle_stage == "active":
                    return there
            self._ids.clear()
            self._steps.clear()
        return self._target.client.get_run(self._found_or_created(run))

    def _found_or_created(self, run: Any) -> str:
        if run.info.run_id not in self._ids:
            tags = {key: run.data.tags[key] for key in (LINEAGE, KIND)}
            if PARENT in run.data.tags:
                above = self._source.client.get_run(run.data.tags[PARENT])
                tags[PARENT] = self._found_or_created(above)
            # One process at a time, so that parallel folds do not create their parent twice.
            with locked(Path(self._source.uri.removeprefix(SQLITE)).parent):
                found = search(self._target, tags[LINEAGE], tags[KIND], tags.get(PARENT))
                if not found:
                    created = self._target.client.create_run(
                        self._target.experiment_id,
                        start_time=run.info.start_time,
                        tags={**tags, "mlflow.user": user()},
                        run_name=run.info.run_name,
                    )
                    found = [created]
            self._ids[run.info.run_id] = str(found[0].info.run_id)
        return self._ids[run.info.run_id]

    def _send_params_and_tags(self, run: Any, there: Any) -> None:
        params = [Param(key, value) for key, value in run.data.params.items() if key not in there.data.params]
        known = there.data.tags
        # A run that somebody marked as leaky on the server stays so.
        own = _OWN_TAGS | ({LEAKY} if known.get(LEAKY) == "true" else set())
        tags = [
            RunTag(key, value)
            for key, value in run.data.tags.items()
            if key not in own and known.get(key) != value
        ]
        log_batches(self._target, there.info.run_id, params=params, tags=tags)

    def _send_metrics(self, run: Any, there: Any, linked: dict[str, str]) -> None:
        """Send the steps of curves that the server lacks, and results that differ from its latest."""
        target_id = str(there.info.run_id)
        lacking: list[Metric] = []
        for key in run.data.metrics:
            history = self._source.client.get_metric_history(run.info.run_id, key)
            if any(metric.step for metric in history):
                if (target_id, key) not in self._steps:
                    remote = self._target.client.get_metric_history(target_id, key)
                    self._steps[target_id, key] = {metric.step for metric in remote}
                known = self._steps[target_id, key]
                new = [metric for metric in history if metric.step not in known]
            else:
                latest = max(history, key=lambda metric: metric.timestamp)
                new = [] if same(there.data.metrics.get(key), latest.value) else [latest]
            lacking += [
                Metric(key, metric.value, metric.timestamp, metric.step, model_id=linked.get(key))
                for metric in new
            ]
        log_batches(self._target, target_id, metrics=lacking)
        for metric in lacking:
            self._steps.get((target_id, metric.key), set()).add(metric.step)

    def _send_models(self, run_id: str, target_id: str) -> dict[str, str]:
        """Send the logged models; return, by name, on which of them the metrics of a model stand there."""
        models = [
            each for each in logged_models(run_id, self._source) if each.status == LoggedModelStatus.READY
        ]
        remote = logged_models(target_id, self._target) if models else []
        known = {_digest(each): each.model_id for each in remote if each.status == LoggedModelStatus.READY}
        linked: dict[str, str] = {}
        for model in models:
            tag, digest = _digest(model)
            model_id = known.get((tag, digest))
            if model_id is None:
                with tempfile.TemporaryDirectory(prefix="adpet-model-") as scratch:
                    folder = Path(shutil.copytree(_path(model.artifact_location), Path(scratch, "model")))
                    model_id = send_model(
                        self._target, target_id, folder, digest=digest, name=model.name, tag=tag
                    )
            linked |= {metric.key: model_id for metric in model.metrics or []}
        return linked

    def _send_datasets(self, run: Any, there: Any) -> None:
        known = {(each.dataset.name, each.dataset.digest) for each in there.inputs.dataset_inputs}
        new = [
            each
            for each in run.inputs.dataset_inputs
            if (each.dataset.name, each.dataset.digest) not in known
        ]
        if new:
            self._target.client.log_inputs(there.info.run_id, new)

    def _send_artifacts(self, run: Any, there: Any) -> None:
        """Send files that are missing, of another size, or newer than the last pass."""
        folder, target_id = _path(run.info.artifact_uri), str(there.info.run_id)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            return
        known, last_ms = dict(self._listed(target_id)), int(there.data.tags.get(SENT, 0))
        for path in files:
            name, facts = path.relative_to(folder), path.stat()
            if known.get(name.as_posix()) != facts.st_size or facts.st_ctime * 1000 >= last_ms:
                inside = None if name.parent == Path() else name.parent.as_posix()
                self._target.client.log_artifact(target_id, str(path), inside)

    def _listed(self, target_id: str, folder: str | None = None) -> Iterator[tuple[str, int]]:
        """Yield the path and size of each file among the artifacts on the server."""
        for entry in self._target.client.list_artifacts(target_id, folder):
            if entry.is_dir:
                yield from self._listed(target_id, entry.path)
            else:
                yield entry.path, entry.file_size


class _Sender:
    """A thread that sends runs which changed, and waits after a failure."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._changed: set[str] = set()
        self._marked: set[str] = set()
        self._is_last = False
        self._problem = ""
        self._mirror: Mirror | None = None
        self._thread: threading.Thread | None = None

    def notify(self, run_id: str, over: bool) -> None:  # noqa: FBT001 - the form of `runs.observers`
        """Send a changed run; at the end of a stage's run, wait for that, and print what is left."""
        if over or run_id not in self._marked:
            self._marked.add(run_id)
            with reported():
                local().client.set_tag(run_id, UNSENT, "true")
        unsent = {str(run.info.run_id) for run in _all_runs(local(), _IS_UNSENT)} if over else set()
        with self._condition:
            self._changed |= {run_id} | unsent
            self._is_last = self._is_last or over
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="adpet sync", daemon=True)
                self._thread.start()
            self._condition.notify_all()
            if over:
                self._condition.wait_for(lambda: self._thread is None, timeout=WAIT_S)
        if over:
            self._say_what_is_left()

    def _work(self) -> None:
        """Send what changed, until the stage is through with its run."""
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._changed)
                waiting, self._changed = self._changed, set()
                is_last = self._is_last
            left = self._pass(waiting)
            with self._condition:
                self._changed |= left
                if is_last:
                    self._is_last, self._thread = False, None
                    self._condition.notify_all()
                    return
                pause = PAUSE_AFTER_FAILURE_S if left else PAUSE_S
                self._condition.wait_for(lambda: self._is_last, timeout=pause)

    def _pass(self, waiting: set[str]) -> set[str]:
        """Send runs, and return those that are left since the server does not answer or refuses something."""
        self._problem, left = "", set(waiting)
        for run_id in sorted(waiting):
            try:
                self._mirror = self._mirror or Mirror(local(), current())
                self._mirror.send(run_id)
                left.discard(run_id)
            except store.UnreachableError as error:
                self._problem = str(error)
                break
            except Exception as error:  # noqa: BLE001 - the server must not stop the work
                self._problem = store.one_line(error)
        return left

    def _say_what_is_left(self) -> None:
        left = _all_runs(local(), _IS_UNSENT)
        if left:
            why = self._problem or "it is slow"
            print(
                f"MLflow: {len(left)} run(s) are not all on the server ({why}); send them with: adpet sync",
                file=sys.stderr,
            )


def _all_runs(source: Store, query: str = "") -> list[Any]:
    """Return the runs of a store, the oldest first, so that a parent comes before its trials."""
    runs_found: list[Any] = []
    token = None
    while True:
        with reported(f"{source.shown}: "):
            page = source.client.search_runs(
                [source.experiment_id], query, order_by=["attributes.start_time ASC"], page_token=token
            )
        runs_found += page
        token = page.token
        if not token:
            return [run for run in runs_found if LINEAGE in run.data.tags]


def _digest(model: Any) -> tuple[str, str]:
    """Return the tag with the digest of a logged model, and the digest."""
    tag = SERVED if SERVED in model.tags else DIGEST
    return tag, model.tags.get(tag, "")


def _path(uri: str) -> Path:
    """Return the folder of a file:// address."""
    return Path(url2pathname(urlparse(uri).path))
