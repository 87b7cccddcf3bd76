"""Mirror of the project's own runs on an MLflow server.

A run is known there by lineage, kind and parent. What the server has is not sent again: steps of curves,
results that did not change, files of the same size that are not newer than the last pass.
"""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mlflow.entities import LoggedModelStatus, Metric, Param, RunTag
from mlflow.utils.file_utils import local_file_uri_to_path

from adpet.errors import TrackingError
from adpet.tracking import runs, store
from adpet.tracking.models import DIGEST, SERVED, logged_models, send_model
from adpet.tracking.runs import KIND, PARENT, find_run, same, search
from adpet.tracking.store import LEAKY, LINEAGE, Store, current, local, reported
from adpet.tracking.ui_notes import NOTE

# Seconds between two passes of a training, after a failure, and that the end of a stage waits for the server.
PAUSE_S: Final = 1.0
PAUSE_AFTER_FAILURE_S: Final = 30.0
WAIT_S: Final = 10.0

# The tag of a local run that the server lacks something of, and that of the server's with the last pass (ms).
UNSENT: Final = "adpet.unsent"
SENT: Final = "adpet.sent"

# Runs that wait; one that goes on is sent by its own process.
_WAITING = f"tags.`{UNSENT}` = 'true' and attributes.status != 'RUNNING'"
# Tags that each store has for itself, or that people write on the server.
_OWN_TAGS = {UNSENT, SENT, PARENT, NOTE, "mlflow.user", "mlflow.runName"}
_ONE_AT_A_TIME = threading.Lock()


def start_tracking(project_root: Path, *, experiment: str, required: bool = False) -> None:
    """Connect to the local store; mirror it to a server.

    If `required`, as for the registry, the server must answer now.
    """
    store.connect(project_root, experiment, required=required)
    is_server = store.store_uri(project_root).startswith(store.SERVER)
    runs.observers[:] = [_Sender().notify] if is_server else []


def shared_run(lineage: str) -> str | None:
    """Send a finished training to the registry; return its id."""
    run_id = find_run(lineage, "train")
    if run_id is None or not current().is_server:
        return find_run(lineage, "train", current())
    return Mirror(local(), current()).send(run_id)


def sync_all() -> tuple[int, list[str]]:
    """Send all local runs; return how many, and problems.

    UnreachableError if the server does not answer.
    """
    mirror = Mirror(local(), current())
    found, problems = _all_runs(local()), []
    for run in found:
        try:
            mirror.send(run.info.run_id)
        except store.UnreachableError:
            raise
        except TrackingError as error:
            problems.append(f"run {run.info.run_name}: {error}")
    return len(found) - len(problems), problems


class Mirror:
    """Copies runs between stores, each step once."""

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self._steps: dict[tuple[str, str], set[int]] = {}

    def send(self, run_id: str) -> str:
        """Send what the server lacks; return the run's id there."""
        with _ONE_AT_A_TIME, reported(f"{self._target.shown}: "):
            started = int(time.time() * 1000)
            run = self._source.client.get_run(run_id)
            there = self._counterpart(run)
            target_id = str(there.info.run_id)
            self._send_params_and_tags(run, there)
            if run.info.status == "RUNNING":
                self._send_metrics(run, there, {})
                if there.info.status != "RUNNING":
                    self._target.client.update_run(target_id, status="RUNNING")
                return target_id
            self._send_metrics(run, there, self._send_models(run_id, target_id))
            if run.inputs.dataset_inputs:
                self._target.client.log_inputs(target_id, run.inputs.dataset_inputs)
            self._send_artifacts(run, there)
            if there.info.status != run.info.status:
                self._target.client.set_terminated(target_id, run.info.status, run.info.end_time)
            # Last, so that a pass that was cut short is repeated.
            self._target.client.set_tag(target_id, SENT, str(started))
            if UNSENT in run.data.tags:
                self._source.client.delete_tag(run_id, UNSENT)
            return target_id

    def _counterpart(self, run: Any) -> Any:
        """Return the run on the server; create a missing one."""
        tags = {key: run.data.tags[key] for key in (LINEAGE, KIND)}
        if PARENT in run.data.tags:
            above = self._source.client.get_run(run.data.tags[PARENT])
            tags[PARENT] = self._counterpart(above).info.run_id
        # Folds that are trained side by side create their parent once.
        with store.locked(Path(self._source.uri.removeprefix(store.SQLITE)).parent):
            for found in search(self._target, *tags.values()):
                return found
            return self._target.client.create_run(
                self._target.experiment_id,
                start_time=run.info.start_time,
                tags={**tags, "mlflow.user": store.user()},
                run_name=run.info.run_name,
            )

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
        self._target.client.log_batch(there.info.run_id, params=params, tags=tags)

    def _send_metrics(self, run: Any, there: Any, linked: dict[str, str]) -> None:
        """Send steps that the server lacks, and changed results."""
        target_id = str(there.info.run_id)
        unknown: list[Metric] = []
        for key in run.data.metrics:
            history = self._source.client.get_metric_history(run.info.run_id, key)
            if any(metric.step for metric in history):
                if (target_id, key) not in self._steps:
                    known = key in there.data.metrics
                    remote = self._target.client.get_metric_history(target_id, key) if known else []
                    self._steps[target_id, key] = {metric.step for metric in remote}
                new = [metric for metric in history if metric.step not in self._steps[target_id, key]]
            else:
                latest = max(history, key=lambda metric: metric.timestamp)
                new = [] if same(there.data.metrics.get(key), latest.value) else [latest]
            unknown += [
                Metric(key, metric.value, metric.timestamp, metric.step, model_id=linked.get(key))
                for metric in new
            ]
        self._target.client.log_batch(target_id, metrics=unknown)
        for metric in unknown:
            self._steps.get((target_id, metric.key), set()).add(metric.step)

    def _send_models(self, run_id: str, target_id: str) -> dict[str, str]:
        """Send logged models; return theirs there by metric."""
        linked: dict[str, str] = {}
        for model in logged_models(run_id, self._source):
            if model.status == LoggedModelStatus.READY:
                tag = SERVED if SERVED in model.tags else DIGEST
                folder = Path(local_file_uri_to_path(model.artifact_location))
                digest = model.tags.get(tag, "")
                model_id = send_model(
                    self._target, target_id, folder, digest=digest, name=model.name, tag=tag
                )
                linked |= {metric.key: model_id for metric in model.metrics or []}
        return linked

    def _send_artifacts(self, run: Any, there: Any) -> None:
        """Send files missing, resized, or newer than the last pass."""
        folder, target_id = Path(local_file_uri_to_path(run.info.artifact_uri)), str(there.info.run_id)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        known = dict(self._listed(target_id)) if files else {}
        for path in files:
            name, facts = path.relative_to(folder), path.stat()
            is_new = facts.st_ctime * 1000 >= int(there.data.tags.get(SENT, 0))
            if is_new or known.get(name.as_posix()) != facts.st_size:
                inside = None if name.parent == Path() else name.parent.as_posix()
                self._target.client.log_artifact(target_id, str(path), inside)

    def _listed(self, target_id: str, folder: str | None = None) -> Iterator[tuple[str, int]]:
        """Yield path and size of each file on the server."""
        for entry in self._target.client.list_artifacts(target_id, folder):
            if entry.is_dir:
                yield from self._listed(target_id, entry.path)
            else:
                yield entry.path, entry.file_size


class _Sender:
    """Sends changed runs in a thread; pauses after a failure."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: set[str] = set()
        self._thread = threading.Thread()
        self._next = 0.0
        self._mirror: Mirror | None = None
        self._problem = ""

    def notify(self, run_id: str, over: bool) -> None:  # noqa: FBT001 - the form of `runs.observers`
        """Send a changed run; if over, print what is left."""
        with self._lock:
            if over or run_id not in self._own:
                self._own.add(run_id)
                with reported():
                    local().client.set_tag(run_id, UNSENT, "true")
            if not over:
                if not self._thread.is_alive() and time.monotonic() >= self._next:
                    self._start(self._own)
                return
            until = time.monotonic() + WAIT_S
            if self._thread.is_alive():
                self._thread.join(WAIT_S)
            if not self._thread.is_alive():
                self._start({run_id, *(str(run.info.run_id) for run in _all_runs(local(), _WAITING))})
                self._thread.join(max(0.0, until - time.monotonic()))
        left = _all_runs(local(), _WAITING)
        if left:
            why = self._problem or "it is slow"
            print(
                f"MLflow: {len(left)} run(s) are not all on the server ({why}); send them with: adpet sync",
                file=sys.stderr,
            )

    def _start(self, run_ids: set[str]) -> None:
        self._problem = ""
        self._thread = threading.Thread(
            target=self._send, args=(sorted(run_ids),), name="adpet sync", daemon=True
        )
        self._thread.start()

    def _send(self, run_ids: list[str]) -> None:
        """Send runs until the server does not answer."""
        for run_id in run_ids:
            try:
                self._mirror = self._mirror or Mirror(local(), current())
                self._mirror.send(run_id)
                if local().client.get_run(run_id).info.status != "RUNNING":
                    self._own.discard(run_id)
            except store.UnreachableError as error:
                self._problem = str(error)
                break
            except Exception as error:  # noqa: BLE001 - the server must not stop the work
                self._problem = store.one_line(error)
        self._next = time.monotonic() + (PAUSE_AFTER_FAILURE_S if self._problem else PAUSE_S)


def _all_runs(source: Store, query: str = "") -> list[Any]:
    """Return the runs of a store, the oldest first."""
    found: list[Any] = []
    token: Any = ""
    while token is not None:
        with reported(f"{source.shown}: "):
            page = source.client.search_runs(
                [source.experiment_id], query, order_by=["attributes.start_time ASC"], page_token=token
            )
        found += page
        token = page.token or None
    return [run for run in found if LINEAGE in run.data.tags]
