"""What a killed DVC leaves half-written is mended, and a whole file is not touched."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import psutil
import pytest
import yaml
from dvc.utils.serialize import dumps_yaml

from adpet.dvc_keeper import keep
from adpet.processes import is_running, locked

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


class Repository:
    """A folder with the files that DVC writes, which are kept while a process stands for DVC."""

    def __init__(self, root, dvc):
        self.root, self.lock, self.rwlock = root, root / "dvc.lock", root / ".dvc/tmp/rwlock"
        self.rwlock.parent.mkdir(parents=True)
        self._dvc = dvc
        self._ready = threading.Event()
        self._keeper = threading.Thread(target=keep, args=(root, dvc.pid), kwargs={"ready": self._ready.set})

    def begin(self, before):
        if before is not None:
            self.lock.write_bytes(before)
        self._keeper.start()
        assert self._ready.wait(PATIENCE_S)

    def wait(self):
        """Until it has looked at the files once more."""
        self._keeper.join(1.0)
        assert self._keeper.is_alive()

    def kill(self):
        self._dvc.kill()
        self._keeper.join(PATIENCE_S)
        assert not self._keeper.is_alive()


@pytest.fixture
def repository(tmp_path, dvc):
    return Repository(tmp_path / "project", dvc)


@pytest.mark.parametrize("before", [BEFORE, None])
@pytest.mark.parametrize("length", [0, 1, 40, len(BEFORE) - 50, len(BEFORE) - 9, len(AFTER) - 9])
def test_a_part_of_a_lock_file_gives_way_to_what_was_there(repository, before, length):
    repository.begin(before)
    repository.lock.write_bytes(AFTER[:length])
    repository.kill()
    assert (repository.lock.read_bytes() if repository.lock.exists() else None) == before
    assert {path.name for path in repository.root.iterdir()} == {".dvc"} | ({"dvc.lock"} if before else set())


def test_a_part_that_lacks_stages_is_one_too(repository):
    repository.begin(BEFORE)
    repository.lock.write_bytes(lock_file("ingest"))
    repository.kill()
    assert repository.lock.read_bytes() == BEFORE


def test_what_was_written_since_is_not_lost(repository):
    repository.begin(BEFORE)
    repository.lock.write_bytes(AFTER)
    repository.wait()
    repository.lock.write_bytes(lock_file("ingest", "split", "train", "evaluate")[:-9])
    repository.kill()
    assert repository.lock.read_bytes() == AFTER


def test_the_phantoms_lock_file_is_mended_too(repository):
    lock = repository.root / "data/simulated/dvc.lock"
    lock.parent.mkdir(parents=True)
    lock.write_bytes(lock_file("phantom"))
    repository.begin(BEFORE)
    lock.write_bytes(b"schema: '2.")
    repository.kill()
    assert lock.read_bytes() == lock_file("phantom")


@pytest.mark.parametrize("content", [BEFORE, AFTER])
def test_a_whole_file_stays(repository, content):
    repository.begin(BEFORE)
    repository.lock.write_bytes(content)
    inode = repository.lock.stat().st_ino
    repository.kill()
    assert repository.lock.read_bytes() == content
    assert repository.lock.stat().st_ino == inode


def test_another_file_that_git_has_put_there_stays(repository):
    repository.begin(BEFORE)
    other = repository.root / "other"
    other.write_bytes(lock_file("ingest"))
    other.replace(repository.lock)
    repository.kill()
    assert repository.lock.read_bytes() == lock_file("ingest")


@pytest.mark.parametrize(("content", "stays"), [(b"", False), (b'{"write": {"a', False), (b"{}", True)])
def test_a_part_of_an_rwlock_is_removed(repository, content, stays):
    repository.begin(BEFORE)
    repository.rwlock.write_bytes(content)
    repository.kill()
    assert repository.rwlock.exists() == stays


class TestRunCache:
    """What DVC takes from there brings no stage to run, and so nobody who would keep the lock files."""

    @pytest.fixture(params=[".dvc/cache", "../shared"])
    def keep_run(self, repository, request):
        if request.param == "../shared":
            (repository.root / ".dvc/config").write_text("[cache]\n    dir = ../../shared\n")

        def keep_run(name, command=None):
            stages = yaml.safe_load(lock_file(name))["stages"]
            path = repository.root / request.param / "runs/ab" / f"from {name}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dumps_yaml(stages[name] | ({"cmd": command} if command else {})))
            return path

        return keep_run

    def test_a_stage_that_stands_in_no_lock_file_yet_is_forgotten(self, repository, keep_run):
        earlier = keep_run("evaluate")
        os.utime(earlier, (0, 0))
        repository.begin(BEFORE)
        noted, unnoted = keep_run("split"), keep_run("train")
        others = keep_run("report", "make report")
        repository.lock.write_bytes(AFTER[:-9])
        repository.kill()
        assert repository.lock.read_bytes() == BEFORE
        assert (earlier.exists(), noted.exists(), others.exists()) == (True, True, True)
        assert not unnoted.parent.exists()  # DVC stumbles over one without runs

    @pytest.mark.parametrize("length", [0, 9, 60, 10_000])
    def test_what_dvc_had_begun_to_write_goes_with_its_folder_but_where_it_may_be_of_others(
        self, repository, keep_run, length
    ):
        repository.begin(BEFORE)
        whole = keep_run("split")
        part = whole.rename(whole.with_name(".ptnz1gNyFs_bbKouyHP-kw.tmp"))
        part.write_bytes(part.read_bytes()[:length])
        unnoted = keep_run("train")
        repository.kill()
        is_shared = "shared" in part.parts
        assert (part.exists(), part.parent.exists()) == (is_shared, is_shared)
        assert not unnoted.exists()

    def test_a_folder_without_any_run_goes_since_dvc_stumbles_over_it(self, repository, keep_run):
        repository.begin(BEFORE)
        run = keep_run("train")
        run.unlink()
        repository.kill()
        assert not run.parent.exists()

    def test_a_stage_that_was_noted_stays(self, repository, keep_run):
        repository.begin(BEFORE)
        noted = keep_run("train")
        repository.lock.write_bytes(AFTER)
        repository.kill()
        assert noted.exists()

    @pytest.mark.parametrize("keep_run", ["../shared"], indirect=True)
    def test_nothing_is_forgotten_where_the_project_has_gone(self, repository, keep_run):
        repository.begin(BEFORE)
        kept = keep_run("train")
        shutil.rmtree(repository.root / ".dvc")
        repository.kill()
        assert kept.exists()


def test_it_says_why_it_could_not_do_its_work(repository, dvc):
    (repository.root / ".dvc/config").write_text("[no config")
    command = [sys.executable, "-m", "adpet.dvc_keeper", str(dvc.pid), str(repository.root)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert "required DVC's configuration" in (repository.root / ".adpet/dvc_keeper.log").read_text()


def test_it_stays_where_the_stage_that_left_it_is_killed_before_it_is_ready(repository, dvc):
    repository.lock.write_bytes(BEFORE)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "adpet.dvc_keeper", str(dvc.pid), str(repository.root)]
    with subprocess.Popen(command, stdout=writing) as keeper:
        os.close(writing)
        while (
            keeper.poll() is None and psutil.Process(keeper.pid).num_threads() == 1
        ):  # it looks from then on
            time.sleep(0.05)
        repository.lock.write_bytes(b"schema: '2.")
        dvc.kill()
        assert keeper.wait(PATIENCE_S) == 0
    assert repository.lock.read_bytes() == BEFORE


def test_it_waits_for_another_dvc_that_has_the_lock(repository, dvc):
    repository.begin(BEFORE)
    repository.lock.write_bytes(b"schema: '2.")
    held = repository.rwlock.with_name("lock")
    held.touch()
    with locked(held):
        dvc.kill()
        repository.wait()
        assert repository.lock.read_bytes() == b"schema: '2."
    repository.kill()
    assert repository.lock.read_bytes() == BEFORE


# Runs two stages as DVC does, tells which processes were left, and is killed while it writes.
CUT_OFF = """
import json, os, signal, subprocess, sys
import psutil
environment = os.environ | {"DVC_STAGE": "fold@4", "DVC_ROOT": os.getcwd()}
for _ in range(2):
    subprocess.run(f"{sys.executable} -m adpet fold 4", shell=True, check=True, env=environment)
command = ["-m", "adpet.dvc_keeper", str(os.getpid())]
found = [one.pid for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[1:4] == command]
with open("keepers.json", "w") as file:
    json.dump(found, file)
with open("dvc.lock", "r+") as file:
    file.truncate(100)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_dvc_that_runs_stages_has_one_which_ends_after_it(project_root, repository):
    root, lock = repository.root, repository.lock
    shutil.copy(project_root / "params.yaml", root)
    lock.write_bytes(BEFORE)
    (root / "cut_off.py").write_text(CUT_OFF)
    environment = os.environ | {"PYTHONPATH": str(project_root / "src")}
    subprocess.run([sys.executable, "cut_off.py"], cwd=root, env=environment, check=False)
    (keeper,) = json.loads((root / "keepers.json").read_text())
    last = time.monotonic() + PATIENCE_S
    while is_running(keeper) and time.monotonic() < last:
        time.sleep(0.05)
    assert not is_running(keeper)
    assert lock.read_bytes() == BEFORE
