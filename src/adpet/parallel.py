"""Parallel work here or on a cluster, and progress bars.

joblib starts processes on this machine, Dask finds or starts them on others.
"""

import ctypes
import os
import pickle
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from adpet.errors import AdpetError
from adpet.storage import TEMPORARY, code_digest

if TYPE_CHECKING:
    from distributed import Client, Future

Item = TypeVar("Item")
Result = TypeVar("Result")

OnEpoch = Callable[[int, dict[str, float]], bool | None]

# Clusters that this process has started: they end with ``with clusters:``, or else with the process.
clusters = ExitStack()

# Calls that a cluster gets ahead, a thread; what is done waits for the first of them.
AHEAD = 4

# Seconds until an address without an answer is given up, and a cluster that has lost its last worker.
CONNECT_S, PATIENCE_S = 10, 60
# Of a scheduler that we start: any free port, for this machine alone.
DASHBOARD = "127.0.0.1:0"
AGAIN = "run this again: it goes on where it was"

# Linux: the signal that a process gets when its parent ends (prctl(2)).
PR_SET_PDEATHSIG = 1


def progress(items: Iterable[Item], *, label: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` with a progress bar on a terminal."""
    yield from tqdm(items, desc=label, unit=unit, total=total, disable=None, dynamic_ncols=True)


@contextmanager
def epochs_shown(epochs: int, *, label: str, on_epoch: OnEpoch) -> Iterator[OnEpoch]:
    """Yield `on_epoch` with a progress bar of epochs and losses."""
    with tqdm(desc=label, unit="epoch", total=epochs, disable=None, dynamic_ncols=True) as bar:

        def shown(epoch: int, row: dict[str, float]) -> bool | None:
            bar.update(epoch + 1 - bar.n)
            shown_losses = {"loss": "loss", "val_subject_log_loss": "validation"}
            bar.set_postfix({text: f"{row[name]:.3f}" for name, text in shown_losses.items() if name in row})
            return on_epoch(epoch, row)

        yield shown


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, cluster: str | None = None
) -> Iterator[Result]:
    """Yield `function(item)` for every item, lazily and in order.

    One worker runs in this process, which keeps errors and debuggers simple. With `cluster` the workers are
    Dask's: as many as `workers` are started for ``local`` and ``slurm``, an address has its own. They work in
    the present folder, and what a killed one did not finish is done by another.
    """
    if cluster:
        yield from _map_on_cluster(function, items, _client(cluster, workers))
        return
    if workers == 1:
        yield from map(function, items)
        return
    try:
        from joblib import Parallel, delayed
    except ModuleNotFoundError as error:
        raise _missing(f"{workers} workers", error, extra="train") from error
    # Four folds need four processes here, whatever `workers` a cluster is given.
    processes = min(workers, max(2, length_hint(items, workers)))
    # Arrays go through pipes: joblib's files for large ones would outlive a killed process.
    parallel = Parallel(n_jobs=processes, return_as="generator", max_nbytes=None)
    call = delayed(partial(_call, function, parent=os.getpid()))
    yield from parallel(call(item) for item in items)


def _call(function: Callable[[Item], Result], item: Item, *, parent: int) -> Result:
    """Call a function in a worker, ended with its parent."""
    if sys.platform == "linux" and os.getppid() == parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return function(item)


def _map_on_cluster(
    function: Callable[[Item], Result], items: Iterable[Item], client: "Client"
) -> Iterator[Result]:
    """Yield results in order; hand over some calls ahead.

    Not by joblib's backend for Dask: it counts the threads once, so that workers which come later have
    nothing to do, and waits for ever for a call that has killed its workers.
    """
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
    return pickle.loads(call)()  # noqa: S301 - of the client, whom a worker obeys anyway


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
        raise _missing(f"cluster {cluster}", error, extra="cluster") from error
    at: Any = cluster
    if cluster == "local":
        quiet = {"silence_logs": "CRITICAL", "dashboard_address": DASHBOARD}
        made = LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=0, **quiet)
        at = clusters.enter_context(made)
    elif cluster == "slurm":
        at = clusters.enter_context(slurm_cluster())
        _submit(at, workers)
    try:
        client = clusters.enter_context(Client(at, timeout=CONNECT_S, set_as_default=False))
        client.wait_for_workers(1, timeout=None if cluster == "slurm" else CONNECT_S)
    except OSError as error:
        raise AdpetError(
            f"cluster {cluster}: required a Dask scheduler with workers; received none within {CONNECT_S} s; "
            "start them as in docs/cluster.md, or correct the address"
        ) from error
    clusters.callback(_client.cache_clear)
    if max(client.nthreads().values()) > 1:
        raise AdpetError(
            f"cluster {cluster}: required workers of one thread; received more; start them with --nthreads 1"
        )
    return client


def slurm_cluster() -> Any:
    """Return a SLURM cluster as Dask's files describe it."""
    import dask
    from dask_jobqueue import SLURMCluster

    cores, memory = (dask.config.get(f"jobqueue.slurm.{key}") for key in ("cores", "memory"))
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


def _submit(cluster: Any, workers: int) -> None:
    """Submit the jobs of a SLURM cluster."""
    while workers > 0:
        new = cluster.new_worker_spec()
        cluster.worker_spec.update(new)
        workers -= sum(len(job.get("group", [""])) for job in new.values())
    try:
        cluster.sync(cluster._correct_state)  # noqa: SLF001 - `scale` would log an error, and go on
    except (OSError, RuntimeError, ValueError) as error:
        raise AdpetError(
            f"cluster slurm: required jobs that sbatch accepts; received: {' '.join(str(error).split())}"
        ) from error
    print("slurm: jobs are submitted; work begins with the first (squeue --me)", file=sys.stderr)


def _missing(what: str, error: ModuleNotFoundError, *, extra: str) -> AdpetError:
    return AdpetError(f"{what}: required {error.name}; received none; run: pip install '.[{extra}]'")
