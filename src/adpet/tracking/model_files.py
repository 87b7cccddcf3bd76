"""The files of a registered model: whether they are those that were registered, and how they are read.

They are YAML, JSON and Keras' own archive, read in its safe mode. No pickle is written or opened, and nothing
is opened before its digest was looked at.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adpet.errors import InputError, TrackingError
from adpet.tracking.checked_loading import files_digest
from adpet.tracking.store import current, one_line, reported


@contextmanager
def downloaded(location: str, *, uri: str) -> Iterator[Path]:
    """Yield a copy of the files that lie at `location`; `uri` says in an error whose they are.

    Raises
    ------
    TrackingError
        If they are not there.
    """
    import mlflow.artifacts

    with tempfile.TemporaryDirectory(prefix="adpet-model-") as scratch:
        try:
            with reported():
                folder = mlflow.artifacts.download_artifacts(
                    location, dst_path=scratch, tracking_uri=current().uri
                )
        except (OSError, TrackingError) as error:
            raise TrackingError(
                f"{uri}: required its files in {location}; received: {one_line(error)}; where the project "
                "was moved, register it anew with: dvc repro --force train register"
            ) from error
        yield Path(folder)


def require_digest(folder: Path, wanted: str | None, *, uri: str) -> None:
    """Check that the files of a version are those that were registered.

    Raises
    ------
    TrackingError
        If they are others, or the version does not say which they must be.
    """
    if not wanted:
        raise TrackingError(
            f"{uri}: required the digest of its files, by which a changed one is noticed; received a version "
            "without it; register it anew with: dvc repro --force register"
        )
    found = files_digest(folder)
    if found != wanted:
        raise TrackingError(
            f"{uri}: required its files as they were registered (digest {wanted[:12]}); received "
            f"{found[:12]}: one was changed since; bring it back, or name another version"
        )


def read_model(folder: Path, *, uri: str) -> tuple[Any, dict[str, Any]]:
    """Read a Keras model and the metadata that was saved with it.

    Raises
    ------
    TrackingError
        If there is no Keras model in the folder.
    """
    from mlflow.models import Model

    from adpet.learning.checkpoint import load_model

    try:
        with reported(f"{uri}: "):
            described = Model.load(str(folder))
        file = folder / described.flavors.get("keras", {}).get("data", "data") / "model.keras"
        return load_model(_inside(folder, file)), dict(described.metadata or {})
    except (OSError, InputError) as error:
        raise TrackingError(f"{uri}: required a Keras model; received: {one_line(error)}") from error


def _inside(folder: Path, file: Path) -> Path:
    """Return a file that a model's own description names, if it is one of the model's."""
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{file.parent}, a path out of its folder")
    return file
