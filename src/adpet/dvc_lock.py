"""Put DVC's lock file back where a killed DVC has left a part of it.

DVC writes ``dvc.lock`` in its place after each stage. Killed in that moment it leaves a part, which no DVC
reads any more, or which lacks stages, and nothing of this project runs before the next ``dvc repro``
reads it. So a stage leaves a process behind, which knows the file as it was, outlives DVC, and ends when the
file is written.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from adpet.artifacts import remove, written_aside

LOOK_S = 0.05


def leave_keeper() -> None:
    """Leave that process behind, where this one is a stage that DVC runs, and is about to end."""
    address = os.environ.get("DVC_STAGE")
    if address is None:
        return
    ours = "-m adpet"  # and the shell's, in which DVC runs a stage
    try:
        dvc = next(one for one in psutil.Process().parents() if ours not in " ".join(one.cmdline()))
        folder = Path(dvc.cwd())
    except psutil.Error:  # DVC is gone already, and with it what it would have written
        return
    file, _, stage = address.rpartition(":")
    lock = (folder / file).with_name("dvc.lock") if file else folder / "dvc.lock"
    with tempfile.TemporaryFile() as before:
        before.write(_content(lock))
        before.seek(0)
        subprocess.Popen(
            [sys.executable, "-m", "adpet.dvc_lock", str(dvc.pid), str(lock), stage],
            stdin=before, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def keep(lock: Path, stage: str, *, before: bytes, dvc: int) -> None:
    """Wait until DVC has written a stage's entry, or has ended; then put the file back if a part is left.

    Parameters
    ----------
    lock : Path
    stage : str
        The entry's name.
    before : bytes
        What the file was when the stage ended; nothing where there was no file.
    dvc : int
        The process that writes it.
    """
    seen = whole = before
    ended = False
    while not ended:
        ended = not _runs(dvc)
        content = _content(lock)
        if content != seen and is_whole(content, stages=_stages(whole)):
            if _stages(content).get(stage) != _stages(whole).get(stage):
                return
            whole = content  # with another stage, which another DVC has run
        seen = content
        time.sleep(LOOK_S)
    if not whole:
        remove(lock)
    elif seen != whole:
        with written_aside(lock) as aside:
            aside.write_bytes(whole)


def is_whole(content: bytes, *, stages: dict[str, Any]) -> bool:
    """Say whether it is a lock file that DVC reads, and has all of these stages."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        document = _loaded(content)
        COMPILED_LOCKFILE_SCHEMA(document)
    except (yaml.YAMLError, Invalid):
        return False
    return content.endswith(b"\n") and set(stages) <= set(document.get("stages", {}))


def _stages(whole: bytes) -> dict[str, Any]:
    return dict(_loaded(whole).get("stages", {})) if whole else {}


def _loaded(content: bytes) -> Any:
    # The next `dvc repro` may be on its way: in Python alone this takes half a second.
    return yaml.load(content, yaml.CSafeLoader)


def _content(lock: Path) -> bytes:
    try:
        return lock.read_bytes()
    except FileNotFoundError:
        return b""


def _runs(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    keep(Path(sys.argv[2]), sys.argv[3], before=sys.stdin.buffer.read(), dvc=int(sys.argv[1]))
