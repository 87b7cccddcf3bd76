"""Scans on Dask's workers: this machine's, SLURM's, or a scheduler's."""

import os
import pickle
import shutil
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adpet.errors import AdpetError, not_installed
from adpet.storage import TEMPORARY, code_digest

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

# Clusters that this process has started: they end with ``with clusters:``, or else with the process.
clusters = ExitStack()

# Calls that a cluster gets ahead, a thread; what is done waits for the first of them.
AHEAD = 4

# Seconds until an address without an answer is given up, and a cluster that has lost its last worker.
CONNECT_S, PATIENCE_S = 10, 60
# Of a scheduler that we start: any free port, for this machine alone.
DASHBOARD = "127.0.0.1:0"
AGAIN = "run this again: it goes on where it was"


def map_on_cluster(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, cluster: str
) -> Iterator[Result]:
    """Yield results in order; hand over some calls ahead.

    ``local`` and ``slurm`` start `workers`, an address has its own. They work in the present folder, and what
    a killed one did not finish is done by another.

    Not by joblib's backend for Dask: it counts the threads once, so that workers which come later have
    nothing to do, and waits for ever for a call that has killed its workers.
    """
    client = _client(cluster, workers)
    import cloudpickle
    from distributed import CancelledError
    from distributed.comm import CommClosedError

    address, remaining = client.scheduler.address, iter(items)
    there = {"folder": str(Path.cwd()), "code": _own_code()}
    ahead: deque[Future] = deque()
    most = 0
    try:
        while True:
            if len(ahead) <= most // 2:
                most = AHEAD * max(1, sum(client.nthreads().values()))
                for item in islice(remaining, max(0, most - len(ahead))):
                    # As bytes, which the worker reads when it has found that its code is the same.
                    call = cloudpickle.dumps(partial(function, item))
                    ahead.append(client.submit(_call_there, call, **there, pure=False))
            if not ahead:
                return
            yield _result(ahead.popleft(), client)
    except (CancelledError, OSError) as error:
        if client.status == "running" and not isinstance(error, CommClosedError):
            raise
        raise AdpetError(
            f"{address}: the scheduler has ended; start it and its workers, then {AGAIN}"
        ) from error


def _result(future: "Future", client: "Client") -> Any:
    """Wait for a result, as long as there are workers."""
    from distributed import KilledWorker

    while True:
        try:
            return future.result(timeout=PATIENCE_S)
        except TimeoutError:
            if future.status == "error":  # the function's own
                raise
            if not client.nthreads():
                raise AdpetError(
                    f"{client.scheduler.address}: the last worker has ended (time limit, memory?); start "
                    f"others, then {AGAIN}"
                ) from None
        except KilledWorker as error:
            raise AdpetError(
                f"{error.last_worker.address}: one scan has ended {error.allowed_failures + 1} workers "
                f"(memory?); see their logs, give each more memory, then {AGAIN}"
            ) from error


def _call_there(call: bytes, *, folder: str, code: str) -> Any:
    """Make a call in a worker, in the project's folder."""
    here = socket.gethostname()
    if code != _own_code():
        raise AdpetError(
            f"{here}: required a worker with the code of {folder}; received one with other code, or from "
            "before it changed; start the workers again"
        )
    try:
        os.chdir(folder)
    except OSError as error:
        raise AdpetError(
            f"{folder}: required at the same path on every worker; {here} has no such folder; share it"
        ) from error
    return pickle.loads(call)()  # noqa: S301 - of the client, which a worker obeys anyway


@cache
def _own_code() -> str:
    """Return the digest of the code of this process."""
    return code_digest()


@cache
def _client(cluster: str, workers: int) -> "Client":
    """Return the connection to a cluster that has workers."""
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise not_installed(f"cluster {cluster}", error, extra="cluster") from error
    at: Any = cluster
    if cluster == "local":
        quiet = {"silence_logs": "CRITICAL", "dashboard_address": DASHBOARD}
        made = LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, **quiet)
        at = clusters.enter_context(made)
    elif cluster == "slurm":
        at = clusters.enter_context(slurm_cluster())
        at.scale(workers)
        print("slurm: jobs are submitted; work begins with the first (squeue --me)", file=sys.stderr)
    try:
        client = clusters.enter_context(Client(at, timeout=CONNECT_S, set_as_default=False))
        client.wait_for_workers(1, timeout=None if cluster == "slurm" else CONNECT_S)
    except OSError as error:
        raise AdpetError(
            f"cluster {cluster}: required a Dask scheduler with workers; received none within {CONNECT_S} s; "
            "start them as in docs/cluster.md, or correct the address"
        ) from error
    clusters.callback(_client.cache_clear)
    if max(client.nthreads().values(), default=1) > 1:
        raise AdpetError(
            f"cluster {cluster}: required workers of one thread; received more; start them with --nthreads 1"
        )
    return client


def slurm_cluster() -> Any:
    """Return a SLURM cluster as Dask's files describe it."""
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ModuleNotFoundError as error:
        raise not_installed("cluster slurm", error, extra="cluster") from error
    cores, memory = (dask.config.get(f"jobqueue.slurm.{key}") for key in ("cores", "memory"))
    if not shutil.which("sbatch"):
        raise AdpetError(
            "cluster slurm: required SLURM's sbatch on this machine; received none; run this on a login node"
        )
    if not cores or not memory:
        raise AdpetError(
            "cluster slurm: required cores and memory of a job in ~/.config/dask/jobqueue.yaml; received "
            f"{cores} and {memory}; write the file as in docs/cluster.md"
        )
    # A process a core, and certificates of its own: who reaches an open scheduler runs code as its user.
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    return SLURMCluster(
        processes=cores,
        security=True,
        shared_temp_directory=str(TEMPORARY.absolute()),
        scheduler_options={"dashboard_address": DASHBOARD}
        | dask.config.get("jobqueue.slurm.scheduler-options"),
    )
