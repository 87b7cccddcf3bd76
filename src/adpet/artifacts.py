"""Where every artifact of the pipeline lies, and how it is written: aside first, then renamed.

All paths are relative to the project's root, where ``dvc.yaml`` lies and where stages run.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Prefix of what is being written: a reader ignores it, the next writer replaces it.
PARTIAL_PREFIX = ".partial-"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
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
        os.replace(aside, path)
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
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON that ends in a newline; NaN is refused."""
    with written_aside(path) as aside:
        aside.write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with any of `facts` (JSON values)."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
