"""Brings a session's lines to MLflow, in order, each of them once.

What is sent again because an answer was lost changes nothing: a run is found by its session, a step that the
run has keeps its first value, a result is sent when it differs from the latest, artifacts replace those of
the same path, and a model that is there whole is recognised by its digest. So a session is sent again from
its beginning where the store does not know its run, or is another one than before.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from adpet.errors import TrackingError
from adpet.tracking import lookup
from adpet.tracking.journal import END, OPEN, RunKey, Session, State, file_digest
from adpet.tracking.models import ready_models, send_model
from adpet.tracking.store import RefusedError, Store, UnreachableError, reported

# MLflow's limits for one request.
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000

# How often a run was continued.
_RESUMED = "adpet.resumed"

Line = dict[str, Any]


class MissingRunError(TrackingError):
    """The run that results belong to is not in the store."""


class Delivery:
    """A session on its way to a store, with what the store is known to have of its run."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._state = session.state()
        self._last: Line | None = None
        self.sent = 0
        self._fresh = self._rewound = False
        self._model_id: str | None = None
        self._steps: dict[str, set[int]] = {}
        self._latest: dict[str, float] | None = None
        self._params: set[str] | None = None
        if self._state.run_id is None:
            session.rewind()

    def advance(self, store: Store, *, over: bool) -> None:
        """Send what the session has by now; what the store has taken is confirmed and counted at once.

        A line that the store refuses, such as one for a run that somebody has deleted, is noted in the
        session.

        Parameters
        ----------
        over : bool
            Nobody writes to the session any more: the run of a process that was killed is ended.

        Raises
        ------
        UnreachableError
            If the store does not answer.
        TrackingError
            If it does not take a line now, which stays.
        """
        if self._state.store not in (None, store.name):
            self._rewind()
        try:
            self._send_rest(store, over=over)
        except UnreachableError:
            raise
        except TrackingError:
            run_id = self._state.run_id
            # Once: of two stores that take turns at one address, each would lose what the other was told.
            if run_id is None or self._rewound or lookup.is_there(store, run_id):
                raise
            self._rewound = True
            self._rewind()
            self._send_rest(store, over=over)

    def _send_rest(self, store: Store, *, over: bool) -> None:
        for lines, position in _bundles(self.session.lines(self._state.position)):
            run_id, refused = self._attempt(store, lines)
            self._state = State(position, run_id, store.name)
            self.session.confirm(self._state)
            self.sent += len(lines) - refused
            self._last = lines[-1]
        last = self._last_line()
        if over and self.session.first["do"] == OPEN and last["do"] != END:
            self._attempt(store, [{"do": END, "status": "KILLED", "time": last["time"]}])

    def _attempt(self, store: Store, lines: Sequence[Line]) -> tuple[str, int]:
        """Send lines, one by one where the store refuses some; return their run, and how many it refused."""
        try:
            with reported(f"{store.shown}: "):
                return self._send(store, lines), 0
        except RefusedError as error:
            self._forget()
            run_id = self._state.run_id
            if run_id is None:
                raise
            if len(lines) == 1:
                self.session.refuse(lines, str(error))
                return run_id, 1
        except Exception:
            self._forget()
            raise
        return run_id, sum(self._attempt(store, [line])[1] for line in lines)

    def _rewind(self) -> None:
        """Begin anew, for a store that has nothing of the session."""
        self.session.rewind()
        self._state = State()
        self._last = self._model_id = None
        self._forget()

    def _last_line(self) -> Line:
        """Return the last line that the store has taken; the first one for none."""
        if self._last is None:
            lines = self.session.lines(0)
            sent = (line for line, behind in lines if behind == self._state.position)
            self._last = next(sent, self.session.first)
        return self._last

    def _send(self, store: Store, lines: Sequence[Line]) -> str:
        """Send lines of one kind, and return the id of their run."""
        operation = lines[0]["do"]
        if operation == OPEN:
            return self._open(store, lines[0])
        run_id = self._state.run_id
        if run_id is None:  # the first line of results that are added to a run
            return self._find(store)
        if operation == "metrics":
            self._metrics(store, run_id, lines)
        else:
            one_by_one: dict[str, Callable[[Store, str, Line], None]] = {
                "params": self._send_params,
                "tags": _tags,
                "artifact": self._artifact,
                "dataset": _dataset,
                "model": self._model,
                END: _end,
            }
            one_by_one[operation](store, run_id, lines[0])
        return run_id

    def _open(self, store: Store, line: Line) -> str:
        """Continue the newest run of this lineage and kind that may be, or create one."""
        parent_id = lookup.newest(store, RunKey(**line["parent"])) if line["parent"] else None
        found = lookup.to_continue(
            store,
            self.session.key,
            parent_id,
            session=self.session.name,
            reopen=line["reopen"] or bool(parent_id),
        )
        if found is None:
            self._fresh = True
            return lookup.create(store, self.session, parent_id)
        run_id = str(found.info.run_id)
        tags = found.data.tags
        store.client.update_run(run_id, status="RUNNING", name=line["name"])
        # Not where the answer to this very line was lost.
        if tags.get(lookup.SESSION) != self.session.name:
            marks = {
                lookup.OWNER: line["owner"],
                lookup.SESSION: self.session.name,
                _RESUMED: str(int(tags.get(_RESUMED, 0)) + 1),
            }
            store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in marks.items()])
        return run_id

    def _find(self, store: Store) -> str:
        run_id = lookup.finished(store, self.session.key)
        if run_id is None:
            raise MissingRunError(lookup.not_there(store, self.session.key))
        return run_id

    def _metrics(self, store: Store, run_id: str, lines: Sequence[Line]) -> None:
        """Send what the run lacks. Results are linked to its model as well, so that its page shows them."""
        model_id = self._model_of(run_id)
        batch: list[Metric] = []
        for line in lines:
            step = line["step"]
            new = self._lacking(store, run_id, line["values"], step)
            batch += [Metric(key, value, line["time"], step or 0, model_id=model_id) for key, value in new]
        for start in range(0, len(batch), _METRICS_AT_ONCE):
            store.client.log_batch(run_id, metrics=batch[start : start + _METRICS_AT_ONCE])

    def _lacking(
        self, store: Store, run_id: str, values: Mapping[str, float], step: int | None
    ) -> Iterator[tuple[str, float]]:
        """Yield the values whose step the run lacks, or, without a step, those that differ from its latest.

        What is yielded counts as there: where sending it fails, all that is known is read anew.
        """
        for key, value in values.items():
            if step is None:
                latest = self._read_latest(store, run_id)
                if not _same(latest.get(key), value):
                    latest[key] = value
                    yield key, value
            elif step not in (steps := self._read_steps(store, run_id, key)):
                steps.add(step)
                yield key, value

    def _read_steps(self, store: Store, run_id: str, key: str) -> set[int]:
        if key not in self._steps:
            history = [] if self._fresh else store.client.get_metric_history(run_id, key)
            self._steps[key] = {metric.step for metric in history}
        return self._steps[key]

    def _read_latest(self, store: Store, run_id: str) -> dict[str, float]:
        if self._latest is None:
            self._latest = {} if self._fresh else dict(store.client.get_run(run_id).data.metrics)
        return self._latest

    def _forget(self) -> None:
        """Read anew what the store has: it may have taken a part of what it refused."""
        self._fresh = False
        self._steps.clear()
        self._latest = self._params = None

    def _model_of(self, run_id: str) -> str | None:
        """Return the model that a finished run logged last, which results are linked to."""
        if self.session.first["do"] != OPEN and self._model_id is None:
            models = ready_models(run_id)
            self._model_id = models[0].model_id if models else None
        return self._model_id

    def _send_params(self, store: Store, run_id: str, line: Line) -> None:
        """Send the parameters that the run lacks; those that it has keep their value."""
        if self._params is None:
            self._params = set() if self._fresh else set(store.client.get_run(run_id).data.params)
        new = [Param(key, value) for key, value in line["values"].items() if key not in self._params]
        for start in range(0, len(new), _PARAMS_AT_ONCE):
            store.client.log_batch(run_id, params=new[start : start + _PARAMS_AT_ONCE])
        self._params |= set(line["values"])

    def _artifact(self, store: Store, run_id: str, line: Line) -> None:
        path = self.session.kept(line["sha256"]) / line["name"]
        _require_whole(path, line["sha256"])
        store.client.log_artifact(run_id, str(path), line["folder"])

    def _model(self, _: Store, run_id: str, line: Line) -> None:
        folder = self.session.kept(line["folder"])
        for name, digest in line["files"].items():
            _require_whole(folder / name, digest)
        send_model(run_id, folder, digest=line["digest"], name=line["name"])


def _require_whole(path: Path, digest: str) -> None:
    if not path.exists() or file_digest(path) != digest:
        raise TrackingError(f"{path}: required the file with the SHA-256 {digest}, but it is damaged or gone")


def _tags(store: Store, run_id: str, line: Line) -> None:
    store.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in line["values"].items()])


def _dataset(store: Store, run_id: str, line: Line) -> None:
    source = json.dumps({"uri": line["source"]})
    dataset = Dataset(
        line["name"], line["digest"], source_type="local", source=source, profile=line.get("profile")
    )
    tags = [InputTag("mlflow.data.context", line["context"])]
    store.client.log_inputs(run_id, [DatasetInput(dataset, tags)])


def _end(store: Store, run_id: str, line: Line) -> None:
    if line["status"] is not None:
        store.client.set_terminated(run_id, line["status"], line["time"])


def _bundles(lines: Iterator[tuple[Line, int]]) -> Iterator[tuple[list[Line], int]]:
    """Yield neighbouring lines that one request can take, with the position behind them.

    Metrics that have waited go together, so that a server that was away is soon abreast.
    """
    bundle: list[Line] = []
    size = position = 0
    for line, behind in lines:
        more = len(line["values"]) if line["do"] == "metrics" else _METRICS_AT_ONCE + 1
        if bundle and size + more > _METRICS_AT_ONCE:
            yield bundle, position
            bundle, size = [], 0
        bundle.append(line)
        size, position = size + more, behind
    if bundle:
        yield bundle, position


def _same(known: float | None, value: float) -> bool:
    """Say whether a value is the one that MLflow has, which keeps the largest number in place of infinity."""
    if known is None or math.isnan(known) or math.isnan(value):
        return known is not None and math.isnan(known) and math.isnan(value)
    return _finite(known) == _finite(value)


def _finite(value: float) -> float:
    return max(-sys.float_info.max, min(sys.float_info.max, value))
