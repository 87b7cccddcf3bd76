"""MLflow stores: the project's own SQLite file and a server.

Runs are logged to the project's own store (`local`). The registry lies in the shared one (`current`): the
server where one is named, else the project's own store.
"""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.credentials import get_default_host_creds, read_mlflow_creds
from mlflow.utils.rest_utils import http_request

from adpet.errors import AdpetError, TrackingError
from adpet.storage import atomic_write
from adpet.tracking.ui_notes import NOTE, experiment_tags

TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
SQLITE: Final = "sqlite:///"
SERVER: Final = ("http://", "https://")
DATABASE: Final = "mlflow.db"
ARTIFACTS: Final = "mlartifacts"

# The tag of a run and a model that says what they follow from.
LINEAGE: Final = "adpet.lineage"
# The tag of a run and a version whose split had subjects on two sides.
LEAKY: Final = "adpet.leaky"

# Seconds that a server may take for its first answer.
FIRST_ANSWER_S: Final = 3

_LONGEST_MESSAGE = 300


class UnreachableError(TrackingError):
    """The server does not answer; the call may succeed later."""


@dataclass(frozen=True)
class Store:
    """An open MLflow store with the project's experiment."""

    uri: str
    experiment_id: str
    client: Any

    @property
    def shown(self) -> str:
        """The address without a password."""
        return shown(self.uri)

    @property
    def is_server(self) -> bool:
        """Whether it is an MLflow server."""
        return self.uri.startswith(SERVER)


class _Project:
    """The project of this process, and its open stores."""

    root: Path | None = None
    experiment = "adpet"
    local: Store | None = None
    current: Store | None = None


def connect(project_root: Path, experiment: str = "adpet", *, required: bool = True) -> None:
    """Choose the project whose stores this process uses.

    If `required`, the shared store is opened now: UnreachableError if the server does not answer within a few
    seconds. A stage that only logs runs does without. TrackingError if MLFLOW_TRACKING_URI is no usable
    address, or the store cannot be opened.
    """
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # MLflow logs each SQL error with its parameters and a traceback, and raises it too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    _Project.root, _Project.experiment = project_root, experiment
    _Project.local = _Project.current = None
    uri = store_uri(project_root)
    if not required:
        return
    if uri.startswith(SERVER):
        with reported(_required(uri)):
            creds = get_default_host_creds(uri)
            http_request(creds, "/health", "GET", timeout=FIRST_ANSWER_S, raise_on_status=False)
    current()


def local() -> Store:
    """Return the project's own store; make a missing one."""
    if _Project.local is None:
        uri = store_uri(_root())
        _Project.local = _open(own_uri(_root()) if uri.startswith(SERVER) else uri)
    return _Project.local


def current() -> Store:
    """Return the store of the registry: the server or `local`."""
    if _Project.current is None:
        uri = store_uri(_root())
        _Project.current = _open(uri) if uri.startswith(SERVER) else local()
        _set_default(uri)
    return _Project.current


def store_uri(project_root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the project's own file."""
    uri = os.environ.get(TRACKING_URI, "").strip() or own_uri(project_root)
    if uri.startswith(SERVER):
        if "@" in uri:
            raise TrackingError(
                f"{TRACKING_URI}: required an address without a user or password, since it is shown; "
                f"received {shown(uri)} with them; take them out, and set {USERNAME} and {PASSWORD}"
            )
        return uri
    path = uri.removeprefix(SQLITE)
    if not uri.startswith(SQLITE) or path in ("", ":memory:", "/:memory:"):
        raise TrackingError(
            f"{TRACKING_URI}: required http(s)://SERVER or sqlite:///FILE; received {shown(uri)}; name "
            "an MLflow server (it may keep its runs in PostgreSQL), or unset it for the project's mlflow.db"
        )
    return f"{SQLITE}{main_root(project_root) / path}"


def own_uri(project_root: Path) -> str:
    """Return the address of the project's own SQLite file."""
    return f"{SQLITE}{main_root(project_root) / DATABASE}"


def main_root(project_root: Path) -> Path:
    """Return the project's root, also from DVC's temporary workspaces."""
    root = project_root.resolve()
    inside = [place for place in root.parents if place.parts[-3:] == (".dvc", "tmp", "exps")]
    return inside[-1].parents[2] if inside else root


def shown(uri: str) -> str:
    """Return an address without a user, a password and options."""
    if uri.startswith(SQLITE):
        return uri
    scheme = re.match(r"(?:[\w+.-]+:)?/{0,2}", uri)[0]  # type: ignore[index]
    return scheme + re.split("[?#;&]", uri.removeprefix(scheme).rpartition("@")[2])[0]


def user() -> str:
    """Return the user of the server, or else this machine's."""
    known: str | None = read_mlflow_creds().username
    if known:
        return known
    try:
        return getuser()
    except OSError:  # a container's user without a name
        return "unknown"


@contextmanager
def reported(prefix: str = "MLflow: ") -> Iterator[None]:
    """Turn MLflow's exception into a TrackingError of one line.

    It is an UnreachableError if the server does not answer, or is out of order.
    """
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        status = _status(error)
        later = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
        raise (UnreachableError if later else TrackingError)(f"{prefix}{one_line(error)}") from error


def one_line(error: Exception) -> str:
    """Return an exception's message without passwords, SQL and tracebacks."""
    uri = os.environ.get(TRACKING_URI, "").strip()
    text = " ".join((str(error).replace(uri, shown(uri)) if uri else str(error)).split())
    status = _status(error)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _refusal(status, text)
    if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text:
        reason = re.search(r"(?<=\] )[^\"')]+|timed out|resolve [^\"')]+", text)
        why = f" ({reason[0].lower()})" if reason else ""
        return f"the server does not answer{why}; start it, or correct {TRACKING_URI}"
    return re.split(r" \[SQL: | \(Background on this error", text)[0][:_LONGEST_MESSAGE]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def complete_experiment() -> None:
    """Give an older experiment its description and present view."""
    store = current()
    with reported():
        known = store.client.get_experiment(store.experiment_id).tags
        for key, value in experiment_tags().items():
            if key not in known or (key != NOTE and known[key] != value):
                store.client.set_experiment_tag(store.experiment_id, key, value)


def _root() -> Path:
    if _Project.root is None:
        raise TrackingError("required a connection to MLflow; call adpet.tracking.store.connect first")
    return _Project.root


def _required(uri: str) -> str:
    return f"{shown(uri)}: required an MLflow store; "


def _open(uri: str) -> Store:
    """Open a store, and find or make the experiment."""
    with reported(_required(uri)):
        try:
            artifacts = None if uri.startswith(SERVER) else _make_file(uri)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            return Store(uri, _experiment_id(client, artifacts), client)
        except (AdpetError, MlflowException, requests.RequestException):
            raise
        except Exception as error:  # of MLflow's plugins, SQLAlchemy, its drivers and Alembic
            kind = type(error).__name__
            raise TrackingError(
                f"{_required(uri)}received {kind}: {one_line(error)}; mend that, or correct {TRACKING_URI}"
            ) from error


def _make_file(uri: str) -> str:
    """Make a missing SQLite file whole; return its artifacts' address."""
    database = Path(uri.removeprefix(SQLITE))
    location = (database.parent / ARTIFACTS).as_uri()
    if database.exists():
        return location
    if not database.parent.is_dir():
        raise TrackingError(
            f"{TRACKING_URI}: required a SQLite file in a folder that exists; received {database}; make "
            f"{database.parent}"
        )
    # The workers of DVC's queue start together.
    with locked(database.parent):
        if not database.exists():
            with atomic_write(database) as new:
                SqlAlchemyStore(f"{SQLITE}{new}", location).engine.dispose()
    return location


def _experiment_id(client: Any, artifacts: str | None) -> str:
    name = _Project.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=experiment_tags()))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was quicker
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"tracking.experiment: required an active experiment, but '{name}' was deleted; restore it with: "
            f"mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def _set_default(uri: str) -> None:
    """Make `uri` MLflow's default, but not in the environment."""
    before = os.environ.get(TRACKING_URI)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(TRACKING_URI, None)
    else:
        os.environ[TRACKING_URI] = before


def _status(error: Exception) -> int:
    """Return the HTTP status of an exception, or 0."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    if not isinstance(error, requests.RequestException):
        return 0
    return int(HTTPStatus.SERVICE_UNAVAILABLE if error.response is None else error.response.status_code)


def _refusal(status: int, text: str) -> str:
    """Say why a server refuses, and what to do."""
    if "Invalid Host header" in text:
        return (
            f"the server does not go by the name in this address; correct {TRACKING_URI}, or have that name "
            "added to the server's --allowed-hosts"
        )
    known, variables = read_mlflow_creds(), f"{USERNAME} and {PASSWORD}"
    if status == HTTPStatus.FORBIDDEN:
        return f"the server does not let user {known.username} do this; ask its admin for EDIT"
    if not (known.username and known.password):
        return f"the server asks for a user and a password; set {variables}"
    return f"the server does not know user {known.username} with this password; correct {variables}"
