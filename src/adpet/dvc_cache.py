"""DVC's cache: where it lies, what it has of the raw scans, and how to get the rest.

The cache keeps a file by its MD5, and of a folder a list of its files, ``.dir``.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adpet.errors import InputError
from adpet.storage import read_json

_MD5 = re.compile(r"[0-9a-f]{32}")


def cache_folder(root: Path = Path()) -> Path:
    """Return where DVC's cache of a project lies.

    Raises
    ------
    InputError
        Where there is no DVC project, or its configuration cannot be read.
    """
    from dvc.config import Config, ConfigError

    configured = root / ".dvc"
    if not configured.is_dir():
        raise InputError("required a DVC project in the present folder; received none; run: dvc init")
    try:
        cache = Config(dvc_dir=str(configured))["cache"]
    except ConfigError as error:
        raise InputError(f"{configured}: required DVC's configuration; received: {error}; mend it") from error
    return Path(cache.get("dir", configured / "cache")).resolve()


def files_in_cache(cache: Path, digest: str) -> dict[str, Path] | None:
    """Return where DVC's cache keeps each file of a folder, by its name in there; None without their list.

    The list may be there without the files, as an interrupted ``dvc fetch`` leaves it.

    Raises
    ------
    InputError
        Where the list is none of DVC's.
    """
    listing = _cached(cache, digest)
    if not listing.exists():
        return None
    entries = read_json(listing)
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise InputError(
            f"{listing}: required DVC's list of a folder's files; received other JSON; remove it, and run: "
            "dvc fetch --all-commits"
        )
    return {entry["relpath"]: _cached(cache, entry["md5"]) for entry in entries}


def lacking(files: Mapping[str, Path] | None, raw: str) -> str:
    """Say which of a folder's files are not in DVC's cache, and how to get them; nothing where all are."""
    if files is None:
        return f"not in the DVC cache; {how_to_get(raw)}"
    gone = sum(not place.exists() for place in files.values())
    return f"{gone} of {len(files)} files are missing in the DVC cache; {how_to_get(raw)}" if gone else ""


def how_to_get(raw: str) -> str:
    """Return the commands that bring raw scans into DVC's cache, of every version that git knows."""
    fetch = f"get them with: dvc fetch --all-commits {shlex.quote(raw)}"
    if not dvc_file(raw).exists():
        return fetch
    add = f"dvc add {shlex.quote(raw)}"
    return f"{fetch}; where they are not in the remote, copy them to {raw} and run: {add}"


def dvc_file(raw: str) -> Path:
    """Return the file by which DVC knows a folder that no stage writes."""
    return Path(f"{Path(raw)}.dvc")


def _cached(cache: Path, digest: str) -> Path:
    """Return where DVC's cache keeps what has a digest; of a folder, ``.dir``, its list."""
    return cache / "files" / "md5" / digest[:2] / digest[2:]


def _is_entry(entry: Any) -> bool:
    """Say whether it is a file in DVC's list of a folder."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("relpath"), str)
        and _MD5.fullmatch(str(entry.get("md5"))) is not None
    )
