"""Open and hash the files of scans, many at a time in processes; what was read before is not read again.

A file counts as the one that was read while its path, size, time of change and inode are the same: the
evidence by which DVC knows a file too. Every process imports this module, so it is a light one.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from adpet.artifacts import written_aside
from adpet.errors import InputError
from adpet.imaging import header, volume
from adpet.imaging.volume import read_header, scan_files
from adpet.workers import map_in_processes

# So many files are handed to a process at once: fewer cost time in handing over, more leave a process idle
# at the end. Up to so many are read in this process, which is quicker than starting others.
BATCH_FILES = 32
# Blocks that stay in a processor's cache between being read and being hashed.
BLOCK_BYTES = 2**18
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Contents:
    """What is in a scan's file: the number of frames, and the SHA-256 of its bytes (see `content_hash`)."""

    n_frames: int
    sha256: str


@dataclass(frozen=True)
class Unreadable:
    """Why a scan's file cannot be used, in words for who keeps the scans."""

    reason: str


def read_contents(
    files: Sequence[Path], *, workers: int = 1, notes: Path | None = None
) -> Iterator[Contents | Unreadable]:
    """Open and hash every file, and yield what is in it, in order.

    Parameters
    ----------
    files : sequence of Path
        Scans as `read_header` takes them.
    workers : int
        Processes; they do not change any result.
    notes : Path, optional
        Where earlier calls have noted what they read, and this one does. A line is added as soon as a scan
        is read, so that a killed call continues. What other code has noted, and what cannot be understood,
        counts for nothing, and is forgotten as are other files.
    """
    evidence = [_evidence(file) for file in files]
    noted = {} if notes is None else _read_notes(notes)
    known = [noted.get(now) for now in evidence]
    unknown = [file for file, contents in zip(files, known, strict=True) if contents is None]
    batches = [unknown[start : start + BATCH_FILES] for start in range(0, len(unknown), BATCH_FILES)]
    fresh = chain.from_iterable(map_in_processes(_read_batch, batches, workers=workers))
    still = {now: contents for now, contents in zip(evidence, known, strict=True) if contents}
    with _noting(notes, still) as note:
        for now, contents in zip(evidence, known, strict=True):
            outcome = contents or next(fresh)
            # Damage is looked at again each time: it may have been the disk's or the network's.
            if contents is None and now and isinstance(outcome, Contents):
                note(now, outcome)
            yield outcome


def content_hash(file: Path) -> str:
    """Return the SHA-256 of a scan's bytes: of a file, both of a pair, or all frames of a folder."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(BLOCK_BYTES))
    for part in scan_files(file):
        with part.open("rb", buffering=0) as stream:
            while size := stream.readinto(block):
                digest.update(block[:size])
    return digest.hexdigest()


def _read_batch(files: Sequence[Path]) -> list[Contents | Unreadable]:
    return [_read(file) for file in files]


def _read(file: Path) -> Contents | Unreadable:
    """Open and hash one file."""
    try:
        return Contents(read_header(file).n_frames, content_hash(file))
    except InputError as error:
        return Unreadable(str(error).removeprefix(f"{file}: "))
    except (OSError, RuntimeError, ValueError) as error:
        # No permission, a link that leads to itself, a disk that fails.
        return Unreadable(" ".join(f"cannot be read: {error}".split()))


def _evidence(file: Path) -> str:
    """Return what changes with a scan's files: path, and name, size, time of change and inode of each.

    Nothing where a file is not there.
    """
    try:
        found = [(part.name, os.stat(part)) for part in scan_files(file)]  # noqa: PTH116 - half Path's time
    except OSError:
        return ""
    return json.dumps([str(file), *([name, st.st_size, st.st_mtime_ns, st.st_ino] for name, st in found)])


@contextmanager
def _noting(notes: Path | None, still: Mapping[str, Contents]) -> Iterator[Callable[[str, Contents], object]]:
    """Let only what is known `still` stand in the notes, and yield what adds a scan to them at once."""
    if notes is None:
        yield lambda _evidence, _contents: None
        return
    with written_aside(notes) as aside:
        lines = "".join(_line(evidence, contents) for evidence, contents in still.items())
        aside.write_text(f"{_code()}\n{lines}", encoding="utf-8")
    # Each line goes to the file when it ends, so that a killed call loses none.
    with notes.open("a", encoding="utf-8", buffering=1) as stream:
        yield lambda evidence, contents: stream.write(_line(evidence, contents))


def _read_notes(notes: Path) -> dict[str, Contents]:
    """Return what was noted by evidence; nothing where other code has noted it."""
    try:
        code, *lines = notes.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {} if code != _code() else dict(filter(None, map(_noted, lines)))


def _noted(line: str) -> tuple[str, Contents] | None:
    """Return what a line says; nothing where it is no whole one."""
    match line.split("\t"):
        case [evidence, n_frames, sha256] if n_frames.isdecimal() and SHA256.fullmatch(sha256):
            return evidence, Contents(int(n_frames), sha256)
    return None


def _line(evidence: str, contents: Contents) -> str:
    # JSON in ASCII holds neither tabs nor ends of lines.
    return f"{evidence}\t{contents.n_frames}\t{contents.sha256}\n"


@cache
def _code() -> str:
    """Return a hash of all that decides what a file is taken for: this module, imaging, and nibabel."""
    digest = hashlib.sha256(version("nibabel").encode())
    for source in (__file__, str(volume.__file__), str(header.__file__)):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()
