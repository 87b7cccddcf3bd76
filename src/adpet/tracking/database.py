"""Databases that MLflow's store lies in: asked once whether they answer, where MLflow asks ten times.

Of one that is not there, MLflow's client says after 105 seconds what SQLAlchemy raised, as a traceback.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from adpet.errors import TrackingError
from adpet.processes import locked
from adpet.storage import atomic_write
from adpet.tracking.place import TRACKING_URI, shown

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

# What MLflow can keep its tables in, by the first word of an address.
KINDS: Final = ("postgresql", "mysql", "sqlite", "mssql")

# SQLite in memory: runs would be gone with the process.
NO_FILE: Final = (None, "", ":memory:")


def is_database(uri: str) -> bool:
    """Say whether an address names a database, rather than a server."""
    return uri.partition(":")[0].partition("+")[0] in KINDS


def engine_of(uri: str) -> "Engine":
    """Return what connects to a database, without connecting yet.

    Raises
    ------
    TrackingError
        If the address is none of a database, or needs a driver that is not installed.
    """
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import NoSuchModuleError

    try:
        return create_engine(_parts(uri), poolclass=NullPool)
    except (ImportError, NoSuchModuleError) as error:
        raise TrackingError(
            f"{TRACKING_URI}: required a database whose Python driver is installed; received {shown(uri)} "
            f"({error}); install the driver, or name another, as in postgresql+psycopg2://"
        ) from error


def ask(engine: "Engine") -> None:
    """Connect to a database, and read the names of its tables.

    Raises
    ------
    ConnectionError
        If it does not answer, lets nobody in under this name, or is none; in the driver's words.
    """
    from sqlalchemy import inspect
    from sqlalchemy.exc import DBAPIError

    try:
        inspect(engine).get_table_names()
    except DBAPIError as error:
        raise ConnectionError(str(error.orig)) from error


def make_file(engine: "Engine", artifacts: str) -> str:
    """Make a SQLite file with MLflow's tables where nothing is; return the address of its artifacts.

    Aside first, so that a kill leaves none half migrated. Processes that start at the same moment, such as
    the workers of DVC's queue, wait for one another.

    Parameters
    ----------
    artifacts : str
        The name of the folder beside the file that runs keep their files in.

    Raises
    ------
    ConnectionError
        If what is there is no database, or none can be made there.
    """
    database = Path(str(engine.url.database))
    location = (database.parent / artifacts).as_uri()
    if database.exists():
        ask(engine)
        return location
    if not database.parent.is_dir():
        raise TrackingError(
            f"{TRACKING_URI}: required a SQLite file in a folder that exists; received {database}; "
            f"make {database.parent}"
        )
    with locked(database.parent):
        if not database.exists():
            with atomic_write(database) as aside:
                _create_tables(engine.url.set(database=str(aside)), location)
    return location


def _create_tables(url: "URL", artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = url.render_as_string(hide_password=False)
    ask(engine_of(uri))
    SqlAlchemyStore(uri, artifacts).engine.dispose()


def _parts(uri: str) -> "URL":
    """Return the parts of an address.

    What is wrong with one is not repeated: a password with an @ in it is taken for a host, a port or a name.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):
        url = None
    if url is None or (url.host and "@" in f"{url.host}{url.database}"):
        raise TrackingError(
            f"{TRACKING_URI}: required the address of a database, as in "
            "postgresql+psycopg2://USER:PASSWORD@HOST:PORT/NAME, with %40 for an @ in the password; received "
            f"{shown(uri)}; correct it"
        )
    if url.get_backend_name() == "sqlite" and url.database in NO_FILE:
        raise TrackingError(
            f"{TRACKING_URI}: required a SQLite file, as in sqlite:////home/ann/mlflow.db; received "
            f"{shown(uri)}; name one"
        )
    return url
