"""Where MLflow keeps runs and models: a SQLite file at the project's root, or what MLFLOW_TRACKING_URI names.

All calls to MLflow go through one connection a process, so that no database is dropped where one stands.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from adpet.artifacts import written_aside
from adpet.errors import TrackingError
from adpet.processes import locked
from adpet.tracking.pages import experiment_tags
from adpet.tracking.place import (
    PASSWORD,
    SERVER,
    SQLITE,
    TRACKING_URI,
    USERNAME,
    main_root,
    shown,
    store_name,
    store_uri,
)
from adpet.tracking.writers import user

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
from mlflow.utils.credentials import read_mlflow_creds  # noqa: E402

# The tag that says what a run and a model follow from.
LINEAGE = "adpet.lineage"

ARTIFACTS = "mlartifacts"

# A server is asked once, and given this many seconds, before work begins. MLflow's own 7 retries of
# 120 s each would keep one waiting for minutes for an address with a typing error.
CHECK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

# The experiment's tag that says who began to write to it last.
WRITER = "adpet.writer"

_MAXIMUM_MESSAGE = 300
_SILENCE = "the server does not answer"


# While what stages left is sent: no call is repeated, and none waits longer. The sender goes on by itself.
SENDING = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

# Seconds that the end of a stage waits for the store, where it is not told.
WAIT_S = 10.0

# MLflow's own word for what it will never take: a proxy in between that answers 400 does not say it.
_REFUSAL = "INVALID_PARAMETER_VALUE"


class UnreachableError(TrackingError):
    """The store does not answer, or is in trouble itself: what it is told may be told again later.

    `silent` says that nobody answered at all, so that asking for something else is idle too.
    """

    def __init__(self, message: str, *, silent: bool) -> None:
        super().__init__(message)
        self.silent = silent


class RefusedError(TrackingError):
    """The store understood what it was told, and will not take it however often it is told again."""


@dataclass(frozen=True)
class Target:
    """Where this process tells MLflow what it does, whether or not anybody answers there.

    `offline` is a wish: nothing is sent. `wait_s` is how long the end of a stage waits for what is left.
    """

    root: Path
    experiment: str
    offline: bool
    wait_s: float

    @property
    def name(self) -> str | None:
        """By which an unsent session says which store it is for; None where it does not matter."""
        if self.offline:
            return None
        return store_name(store_uri(self.root), self.root)


@dataclass(frozen=True)
class Store:
    """An open store: its address, the experiment that runs go to, the client that reaches both, its name."""

    uri: str
    experiment_id: str
    client: Any
    name: str

    @property
    def shown(self) -> str:
        """The address as it may be printed."""
        return shown(self.uri)

    @property
    def is_server(self) -> bool:
        """Whether it is an MLflow server, rather than a database."""
        return self.uri.startswith(SERVER)


class _Connection:
    """The store that this process is connected to, and the one that it wishes to be."""

    store: Store | None = None
    target: Target | None = None


def connect(
    project_root: Path,
    experiment: str = "adpet",
    *,
    offline: bool = False,
    wait_s: float = WAIT_S,
    required: bool = True,
    writes: bool = False,
) -> None:
    """Connect this process to the store; make the store and the experiment where they do not exist.

    Parameters
    ----------
    offline : bool
        Connect to nothing: what runs are told waits on the disk for `adpet sync`.
    wait_s : float
        Seconds that the end of a stage waits for the store to take what is left.
    required : bool
        Whether a store that does not answer now is an error. A stage that adds to what others have
        begun does without: what it has to tell waits.
    writes : bool
        Whether runs are to be written: whom a server lets read only is told so now, not after the work.

    Raises
    ------
    TrackingError
        If the server does not answer within a few seconds or refuses the user, or the store or experiment
        cannot be used.
    """
    _silence()
    _Connection.store = None
    _Connection.target = Target(main_root(project_root), experiment, offline, wait_s)
    if offline:
        return
    try:
        with environment(CHECK):
            opened = reconnect()
            if writes and opened.is_server:
                with reported(f"{opened.shown}: "):
                    opened.client.set_experiment_tag(opened.experiment_id, WRITER, user())
    except UnreachableError:
        if required:
            raise


def reconnect() -> Store:
    """Return the store that `connect` was told of, opened now where it did not answer then."""
    if _Connection.store is None:
        wish = target()
        uri = store_uri(wish.root)
        _require_no_password(uri)
        artifacts = None
        if uri.startswith(SQLITE):
            database = Path(uri.removeprefix(SQLITE))
            artifacts = (database.parent / ARTIFACTS).as_uri()
            _create(database, artifacts)
        _set_default(uri)
        with reported(f"{shown(uri)}: required an MLflow store; "):
            client = mlflow.MlflowClient(tracking_uri=uri)
            _Connection.store = Store(
                uri,
                _experiment_id(client, wish.experiment, artifacts),
                client,
                store_name(uri, wish.root),
            )
    return _Connection.store


def target() -> Target:
    """Return what `connect` was told.

    Raises
    ------
    TrackingError
        If `connect` was not called.
    """
    if _Connection.target is None:
        raise TrackingError("required a connection to MLflow; call adpet.tracking.store.connect first")
    return _Connection.target


def reached() -> Store | None:
    """Return the open store, or None where none was reached yet or none is wanted."""
    return _Connection.store


def current() -> Store:
    """Return the store that `connect` opened, for what needs an answer.

    Raises
    ------
    TrackingError
        If `connect` was not called, was told to stay offline, or reaches nobody.
    """
    if target().offline:
        raise TrackingError(
            "tracking.offline: required false, since this needs an answer of MLflow; received true; set it "
            "to false and run this again"
        )
    return reconnect()


def complete_experiment() -> None:
    """Give an older experiment what a new one has in the UI; what it has already stays."""
    store = current()
    with reported():
        there = store.client.get_experiment(store.experiment_id).tags
        for key, value in experiment_tags().items():
            if key not in there:
                store.client.set_experiment_tag(store.experiment_id, key, value)


@contextmanager
def reported(prefix: str = "MLflow: ") -> Iterator[None]:
    """Turn an exception of MLflow into a TrackingError of one line.

    Raises
    ------
    UnreachableError
        For what may pass.
    RefusedError
        For what will not.
    """
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        text = f"{prefix}{one_line(error)}"
        if _may_pass(error):
            raise UnreachableError(text, silent=_SILENCE in text) from error
        if getattr(error, "error_code", None) == _REFUSAL:
            raise RefusedError(text) from error
        raise TrackingError(text) from error


def one_line(error: Exception) -> str:
    """Return what happened, without the web address of every request and Python's account of it."""
    uri = os.environ.get(TRACKING_URI, "").strip()
    text = " ".join((str(error).replace(uri, shown(uri)) if uri else str(error)).split())
    status = _status(error)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return _refusal(status, text)
    if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text:
        reason = re.search(r"\[Errno [^\]]*\] ([^\"')]+)|([Tt]imed out)|(resolve [^\"')]+)", text)
        cause = next((part for part in reason.groups() if part), "") if reason else ""
        why = f" ({cause.lower()})" if cause else ""
        return f"{_SILENCE}{why}; start it, or correct {TRACKING_URI}"
    return text[:_MAXIMUM_MESSAGE]


def _may_pass(error: Exception) -> bool:
    """Say whether the store is away or in trouble, rather than unwilling to take what it is told."""
    status = _status(error)
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


def _status(error: Exception) -> int:
    """Return the HTTP status that an exception stands for."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    response = getattr(error, "response", None)
    return HTTPStatus.SERVICE_UNAVAILABLE if response is None else int(response.status_code)


def _refusal(status: int, text: str) -> str:
    """Return why a server refuses what it was asked, and what to do about it."""
    if "Invalid Host header" in text:
        return (
            f"the server does not go by the name in this address; correct {TRACKING_URI}, or have that name "
            "added to the server's --allowed-hosts"
        )
    credentials = read_mlflow_creds()
    if status == HTTPStatus.FORBIDDEN:
        return f"the server does not let user {credentials.username} do this; ask its admin for EDIT"
    if not (credentials.username and credentials.password):
        return f"the server asks for a user and a password; set {USERNAME} and {PASSWORD}"
    return (
        f"the server does not know user {credentials.username} with this password; correct {USERNAME} and "
        f"{PASSWORD}"
    )


def _require_no_password(uri: str) -> None:
    """Refuse a server's address with a user or a password in it: addresses are printed, and kept in files."""
    if uri.startswith(SERVER) and "@" in uri:
        raise TrackingError(
            f"{TRACKING_URI}: required an address without a user or password, since it is shown; received "
            f"{shown(uri)} with them; take them out, and set {USERNAME} and {PASSWORD}"
        )


def _experiment_id(client: Any, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=experiment_tags()))
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
    with locked(database.parent):
        if not database.exists():
            with reported(f"{database}: "), written_aside(database) as aside:
                _create_tables(aside, artifacts)


def _create_tables(path: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"{SQLITE}{path}", artifacts).engine.dispose()


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
def environment(values: dict[str, str]) -> Iterator[None]:
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
