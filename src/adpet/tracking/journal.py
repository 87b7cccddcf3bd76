"""What a stage tells a run, on local disk first: lines of a journal, and copies of the files they name.

A session is what one process writes to one run between opening and leaving it: a folder of the outbox with

- ``journal.jsonl``, appended to and never changed; a line counts once its newline is there,
- ``files/``, what the lines name: an artifact in the folder of its SHA-256, a model in one of its own,
- ``state.json``, the store that has a part of it, up to which position, and the run's id there,
- ``refused.jsonl``, the lines that the store will not take, each with the reason; `REFUSED` keeps such a
  session when the rest is sent, and moved back to the outbox it is sent again from its beginning.

Names begin with the time, so that sessions are read in the order in which they began. Whoever writes a
session, or sends what a killed writer left, holds the lock of its journal: it goes with the process.
"""

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from adpet.errors import TrackingError
from adpet.paths import WORK
from adpet.processes import locked
from adpet.storage import PARTIAL_PREFIX, atomic_write, move, remove

OUTBOX = WORK / "outbox"
REFUSED = WORK / "refused"

_JOURNAL = "journal.jsonl"
_STATE = "state.json"
_REFUSED = "refused.jsonl"
_FILES = "files"

# A session's first line begins or continues a run, or adds to one that has finished; its last line ends
# it, unless the process was killed.
OPEN = "open"
ADD = "add"
END = "end"


@dataclass(frozen=True)
class RunKey:
    """What a run is found by, wherever it is: its kind, and the lineage of its result."""

    kind: str
    lineage: str


@dataclass(frozen=True)
class State:
    """How far a store has taken a session: a position in the journal, the run that it went to, the store."""

    position: int = 0
    run_id: str | None = None
    store: str | None = None


@dataclass(frozen=True)
class Glance:
    """What can be seen of a session without owning it: its name, its run, its first line.

    `store` names the one that has a part of it, or else the one that it was meant for; None stands for any.
    """

    name: str
    key: RunKey
    first: dict[str, Any]
    store: str | None


class Session:
    """One session in the outbox, locked by this process."""

    def __init__(self, folder: Path, journal: BinaryIO) -> None:
        self.folder = folder
        self._journal = journal
        self._written = _size(journal)
        self._writing = threading.Lock()
        self.ended = False
        self.first = _first(folder)
        self.key = _key(self.first)

    @property
    def name(self) -> str:
        """The folder's name, by which sessions are in order."""
        return self.folder.name

    def append(self, operation: str, **facts: Any) -> None:
        """Write one line; it is on the disk when this returns.

        Raises
        ------
        OSError
            Where the disk does not take all of it, such as a full one; then none of it is in the journal.
        """
        with self._writing:
            _write_line(self._journal, {"do": operation, "time": _now_ms(), **facts})
            self._written = _size(self._journal)
            self.ended = operation == END

    def keep(self, path: Path) -> str:
        """Copy a file into the session's folder of its SHA-256, and return that."""
        digest = file_digest(path)
        with self._writing, atomic_write(self.kept(digest) / path.name) as aside:
            shutil.copyfile(path, aside)
            synchronise(aside)
        for folder in (self.kept(digest), self.kept("")):
            synchronise(folder)
        return digest

    @contextmanager
    def folder_kept(self, name: str) -> Iterator[Path]:
        """Yield a folder to write to, which becomes one of the session's when it is whole."""
        with atomic_write(self.kept(name)) as aside:
            aside.mkdir()
            yield aside
            for path in (*aside.rglob("*"), aside):
                synchronise(path)
        synchronise(self.kept(""))

    def digests(self, name: str) -> dict[str, str]:
        """Return the SHA-256 of every file of a folder among the session's, by its path in there."""
        folder = self.kept(name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}

    def kept(self, name: str) -> Path:
        """Return a folder among the session's files."""
        return self.folder / _FILES / name

    def lines(self, position: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the lines on the disk from `position` on, each with the position behind it.

        One that is being written is none yet: it is taken back where the disk does not take it.
        """
        written = self._written
        return itertools.takewhile(lambda line: line[1] <= written, read_lines(self.folder, position))

    def state(self) -> State:
        """Return how far the store has taken the session."""
        return _state(self.folder)

    def confirm(self, state: State) -> None:
        """Note that the store has taken the lines up to a position, before anything else is sent."""
        with atomic_write(self.folder / _STATE) as aside:
            aside.write_text(json.dumps(asdict(state)))
            synchronise(aside)

    def refuse(self, lines: Sequence[Mapping[str, Any]], reason: str) -> None:
        """Note lines that the store will not take, and why."""
        with (self.folder / _REFUSED).open("ab", buffering=0) as refused:
            for line in lines:
                _write_line(refused, {"refused": reason, **line})

    def refused(self) -> list[str]:
        """Return why the store will not take some lines, a reason for each of them."""
        if not (self.folder / _REFUSED).exists():
            return []
        return [line["refused"] for line, _ in read_lines(self.folder, 0, _REFUSED)]

    def rewind(self) -> None:
        """Forget what a store has taken and refused, so that all is sent again from the beginning."""
        for name in (_STATE, _REFUSED):
            (self.folder / name).unlink(missing_ok=True)

    def set_aside(self, place: Path) -> Path:
        """Move the session out of the outbox to another folder, and return where it is."""
        with locked(self.folder.parent):
            (self.folder / _STATE).unlink(missing_ok=True)  # moved back, it is sent from its beginning
            move(self.folder, place / self.name)
        return place / self.name

    def remove(self) -> None:
        """Remove the session: out of the outbox first, so that a kill leaves no half of it there."""
        with locked(self.folder.parent):
            remove(self.folder.rename(self.folder.with_name(PARTIAL_PREFIX + self.name)))

    def release(self) -> None:
        """Let other processes have the session."""
        self._journal.close()


def begin(outbox: Path, **first: Any) -> Session:
    """Begin a session with its first line, which names `kind` and `lineage`; this process owns it."""
    outbox.mkdir(parents=True, exist_ok=True)
    with locked(outbox), ExitStack() as opened:
        stamp = max(time.time_ns(), *(int(name.partition("-")[0]) + 1 for name in names(outbox)), 0)
        folder = outbox / f"{stamp:020d}-{first['kind']}-{first['lineage'][:20]}"
        with atomic_write(folder) as aside:
            aside.mkdir()
            journal = opened.enter_context((aside / _JOURNAL).open("ab", buffering=0))
            fcntl.flock(journal, fcntl.LOCK_EX)
            _write_line(journal, {"time": _now_ms(), **first})
            synchronise(aside)
        synchronise(outbox)
        opened.pop_all()
    return Session(folder, journal)


def names(outbox: Path) -> list[str]:
    """Return the names of the sessions in the outbox, in the order in which they began."""
    if not outbox.is_dir():
        return []
    return sorted(path.name for path in outbox.iterdir() if path.name[:1].isdigit())


def claim(outbox: Path, name: str) -> Session | None:
    """Return a session whose process has ended, now owned by this one; None where another process has it."""
    with suppress(FileNotFoundError, BlockingIOError), ExitStack() as opened:
        journal = opened.enter_context((outbox / name / _JOURNAL).open("ab", buffering=0))
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (outbox / name / _JOURNAL).exists():  # else another process has sent and removed it
            session = Session(outbox / name, journal)
            opened.pop_all()
            return session
    return None


def glance(outbox: Path, name: str) -> Glance | None:
    """Return what can be seen of a session; None where it was sent and removed in this moment.

    Raises
    ------
    TrackingError
        If it cannot be read.
    """
    folder = outbox / name
    try:
        first = _first(folder)
        return Glance(name, _key(first), first, _state(folder).store or first.get("store"))
    except FileNotFoundError:
        return None
    except (OSError, KeyError) as error:
        raise _damaged(folder, error) from error


def unsent(outbox: Path, name: str) -> int:
    """Return how many lines of a session the store has not taken yet."""
    folder = outbox / name
    try:
        with (folder / _JOURNAL).open("rb") as journal:
            journal.seek(_state(folder).position)
            return sum(line.endswith(b"\n") for line in journal)
    except FileNotFoundError:  # sent and removed in this moment
        return 0


def run_id(outbox: Path, name: str) -> str | None:
    """Return the run in the store that a session goes to, once it is known."""
    return _state(outbox / name).run_id


def read_lines(folder: Path, position: int, name: str = _JOURNAL) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what a session's journal holds from `position` on; a line that a kill cut off is none.

    Raises
    ------
    TrackingError
        At a line that is no JSON.
    """
    with (folder / name).open("rb") as journal:
        journal.seek(position)
        for line in journal:
            if not line.endswith(b"\n"):
                return
            position += len(line)
            try:
                facts = json.loads(line)
            except ValueError as error:
                raise _damaged(folder, error) from error
            yield facts, position


def clean(outbox: Path) -> None:
    """Remove what killed processes left of sessions that they began or removed."""
    if not outbox.is_dir():
        return
    with locked(outbox):
        for path in outbox.glob(f"{PARTIAL_PREFIX}*"):
            remove(path)


def file_digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synchronise(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk: a power cut must not take them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_line(journal: BinaryIO, facts: Mapping[str, Any]) -> None:
    """Append one line to an unbuffered file, or nothing: a full disk takes the beginning of a line."""
    line = f"{json.dumps(facts, ensure_ascii=False)}\n".encode()
    before = _size(journal)
    try:
        while line:
            line = line[journal.write(line) :]
        os.fsync(journal.fileno())
    except OSError:
        os.ftruncate(journal.fileno(), before)
        raise


def _size(journal: BinaryIO) -> int:
    return os.fstat(journal.fileno()).st_size


def _first(folder: Path) -> dict[str, Any]:
    """Return a session's first line."""
    for facts, _ in read_lines(folder, 0):
        return facts
    raise _damaged(folder, EOFError("its first line is not whole"))


def _key(first: dict[str, Any]) -> RunKey:
    return RunKey(first["kind"], first["lineage"])


def _damaged(folder: Path, error: Exception) -> TrackingError:
    return TrackingError(f"{folder / _JOURNAL}: required whole lines of JSON, but it is damaged: {error}")


def _state(folder: Path) -> State:
    """Return how far a session is; one that cannot be read is sent again, which changes nothing."""
    try:
        return State(**json.loads((folder / _STATE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return State()


def _now_ms() -> int:
    return int(time.time() * 1000)
