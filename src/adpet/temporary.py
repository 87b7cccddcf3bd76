"""Temporary files of running stages, and what killed ones leave of them."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adpet.paths import SCANS, SIMULATED_RAW, SPLIT, TUNE, WORK
from adpet.processes import is_running, lock, locked
from adpet.storage import remove

# Temporary files of running stages, a folder a process.
TEMPORARY = WORK / "tmp"
# Where Linux shows the semaphores of processes, which outlive them.
SHARED = Path("/dev/shm")  # noqa: S108 - nothing is written there
# The names of DVC's temporary files; of those that it tries links by, the seconds after which none is in use.
DVC_TEMPORARY = f".{22 * '[A-Za-z0-9_-]'}.tmp"
DVC_LINK_S = 1.0


@contextmanager
def temporary_files() -> Iterator[int]:
    """Keep what this process, its libraries and its workers put into temporary files in a folder of its own.

    It is locked by the process: a killed one leaves it, and the next one removes it, with the semaphores that
    joblib's workers shared, and the links that DVC was trying.

    Yields
    ------
    own_lock : int
        The descriptor of the lock: a child that inherits it keeps the folder for as long as it runs.
    """
    for folder in (SIMULATED_RAW.parent, SCANS.parent, SPLIT.parent, TUNE.parent, *TUNE.parent.glob("*/")):
        _remove_links_tried(folder)
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with locked(TEMPORARY):
        for left in TEMPORARY.iterdir():
            _remove_unless_locked(left)
        own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=TEMPORARY)).absolute()
        own_lock = lock(own)
    # joblib has a place of its own for large arrays, which its workers share.
    variables = ("TMPDIR", "JOBLIB_TEMP_FOLDER")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, str(own)))
    tempfile.tempdir = None
    try:
        yield own_lock
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None
        remove(own)
        os.close(own_lock)


def semaphores_of(process: int | str) -> list[Path]:
    """Return the semaphores that joblib has made for the workers of a process, by its number."""
    return list(SHARED.glob(f"sem.loky-{process}-*"))


def _remove_links_tried(folder: Path) -> None:
    """Remove the links that a killed DVC left: beside an output it tries, for a moment, which kinds work."""
    for left in folder.glob(DVC_TEMPORARY):
        with suppress(FileNotFoundError):  # DVC has removed it meanwhile
            if time.time() - left.lstat().st_mtime > DVC_LINK_S:
                left.unlink()


def _remove_unless_locked(folder: Path) -> None:
    try:
        its_lock = lock(folder, wait=False)
    except BlockingIOError:  # its process lives
        return
    process = folder.name.partition("-")[0]
    if process.isdecimal() and not is_running(int(process)):  # nor has another one its number
        for semaphore in semaphores_of(process):
            remove(semaphore)
    remove(folder)
    os.close(its_lock)
