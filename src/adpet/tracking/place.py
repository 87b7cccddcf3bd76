"""Where MLflow's store lies, and how a registered model is named; known without loading MLflow."""

import os
import re
from pathlib import Path
from typing import Final

TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

DATABASE: Final = "mlflow.db"
SQLITE: Final = "sqlite:///"
SERVER: Final = ("http://", "https://")

# The name of the project's own SQLite file, wherever the project lies.
OWN_FILE: Final = "the project's own store"

MODEL_URI: Final = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
# The tag of a run and a version whose split had subjects on two sides.
LEAKY: Final = "adpet.leaky"

_SCHEME: Final = re.compile(r"^((?:[\w+.-]+:)?/{0,2})")
# USER@ or USER:PASSWORD@ up to the last @; digits between : and / are a port.
_LOGIN: Final = re.compile(r"^(?:[^:/?#;]*|[^:/]*:(?![0-9]+/).*)@", re.DOTALL)
_OPTIONS: Final = re.compile("[?#;&]")


def store_uri(project_root: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or the SQLite file at the main root of the project.

    The temporary workspaces of ``dvc exp run --queue`` and ``--temp`` are removed when they are done; their
    runs go to the project's own store. A relative SQLite path is taken from the main root too.
    """
    root = main_root(project_root)
    uri = os.environ.get(TRACKING_URI, "").strip()
    if not uri:
        return own_file_uri(root)
    path = uri.removeprefix(SQLITE)
    is_relative = uri.startswith(SQLITE) and path and not path.startswith(("/", ":"))
    return f"{SQLITE}{root / path}" if is_relative else uri


def own_file_uri(project_root: Path) -> str:
    """Return the address of the SQLite file at the main root of the project."""
    return f"{SQLITE}{main_root(project_root) / DATABASE}"


def shown(uri: str) -> str:
    """Return an address without the password that may stand in it, before the host or as an option.

    A password may hold any sign, and an option an @. So what stands before the host goes first.
    """
    if uri.startswith(SQLITE):
        return uri
    _, scheme, rest = _SCHEME.split(uri)
    place = _OPTIONS.split(_LOGIN.sub("", rest))[0]
    return f"{scheme}{place.rpartition('@')[2]}"


def store_name(uri: str, project_root: Path) -> str:
    """Return the one name of a store, however its address is spelled; it may be shown and kept."""
    if uri == own_file_uri(project_root):
        return OWN_FILE
    return re.sub("^[^/]*//[^/]*", lambda host: host[0].lower(), shown(uri).rstrip("/"))


def main_root(project_root: Path) -> Path:
    """Return the project's root; that of a temporary workspace of DVC is the project it was made from."""
    root = project_root.resolve()
    inside = [place for place in root.parents if place.parts[-3:] == (".dvc", "tmp", "exps")]
    return inside[-1].parents[2] if inside else root
