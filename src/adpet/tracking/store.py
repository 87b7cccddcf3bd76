"""Where MLflow keeps runs and models: a SQLite file at the project's root, or what MLFLOW_TRACKING_URI names.

All calls to MLflow go through one connection a process, so that no database is dropped where one stands.
"""

import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from adpet.errors import AdpetError, TrackingError
from adpet.tracking.database import ask, engine_of, is_database, make_file
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

# A store is asked once, and given this many seconds for all its answers, before work begins: with the two
# seconds in which MLflow loads, less than five. Its own 7 retries of 120 s each would keep one waiting for
# minutes for an address with a typing error.
CHECK_S = 2.5
CHECK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

# The experiment's tag that says who began to write to it last.
WRITER = "adpet.writer"

_Answer = TypeVar("_Answer")

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


class ForbiddenError(TrackingError):
    """The server knows the user, and does not let them do this."""


class RefusedError(TrackingError):
    """The store understood what it was told, and will not take it however often it is told again."""


@dataclass(frozen=True)
class Target:
    """Where this process tells MLflow what it does, whether or not anybody answers there.

    `offline` is a wish: nothing is sent. `wait_s` is how long the end of a stage waits for what is left.
    `writes` has a server say at once whether the user may write.
    """

    root: Path
    experiment: str
    offline: bool
    wait_s: float
    writes: bool

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
    _Connection.target = Target(main_root(project_root), experiment, offline, wait_s, writes)
    if offline:
        return
    try:
        with environment(CHECK):
            reconnect(seconds=CHECK_S)
    except UnreachableError:
        if required:
            raise


def reconnect(*, seconds: float | None = None) -> Store:
    """Return the store that `connect` was told of, opened now where it did not answer then.

    Parameters
    ----------
    seconds : float, optional
        How long it may take to answer; None: as long as it takes.
    """
    if _Connection.store is None:
        wish = target()
        uri = store_uri(wish.root)
        _require_no_password(uri)
        with _opening(uri):
            _Connection.store = _opened(uri, wish, seconds)
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
    ForbiddenError
        For what the user may not do.
    RefusedError
        For what the store will never take.
    """
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        text = f"{prefix}{one_line(error)}"
        if _may_pass(error):
            raise UnreachableError(text, silent=_SILENCE in text) from error
        if _status(error) == HTTPStatus.FORBIDDEN:
            raise ForbiddenError(text) from error
        if getattr(error, "error_code", None) == _REFUSAL:
            raise RefusedError(text) from error
        raise TrackingError(text) from error


def one_line(error: Exception) -> str:
    """Return what happened, without the web address of every request, SQL, and Python's account of it."""
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
    return re.split(r" \[SQL: | \(Background on this error", text)[0][:_MAXIMUM_MESSAGE]


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


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    """Turn whatever the opening of a store raises into a TrackingError of one line.

    An address can be wrong in more ways than MLflow, SQLAlchemy, its drivers and Alembic have in common.
    """
    prefix = f"{shown(uri)}: required an MLflow store; "
    with reported(prefix):
        try:
            yield
        except (AdpetError, MlflowException, requests.RequestException):
            raise
        except TimeoutError as error:
            text = f"{prefix}{_SILENCE} (timed out); start it, or correct {TRACKING_URI}"
            raise UnreachableError(text, silent=True) from error
        except ConnectionError as error:
            text = f"{prefix}received: {one_line(error)}; mend that, or correct {TRACKING_URI}"
            raise UnreachableError(text, silent=True) from error
        except Exception as error:
            kind = type(error).__name__
            text = f"{prefix}received {kind}: {one_line(error)}; mend that, or correct {TRACKING_URI}"
            raise TrackingError(text) from error


def _opened(uri: str, wish: Target, seconds: float | None) -> Store:
    """Open a store. What goes over the network has so many seconds; a database's tables may take longer."""
    _set_default(uri)
    if not is_database(uri):
        return _within(seconds, lambda: _store(uri, wish))
    engine = engine_of(uri)
    if uri.startswith(SQLITE):
        return _store(uri, wish, make_file(engine, ARTIFACTS))
    _within(seconds, lambda: ask(engine))
    return _store(uri, wish)


def _within(seconds: float | None, work: Callable[[], _Answer]) -> _Answer:
    """Return what `work` returns or raise what it raises, in time or never.

    The timeout of a request is one for each piece of an answer that comes: a server can draw it out without
    end. Nobody waits for the thread that still listens to it then, neither here nor at the end of Python.
    """
    answer: Future[_Answer] = Future()

    def listen() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)

    Thread(target=listen, name="adpet check", daemon=True).start()
    return answer.result(seconds)


def _store(uri: str, wish: Target, artifacts: str | None = None) -> Store:
    """Let MLflow's client open a store, and find or make the experiment."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = _experiment_id(client, wish.experiment, artifacts)
    store = Store(uri, experiment, client, store_name(uri, wish.root))
    if wish.writes and store.is_server:
        client.set_experiment_tag(store.experiment_id, WRITER, user())
    return store


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
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs each SQL error with its parameters and a traceback, and raises it too: `reported` says it once.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
