"""Where MLflow keeps runs and models: a SQLite file at the project's root, or what MLFLOW_TRACKING_URI names.

All calls to MLflow go through one connection a process, so that no database is dropped where one stands.
"""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adpet.artifacts import written_aside
from adpet.errors import TrackingError

# Read when MLflow is imported or at each call: it reports nothing about its use, and prints neither
# the address of a run that ends nor a progress bar for each artifact.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402  (its environment first)
import requests  # noqa: E402
from mlflow.entities import ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

TRACKING_URI = "MLFLOW_TRACKING_URI"

# The tag that says what a run and a model follow from.
LINEAGE = "adpet.lineage"

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"

# A server is asked once, and given this many seconds, before work begins. MLflow's own 7 retries of
# 120 s each would keep one waiting for minutes for an address with a typing error.
_CHECK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

_SQLITE = "sqlite:///"
_MAXIMUM_MESSAGE = 300


@dataclass(frozen=True)
class Store:
    """An open store: its address, the experiment that runs go to, and the client that reaches both."""

    uri: str
    experiment_id: str
    client: Any


class _Connection:
    """The store that this process is connected to."""

    store: Store | None = None


def store_uri(project_root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the SQLite file at the main root of the project.

    The temporary workspaces of ``dvc exp run --queue`` and ``--temp`` are removed when they are done; their
    runs go to the project's own store. A relative SQLite path is taken from the main root too.
    """
    root = main_root(project_root)
    uri = os.environ.get(TRACKING_URI, "").strip()
    if not uri:
        return f"{_SQLITE}{root / DATABASE}"
    path = uri.removeprefix(_SQLITE)
    is_relative = uri.startswith(_SQLITE) and path and not path.startswith(("/", ":"))
    return f"{_SQLITE}{root / path}" if is_relative else uri


def main_root(project_root: Path) -> Path:
    """Return the project's root; that of a temporary workspace of DVC is the project it was made from."""
    root = project_root.resolve()
    inside = [place for place in root.parents if place.parts[-3:] == (".dvc", "tmp", "exps")]
    return inside[-1].parents[2] if inside else root


def connect(project_root: Path, experiment: str = "adpet") -> Store:
    """Connect this process to the store; make the store and the experiment where they do not exist.

    Raises
    ------
    TrackingError
        If the server does not answer within a few seconds, or the store or experiment cannot be used.
    """
    _silence()
    uri = store_uri(project_root)
    artifacts = None
    if uri.startswith(_SQLITE):
        database = Path(uri.removeprefix(_SQLITE))
        artifacts = (database.parent / ARTIFACTS).as_uri()
        _create(database, artifacts)
    _set_default(uri)
    with reported(f"{uri}: required an MLflow store; "), _environment(_CHECK):
        client = mlflow.MlflowClient(tracking_uri=uri)
        store = Store(uri, _experiment_id(client, experiment, artifacts), client)
    _Connection.store = store
    return store


def current() -> Store:
    """Return the store that `connect` opened.

    Raises
    ------
    TrackingError
        If `connect` was not called.
    """
    if _Connection.store is None:
        raise TrackingError("required a connection to MLflow; call adpet.tracking.store.connect first")
    return _Connection.store


@contextmanager
def reported(prefix: str = "MLflow: ") -> Iterator[None]:
    """Turn an exception of MLflow into a TrackingError of one line."""
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        raise TrackingError(f"{prefix}{one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return what happened, without the web address of every request and Python's account of it."""
    text = " ".join(str(error).split())
    if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text:
        reason = re.search(r"\[Errno [^\]]*\] ([^\"')]+)|([Tt]imed out)|(resolve [^\"')]+)", text)
        cause = next((part for part in reason.groups() if part), "") if reason else ""
        why = f" ({cause.lower()})" if cause else ""
        return f"the server does not answer{why}; start it, or correct {TRACKING_URI}"
    return text[:_MAXIMUM_MESSAGE]


def _experiment_id(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was quicker
    if found.lifecycle_stage != ViewType.to_string(ViewType.ACTIVE_ONLY).removesuffix("_only"):
        raise TrackingError(
            f"tracking.experiment: required an active experiment, but '{name}' was deleted; restore it with: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _create(database: Path, artifacts: str) -> None:
    """Make the SQLite file, if it is not there: aside first, so that a kill leaves none half migrated.

    Processes that start at the same moment, such as the workers of DVC's queue, wait for one another.
    """
    if database.exists():
        return
    if not database.parent.is_dir():
        raise TrackingError(
            f"{TRACKING_URI}: required a SQLite file in a folder that exists; received {database}; "
            f"make {database.parent}"
        )
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not database.exists():
            with reported(f"{database}: "), written_aside(database) as aside:
                _create_tables(aside, artifacts)
    finally:
        os.close(folder)


def _create_tables(path: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"{_SQLITE}{path}", artifacts).engine.dispose()


def _set_default(uri: str) -> None:
    """Make `uri` MLflow's default in this process, without leaving it in the environment.

    MLflow would write it there, where the next `connect`, to another project, would take it for a wish.
    """
    before = os.environ.get(TRACKING_URI)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(TRACKING_URI, None)
    else:
        os.environ[TRACKING_URI] = before


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _silence() -> None:
    """Keep what MLflow and its migrations say about their own progress off the terminal."""
    for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
