"""What a killed DVC leaves of its lock file is put back, and a whole file is not touched."""

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from dvc.utils.serialize import dumps_yaml

from adpet.dvc_lock import keep

PATIENCE_S = 60
DIGEST = "d41d8cd98f00b204e9800998ecf8427e"


def lock_file(*names):
    stages = {
        name: {
            "cmd": f"python -m adpet {name}",
            "outs": [{"path": f"results/{name}", "hash": "md5", "md5": DIGEST}],
        }
        for name in names
    }
    return dumps_yaml({"schema": "2.0", "stages": stages}).encode()


BEFORE, AFTER = lock_file("ingest", "split"), lock_file("ingest", "split", "train")


@pytest.fixture
def dvc():
    """A process that stands for DVC."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "dvc.lock"


@pytest.fixture
def keeper(lock, dvc):
    """What waits for the entry `train` in a thread, until DVC is killed."""
    lock.write_bytes(BEFORE)
    thread = threading.Thread(target=keep, args=(lock, "train"), kwargs={"before": BEFORE, "dvc": dvc.pid})
    thread.start()
    yield thread
    dvc.kill()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("before", [BEFORE, b""])
@pytest.mark.parametrize("length", [0, 1, 40, len(BEFORE) - 50, len(BEFORE) - 9, len(AFTER) - 9])
def test_a_part_that_a_killed_dvc_has_left_gives_way_to_what_was_there(lock, dvc, before, length):
    dvc.kill()
    lock.write_bytes(AFTER[:length])
    keep(lock, "train", before=before, dvc=dvc.pid)
    assert (lock.read_bytes() if lock.exists() else b"") == before
    assert list(lock.parent.iterdir()) == ([lock] if before else [])


@pytest.mark.parametrize("content", [BEFORE, AFTER, lock_file("ingest", "split", "fold@1")])
def test_a_whole_file_stays(lock, dvc, content):
    dvc.kill()
    lock.write_bytes(content)
    keep(lock, "train", before=BEFORE, dvc=dvc.pid)
    assert lock.read_bytes() == content


def test_it_ends_when_the_entry_is_written(lock, keeper):
    lock.write_bytes(AFTER)
    keeper.join(PATIENCE_S)
    assert not keeper.is_alive()


def test_it_waits_on_when_another_dvc_writes_another_entry_which_is_not_lost(lock, dvc, keeper):
    others = lock_file("ingest", "split", "fold@1")
    lock.write_bytes(others)
    keeper.join(1.0)
    assert keeper.is_alive()
    lock.write_bytes(AFTER[: len(AFTER) // 2])
    dvc.kill()
    keeper.join(PATIENCE_S)
    assert lock.read_bytes() == others


# Runs a stage as DVC does, and is killed while it writes.
CUT_OFF = """
import os, signal, subprocess, sys
environment = os.environ | {"DVC_STAGE": "fold@4", "DVC_ROOT": os.getcwd()}
subprocess.run(f"{sys.executable} -m adpet fold 4", shell=True, check=True, env=environment)
with open("dvc.lock", "r+") as file:
    file.truncate(100)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_stage_that_dvc_runs_sees_to_it(project_root, lock):
    shutil.copy(project_root / "params.yaml", lock.parent)
    lock.write_bytes(BEFORE)
    environment = os.environ | {"PYTHONPATH": str(project_root / "src")}
    (lock.parent / "cut_off.py").write_text(CUT_OFF)
    subprocess.run([sys.executable, "cut_off.py"], cwd=lock.parent, env=environment, check=False)
    last = time.monotonic() + PATIENCE_S
    while lock.read_bytes() != BEFORE and time.monotonic() < last:
        time.sleep(0.05)
    assert lock.read_bytes() == BEFORE
