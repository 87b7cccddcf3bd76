"""Storage: atomic files, unfinished work and temporary files."""

import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adpet.errors import InputError, ParameterError
from adpet.paths import PIPELINES, WORK

# The tag of a registered version with the digest of its files, and the file that MLflow adds to their copies.
FILES = "adpet.files_digest"
VERSION_FILE = "registered_model_meta"

# Prefix of what is being written: a reader ignores it, the next writer replaces it.
PARTIAL_PREFIX = ".partial-"

# Temporary files of running stages, a folder a process.
TEMPORARY = WORK / "tmp"

# Days after which unfinished work is given up.
KEEP_DAYS = 14

# Facts of a lineage that change without the result; the key of unfinished work has the stage's own code.
NOT_IN_KEY = frozenset({"id", "commit", "code", "code_folders"})

PACKAGE = Path(__file__).parent


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a neighbour of `path` that replaces it on success.

    The neighbour, a file or folder, keeps the name's suffixes, so that libraries recognise the format.
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
    """Read one JSON document."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; run: dvc repro") from error
    except ValueError as error:
        raise InputError(f"{path}: required JSON; received: {error}; remove it and run: dvc repro") from error


def write_json(path: Path, document: Any) -> None:
    """Write indented JSON that ends in a newline; refuse NaN."""
    with atomic_write(path) as aside:
        aside.write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2 as DVC does (``1e-3`` is a number)."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as error:
        raise ParameterError(
            f"{path}: required, but not there; run this in the project's root, where dvc.yaml lies"
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        place = " ".join(str(error).split())
        raise ParameterError(f"{path}: required YAML; received: {place}") from error


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            leaves.update(flatten(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


def set_by_key(document: dict[str, Any], key: str, value: Any) -> None:
    """Set a leaf of nested mappings by its dotted key."""
    *sections, leaf = key.split(".")
    for section in sections:
        document = document.setdefault(section, {})
    document[leaf] = value


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a hash of facts (JSON values), 16 hexadecimal digits."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def files_digest(folder: Path) -> str:
    """Return a hash of a model's file names and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file()
        if (is_file or path.is_symlink()) and path != folder / VERSION_FILE:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes() if is_file else b"").digest())
    return digest.hexdigest()


def move(source: Path, target: Path) -> None:
    """Replace `target` by a finished file or folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    source.replace(target)


@contextmanager
def work_dir(stage: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield a stage's work folder, with its unfinished work.

    Its key is made of what the result follows from: `facts` (data and parameters, or a whole lineage) and the
    code of the stage, which may end in a hyphen and a part's name. The folder is removed when the block
    succeeds; those of other facts when nothing has touched them for `KEEP_DAYS`.
    """
    code = code_digest(code_folders(stage.partition("-")[0]))
    kept = {name: value for name, value in facts.items() if name not in NOT_IN_KEY}
    work = WORK / stage / fingerprint({**kept, "code": code})
    work.mkdir(parents=True, exist_ok=True)
    os.utime(work)
    for other in work.parent.iterdir():
        if _is_old(other):
            remove(other)
    yield work
    remove(work)


def code_folders(stage: str) -> list[Path]:
    """Return a stage's code in ``dvc.yaml``; the package if undeclared."""
    for pipeline in filter(Path.exists, PIPELINES):
        stages = read_yaml(pipeline)["stages"]
        if stage in stages:
            paths = [
                next(iter(path)) if isinstance(path, dict) else path for path in stages[stage].get("deps", ())
            ]
            return [Path(path) for path in paths if path.startswith("src/")]
    return [PACKAGE]


def code_digest(folders: Iterable[Path] = (PACKAGE,)) -> str:
    """Return a hash of all Python files in folders."""
    digest = hashlib.sha256()
    for folder in sorted(folders):
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


@contextmanager
def temporary_files() -> Iterator[Path]:
    """Keep temporary files of this process in ``.adpet/tmp``.

    The next start removes those whose process has ended on this machine, and old ones of other machines.
    """
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    for folder in TEMPORARY.iterdir():
        if _is_left_over(folder):
            remove(folder)
    prefix = f"{os.getpid()}-{platform.node()}-"
    own = Path(tempfile.mkdtemp(prefix=prefix, dir=TEMPORARY)).absolute()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = str(own), None
    try:
        yield own
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None
        remove(own)


def _is_left_over(folder: Path) -> bool:
    process, _, rest = folder.name.partition("-")
    if rest.rpartition("-")[0] != platform.node():
        return _is_old(folder)
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, for another user
        return False
    return False


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > KEEP_DAYS * 24 * 3600
