"""Mend what a killed DVC has left half-written, before the next ``dvc repro`` reads it.

DVC writes its lock files and ``.dvc/tmp/rwlock`` in their place. Killed in such a moment it leaves a part,
which no DVC reads any more, or which lacks stages, and nothing of this project runs before DVC has read them.
So the first stage leaves a process behind, which knows the lock files as they were and outlives DVC.

A stage that DVC has kept in its run cache, but not yet noted in a lock file, would be taken from there the
next time: no stage would run, and so nobody would watch over the lock files. It is forgotten, and runs again.
"""

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from adpet.dvc_cache import cache_folder
from adpet.paths import SIMULATED_RAW, WORK
from adpet.processes import is_running, locked
from adpet.storage import atomic_write
from adpet.temporary import DVC_TEMPORARY

LOOK_S = 0.05
# Where it says why it could not do its work: nobody reads what it prints.
COMPLAINTS = WORK / "dvc_keeper.log"

# The command line of the process, after Python's own.
KEEPER = ["-m", "adpet.dvc_keeper"]


class Content(NamedTuple):
    """What a file holds, and which one it is: DVC writes a file in its place, git puts another there."""

    inode: int
    text: bytes


Files = dict[Path, Content | None]


def leave_keeper() -> None:
    """Leave the process behind, where this one is a stage that DVC runs, and DVC has none yet."""
    if "DVC_STAGE" not in os.environ:
        return
    ours = "-m adpet"  # and the shell's, in which DVC runs a stage
    try:
        dvc = next(one for one in psutil.Process().parents() if ours not in " ".join(one.cmdline()))
        command = [*KEEPER, str(dvc.pid)]
        if any((one.info["cmdline"] or [])[1:4] == command for one in psutil.process_iter(["cmdline"])):
            return
    except psutil.Error:  # DVC is gone already
        return
    # A short stage might be over before the process has seen what there was: wait for its word.
    reading, writing = os.pipe()
    subprocess.Popen(
        [sys.executable, *command, os.environ["DVC_ROOT"]],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(writing)
    if not os.read(reading, 1):
        print(f"adpet: nobody keeps dvc.lock whole if DVC is killed now; see {COMPLAINTS}", file=sys.stderr)
    os.close(reading)


def keep(root: Path, dvc: int, *, ready: Callable[[], object] = lambda: None) -> None:
    """Wait until DVC has ended; then put back lock files of which a part is left, and remove such an rwlock.

    Stages that DVC has run meanwhile, and not noted in a lock file, are removed from its run cache.

    Parameters
    ----------
    root : Path
        The repository's root.
    dvc : int
        DVC's process.
    ready : callable, optional
        Called when it knows the lock files.
    """
    locks = [root / "dvc.lock", root / SIMULATED_RAW.parent / "dvc.lock"]
    known, begun = _contents(locks), time.time()
    ready()
    cache = cache_folder(root)
    ended = threading.Event()
    with ExitStack() as held:
        # Beside the looking, which takes long on a busy machine: the next DVC is soon there.
        watcher = threading.Thread(target=_lock_when_ended, args=(root / ".dvc/tmp", dvc, held, ended))
        watcher.start()
        while not ended.wait(LOOK_S):
            for lock, content in _contents(locks).items():
                # Others may write them too: another DVC, or git.
                if content != known[lock] and is_whole(content, than=known[lock]):
                    known[lock] = content
        for lock, content in _contents(locks).items():
            if content != known[lock] and not is_whole(content, than=known[lock]):
                _put_back(lock, known[lock])
        _remove_unless_json(root / ".dvc/tmp/rwlock")
        if (root / ".dvc").exists():  # an experiment's folder is removed when it has ended
            is_own = cache.is_relative_to(root.resolve())
            _mend_run_cache(cache / "runs", _contents(locks), since=begun, is_own=is_own)


def _lock_when_ended(folder: Path, dvc: int, held: ExitStack, ended: threading.Event) -> None:
    """Wait for DVC's end, and then lock as DVC does, so that the next one waits until all is mended."""
    try:
        while is_running(dvc):
            time.sleep(LOOK_S)
        for file in (folder / "lock", folder / "rwlock.lock"):
            if file.exists():
                held.enter_context(locked(file))
    finally:
        ended.set()


def is_whole(content: Content | None, *, than: Content | None) -> bool:
    """Say whether it is a lock file that DVC reads, with all stages of an earlier one in its place."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    if content is None:
        return True
    try:
        document = _loaded(content.text)
        COMPILED_LOCKFILE_SCHEMA(document)
    except (yaml.YAMLError, Invalid):
        return False
    if not content.text.endswith(b"\n"):
        return False
    if than is None or than.inode != content.inode:
        return True
    return set(_loaded(than.text).get("stages", {})) <= set(document.get("stages", {}))


def _loaded(text: bytes) -> Any:
    # The next `dvc repro` may be on its way: in Python alone this takes half a second.
    return yaml.load(text, yaml.CSafeLoader)


def _put_back(lock: Path, content: Content | None) -> None:
    if content is None:
        lock.unlink(missing_ok=True)
        return
    with atomic_write(lock) as aside:
        aside.write_bytes(content.text)


def _remove_unless_json(path: Path) -> None:
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        path.unlink()


def _mend_run_cache(runs: Path, locks: Files, *, since: float, is_own: bool) -> None:
    """Remove the stages that came to the run cache since then and stand in no lock file.

    And what DVC had begun to write there, with folders in which nothing is left: DVC expects a run in each.
    Of a cache that others use too, those may be theirs.
    """
    noted = [
        _made(stage)
        for content in locks.values()
        if content is not None
        for stage in _loaded(content.text).get("stages", {}).values()
    ]
    for folder in runs.glob("*/*"):
        for path in folder.iterdir():
            stage = _run(path, since=since)
            is_ours = stage is not None and "-m adpet " in str(stage["cmd"])
            if (is_ours and _made(stage) not in noted) or (is_own and fnmatch(path.name, DVC_TEMPORARY)):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _run(path: Path, *, since: float) -> Any:
    """Return a stage of the run cache; None of an earlier one, or of a part."""
    from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
    from voluptuous import Invalid

    try:
        if path.stat().st_mtime < since:
            return None
        return COMPILED_LOCK_FILE_STAGE_SCHEMA(_loaded(path.read_bytes()))
    except (FileNotFoundError, yaml.YAMLError, Invalid):
        return None


def _made(stage: dict[str, Any]) -> tuple[str, dict[str, str | None]]:
    """Return a stage's command, and the digests of its outputs."""
    return stage["cmd"], {out["path"]: out.get("md5") for out in stage.get("outs", [])}


def _contents(paths: Iterable[Path]) -> Files:
    return {path: _content(path) for path in paths}


def _content(path: Path) -> Content | None:
    try:
        with path.open("rb") as file:
            return Content(os.fstat(file.fileno()).st_ino, file.read())
    except FileNotFoundError:
        return None


def _say_ready() -> None:
    with suppress(BrokenPipeError):  # the stage was killed meanwhile, but its DVC lives
        os.write(sys.stdout.fileno(), b"\n")


if __name__ == "__main__":
    project = Path(sys.argv[2])
    try:
        (project / WORK).mkdir(exist_ok=True)
        keep(project, int(sys.argv[1]), ready=_say_ready)
    except Exception:
        with (project / COMPLAINTS).open("a", encoding="utf-8") as complaints:
            traceback.print_exc(file=complaints)
        raise
