"""A registered version's exported model as a folder on this machine, fetched once, or anew where it changed.

MLflow is loaded only where it must be asked: for files that are not here yet, and for what a name stands for
where neither the database's own times nor a server's REST API can tell that it is what it was.
"""

import json
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adpet.errors import TrackingError
from adpet.paths import WORK
from adpet.processes import locked
from adpet.storage import FILES, atomic_write, files_digest, write_json
from adpet.tracking.rest import asked_over_rest
from adpet.tracking.store import LEAKY, MODEL_URI, SERVER, SQLITE, main_root, shown, store_uri

if TYPE_CHECKING:
    from adpet.tracking.registry import Version

# Exported models by the digest of their version's files, and what was last found out about names.
MODELS: Final = WORK / "models"
RESOLVED: Final = "resolved.json"
DOCUMENT: Final = "model.json"
# SQLite's file, and those that hold what has not come into it yet.
_FILES_OF_SQLITE: Final = ("", "-wal", "-journal")
# A database that was written to so shortly before may be written to again without another time of change.
_SETTLED_S: Final = 1.0
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Registered:
    """What a name stands for: a version, the digest of its files, and whether its split leaked."""

    name: str
    number: int
    digest: str
    leaky: bool

    @property
    def uri(self) -> str:
        """The name that always means this version."""
        return f"models:/{self.name}/{self.number}"


def exported_model(uri: str, *, root: Path, experiment: str) -> tuple[Path, Registered]:
    """Return the folder of a registered version's exported model, and which version it is.

    Parameters
    ----------
    uri : str
        ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
    root : Path
        The project's, by which the store is found where MLFLOW_TRACKING_URI names none.
    experiment : str
        MLflow's, made where the store has to be asked and has none.

    Raises
    ------
    TrackingError
        If there is no such model, version or alias, its files are not as they were registered, or there is no
        exported model among them.
    """
    if MODEL_URI.fullmatch(uri) is None:
        raise TrackingError(
            f"required a folder, models:/NAME@ALIAS or models:/NAME/VERSION; received {uri!r}"
        )
    models = main_root(root) / MODELS
    models.mkdir(parents=True, exist_ok=True)
    with locked(models):
        found = _resolved(uri, models, root, experiment)
        folder = models / found.digest
        if not _is_as_fetched(folder):
            fetch(_version(found.uri, root, experiment), folder)
    return folder, found


def fetch(version: "Version", into: Path) -> None:
    """Copy the exported model out of a version's files, which are those that were registered; note a digest.

    Raises
    ------
    TrackingError
        If they are not there or were changed, or no exported model is among them.
    """
    from adpet.tracking.registry import registered_files

    with registered_files(version) as files:
        found = sorted(path.parent for path in files.rglob(DOCUMENT))
        if len(found) != 1:
            raise TrackingError(
                f"models:/{version.name}/{version.number}: required one exported model among its files; "
                f"received {len(found) or 'none'}; name another version, or register it anew with: "
                "dvc repro --force register"
            )
        with atomic_write(into) as aside:
            shutil.copytree(found[0], aside)
        with atomic_write(_noted_digest(into)) as aside:
            aside.write_text(files_digest(found[0]), encoding="utf-8")


def _is_as_fetched(folder: Path) -> bool:
    """Say whether a copy is here, with the very files that were fetched."""
    try:
        return _noted_digest(folder).read_text(encoding="utf-8") == files_digest(folder)
    except (OSError, ValueError):
        return False


def _noted_digest(folder: Path) -> Path:
    """Return the file beside a copy that holds the digest of what was fetched."""
    return folder.with_name(f"{folder.name}.digest")


def _resolved(uri: str, models: Path, root: Path, experiment: str) -> Registered:
    """Find out what a name stands for now."""
    store = store_uri(root)
    if store.startswith(SERVER):
        found = asked_over_rest(store, uri)
        return _registered(uri, found) if found else _asked_of_mlflow(uri, root, experiment)
    notes = models / RESOLVED
    key = f"{shown(store)} {uri}"
    stamp = _stamp(store)
    noted = _read(notes)
    known = _found_before(noted.get(key), stamp)
    if known is not None:
        return known
    answered = _asked_of_mlflow(uri, root, experiment)
    if stamp is not None and stamp == _stamp(store) and _is_settled(stamp):
        write_json(notes, noted | {key: {"stamp": stamp, "found": asdict(answered)}})
    return answered


def _asked_of_mlflow(uri: str, root: Path, experiment: str) -> Registered:
    version = _version(uri, root, experiment)
    facts = {"name": version.name, "version": version.number, "tags": version.tags}
    return _registered(uri, facts)


def _version(uri: str, root: Path, experiment: str) -> "Version":
    from adpet.tracking.registry import version_of
    from adpet.tracking.store import connect

    connect(root, experiment=experiment)
    return version_of(uri)


def _registered(uri: str, facts: dict[str, Any]) -> Registered:
    digest = str(facts["tags"].get(FILES, ""))
    if not _DIGEST.fullmatch(digest):
        raise TrackingError(
            f"{uri}: required the digest of its files, by which a changed one is noticed; received a version "
            "without it; register it anew with: dvc repro --force register"
        )
    return Registered(str(facts["name"]), int(facts["version"]), digest, facts["tags"].get(LEAKY) == "true")


def _stamp(store: str) -> list[Any] | None:
    """Return time and size of a database's files; None where it is none of SQLite's."""
    if not store.startswith(SQLITE):
        return None
    path = store.removeprefix(SQLITE)
    stamp: list[Any] = []
    for suffix in _FILES_OF_SQLITE:
        try:
            facts = Path(path + suffix).stat()
        except OSError:
            stamp.append(None)
        else:
            stamp.append([facts.st_mtime_ns, facts.st_size])
    return stamp if stamp[0] is not None else None


def _is_settled(stamp: list[Any]) -> bool:
    newest = max(one[0] for one in stamp if one is not None) / 1e9
    return bool(time.time() - newest > _SETTLED_S)


def _found_before(note: Any, stamp: list[Any] | None) -> Registered | None:
    """Return what was noted of a database that has not changed since; None of a note of another form, too."""
    try:
        found = Registered(**note["found"]) if stamp is not None and note["stamp"] == stamp else None
        # It names a folder, which is replaced where it is not as it was fetched.
        return found if found is not None and _DIGEST.fullmatch(found.digest) else None
    except (KeyError, TypeError):
        return None


def _read(notes: Path) -> dict[str, Any]:
    """Return what was noted; nothing is lost without it."""
    try:
        noted = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}
