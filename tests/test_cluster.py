"""Scans on Dask's workers: bytes are those of one process, and a killed worker loses and doubles no scan."""

import math
import os
import re
import shutil
import signal
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from programs import run_code
from servers import free_port, running

from adpet import cluster
from adpet.cluster import AHEAD, _call_there, clusters
from adpet.commands import predict
from adpet.errors import AdpetError, InputError
from adpet.parallel import map_in_processes
from adpet.paths import INGEST_NOTES
from adpet.storage import code_digest

# What the four stages make scan by scan, or of that.
MADE = [
    "data/interim/scans.csv", "data/interim/alignment.csv", "data/interim/volumes", "data/processed/slices",
    "results/explain/volumes", "results/explain/groups", "results/explain/cam.json",
]  # fmt: skip
# A queue of this machine: a job is a process, and its number the job's.
SBATCH = """\
#!/bin/sh
job=$(mktemp "$QUEUE/job-XXXX")
cp "$1" "$job"
setsid sh "$job" >"$job.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """\
#!/bin/sh
kill -- "-$1"; echo "$1" >>"$QUEUE/cancelled"
"""
PROGRAM = """
import math
from adpet.cluster import clusters, slurm_cluster
from adpet.parallel import map_in_processes

with clusters:
    print(*map_in_processes(math.factorial, range(9), workers=3, cluster="slurm"))
with slurm_cluster() as cluster:
    print(cluster.job_script())
"""
# As docs/cluster.md has it, on loopback.
JOBS = """\
jobqueue:
  slurm:
    queue: short
    account: memory-clinic
    cores: 2
    memory: 6GB
    walltime: "02:00:00"
    interface: lo
"""


@contextmanager
def dask(kind, folder, *arguments, ready, env=None):
    """Run a scheduler or a worker in a folder of its own; yield it and its log."""
    log = folder / f"{kind}-{len(list(folder.iterdir()))}.log"
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *arguments]
    with running(command, log, lambda: ready in log.read_text(), cwd=folder, env=env) as process:
        yield process, log.read_text()


@pytest.fixture
def two_workers(tmp_path_factory):
    """Start a scheduler and two workers, which are nowhere near the project; return its address and them."""
    with ExitStack() as ends:

        def start(env=None):
            def run(*arguments, **options):
                return ends.enter_context(dask(*arguments, env=env, **options))

            folder = tmp_path_factory.mktemp("dask")
            scheduler, log = run("scheduler", folder, "--host=127.0.0.1", "--port=0", ready="Scheduler at")
            address = re.search(r"tcp://127\.0\.0\.1:\d+", log)[0]
            worker = ("worker", folder, address, "--nthreads=1", "--no-nanny", f"--local-directory={folder}")
            return address, scheduler, [run(*worker, ready="Registered to")[0] for _ in range(2)]

        yield start


@pytest.fixture
def ends():
    """Whatever a test starts in this process ends with it."""
    with clusters:
        yield


@pytest.mark.server
def test_stages_give_the_bytes_of_one_process_though_a_worker_is_killed(copied, two_workers):
    before = copied.content(MADE)
    for place in (copied.root / path for path in (*MADE, INGEST_NOTES)):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    address, _, (worker, _) = two_workers(copied.environment())
    copied.set_params({"compute.cluster": address})
    copied.adpet("ingest")
    stage = copied.start(sys.executable, "-m", "adpet", "normalize")
    while not next((copied.root / ".adpet/normalize").glob("*/volumes/*.nii"), None):
        assert stage.poll() is None, stage.communicate()
        time.sleep(0.005)
    worker.send_signal(signal.SIGKILL)
    assert stage.poll() is None
    shown = stage.communicate()
    assert stage.returncode == 0, shown
    copied.adpet("slice")
    copied.adpet("explain")
    assert copied.content(MADE) == before


@pytest.mark.server
def test_folder_is_predicted_as_in_one_process(begin, small_export, small_scans, two_workers, tmp_path):
    project = begin(tmp_path / "project")
    address, *_ = two_workers(project.environment())
    command = ["predict", str(small_scans[0].parent), "--model", str(small_export), "--output"]
    here = project.adpet(*command, "here")
    files = list(project.content(["here"]).values())
    for folder, options in (("two", ("--workers", "2")), ("there", ("--cluster", address))):
        done = project.adpet(*command, folder, *options)
        assert done.stdout.replace(f"{folder}/", "here/") == here.stdout
        assert list(project.content([folder]).values()) == files


@pytest.mark.server
class TestLocal:
    def test_results_come_lazily_in_order_and_errors_reach_the_caller(self, ends):
        taken = []
        numbers = (taken.append(number) or number for number in range(100))
        results = map_in_processes(math.factorial, numbers, workers=2, cluster="local")
        assert next(results) == 1
        assert len(taken) == 2 * AHEAD
        assert list(results) == [math.factorial(number) for number in range(1, 100)]
        with pytest.raises(ValueError, match="negative"):
            list(map_in_processes(math.factorial, [1, -1], workers=2, cluster="local"))

    def test_scan_that_ends_its_workers_is_told_in_one_line(self, ends):
        with pytest.raises(AdpetError, match=r"one scan has ended 4 workers \(memory\?\)"):
            list(map_in_processes(os._exit, [1], workers=1, cluster="local"))


@pytest.mark.server
def test_scheduler_or_workers_that_end_in_the_middle_are_told_in_one_line(ends, two_workers, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 1)
    address, scheduler, workers = two_workers()
    for ended, message in ((workers, "the last worker has ended"), ([scheduler], "the scheduler has ended")):
        results = map_in_processes(time.sleep, [0, 0, *[600] * 9], workers=1, cluster=address)
        if ended is workers:
            next(results)
        for process in ended:
            process.kill()
        with pytest.raises(AdpetError, match=rf"{address}: {message}.*run this again"):
            list(results)


@pytest.fixture
def slurm(tmp_path):
    """Run nine calls in SLURM's jobs, with its commands and Dask's file in a folder of their own."""
    (tmp_path / "jobqueue.yaml").write_text(JOBS)
    here = {"QUEUE": str(tmp_path), "DASK_CONFIG": str(tmp_path), "TMPDIR": str(tmp_path)}
    here["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def run(sbatch):
        for name, text in (("sbatch", sbatch), ("scancel", SCANCEL)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        return run_code(PROGRAM, cwd=tmp_path, **here)

    return run


@pytest.mark.server
def test_slurm_jobs_do_the_work_and_are_cancelled_and_are_documented(slurm, tmp_path, project_root):
    done = slurm(SBATCH)
    numbers, _, script = done.stdout.partition("\n")
    assert numbers.split() == [str(math.factorial(number)) for number in range(9)], done.stderr
    assert "jobs are submitted" in done.stderr
    # Three workers are two jobs of two cores.
    assert len((tmp_path / "cancelled").read_text().split()) == 2
    # The machine's own names are others in the page.
    script = script.replace(sys.executable, "PROJECT/.venv/bin/python").replace(str(tmp_path), "PROJECT")
    script = script.replace("interface lo", "interface ib0")
    script = re.sub(r"tls://[\d.]+:\d+", "tls://10.0.0.5:40123", script)
    script = re.sub(r"(\.(ca_file|key|cert))\.\w+", r"\1", script)
    page = (project_root / "docs/cluster.md").read_text()
    assert f"```sh\n{script.strip()}\n```" in page
    assert JOBS.replace("lo\n", "ib0\n") in re.sub(" +#.*", "", page)


class TestRefusal:
    def test_missing_extra_is_named_with_the_command(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        with pytest.raises(
            AdpetError, match=r"cluster local: required distributed; .* pip install '\.\[cluster\]'"
        ):
            list(map_in_processes(math.factorial, [1], workers=2, cluster="local"))

    def test_address_without_a_scheduler_is_told_in_one_line(self, monkeypatch):
        monkeypatch.setattr(cluster, "CONNECT_S", 1)
        address = f"tcp://127.0.0.1:{free_port()}"
        with (
            clusters,
            pytest.raises(AdpetError, match=rf"cluster {address}: required a Dask scheduler with workers"),
        ):
            list(map_in_processes(math.factorial, [1], workers=2, cluster=address))

    def test_worker_with_other_code_or_without_the_folder_does_nothing(self, tmp_path):
        with pytest.raises(AdpetError, match=r"required a worker with the code of .*start the workers again"):
            _call_there(b"", folder=str(tmp_path), code="other")
        with pytest.raises(AdpetError, match="required at the same path on every worker"):
            _call_there(b"", folder=str(tmp_path / "away"), code=code_digest())

    @pytest.mark.parametrize("options", [{"workers": 0}, {"cluster": "host:8786"}])
    def test_predict_names_the_option(self, options, tmp_path):
        with pytest.raises(InputError, match=rf"^--{next(iter(options))}: required"):
            predict.run([tmp_path], predict.Options(**options))

    def test_slurm_without_sbatch_or_a_description_names_what_is_missing(self, monkeypatch):
        with pytest.raises(AdpetError, match="required SLURM's sbatch on this machine"):
            list(map_in_processes(math.factorial, [1], workers=2, cluster="slurm"))
        monkeypatch.setattr(cluster.shutil, "which", lambda name: f"/usr/bin/{name}")
        with pytest.raises(AdpetError, match=r"~/\.config/dask/jobqueue\.yaml; received None and None"):
            list(map_in_processes(math.factorial, [1], workers=2, cluster="slurm"))
