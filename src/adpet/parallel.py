"""Parallel work here or on a cluster, and progress bars.

joblib starts processes on this machine, Dask finds or starts them on others.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import length_hint
from typing import TypeVar

from tqdm import tqdm

from adpet.cluster import map_on_cluster
from adpet.errors import not_installed

Item = TypeVar("Item")
Result = TypeVar("Result")

OnEpoch = Callable[[int, dict[str, float]], bool | None]

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
    Dask's.
    """
    if cluster:
        yield from map_on_cluster(function, items, workers=workers, cluster=cluster)
        return
    if workers == 1:
        yield from map(function, items)
        return
    try:
        from joblib import Parallel, delayed
    except ModuleNotFoundError as error:
        raise not_installed(f"{workers} workers", error, extra="train") from error
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
