"""Storage: atomic writes, JSON, hashes, and work folders of unfinished stages."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adpet.errors import InputError
from adpet.paths import WORK

# The tag of a registered version with the digest of its files, and the file that MLflow adds to their copies.
FILES = "adpet.files_digest"
VERSION_FILE = "registered_model_meta"

# Prefix of what is being written: a reader ignores it, the next writer replaces it.
PARTIAL_PREFIX = ".partial-"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a neighbour of `path` to write a file or folder to; it becomes `path` only on success.

    The neighbour keeps the name's suffixes, so that libraries recognise the format.
    What an earlier, killed writer left there is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(PARTIAL_PREFIX + path.name)
    remove(aside)
    try:
        yield aside
        if aside.is_dir():
            remove(path)
        aside.replace(path)
    finally:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises
    ------
    InputError
        Where there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; run: dvc repro") from error
    except ValueError as error:
        raise InputError(f"{path}: required JSON; received: {error}; remove it and run: dvc repro") from error


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON that ends in a newline; NaN is refused."""
    with atomic_write(path) as aside:
        aside.write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with any of `facts` (JSON values)."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def files_digest(folder: Path) -> str:
    """Return a hash of the names and contents of a model's files; a link to a folder counts too."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file()
        if (is_file or path.is_symlink()) and path != folder / VERSION_FILE:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes() if is_file else b"").digest())
    return digest.hexdigest()


@contextmanager
def work_dir(stage: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the work folder of a stage: a killed stage finds there what it had finished.

    The folder belongs to `facts`, all that the work follows from beside this package's code; with
    other facts a new one is begun and the old ones are removed. It is removed when the block succeeds.
    """
    work = WORK / stage / fingerprint({**facts, "code": code_digest()})
    for other in WORK.glob(f"{stage}/*"):
        if other != work:
            remove(other)
    work.mkdir(parents=True, exist_ok=True)
    yield work
    remove(work)


def move(source: Path, target: Path) -> None:
    """Put a finished file or folder in the place of `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    source.replace(target)


def code_digest() -> str:
    """Return a hash of this package's source files, so that uncommitted changes count too."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
