"""Parallel processes over many items, and progress bars.

joblib starts the processes, so that ``joblib.parallel_config(backend="dask")`` moves the same
work to a cluster.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from tqdm import tqdm

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
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Iterator[Result]:
    """Yield `function(item)` for every item, lazily and in order.

    One worker runs in this process, which keeps errors and debuggers simple.
    """
    if workers == 1:
        yield from map(function, items)
        return
    from joblib import Parallel, delayed

    # Arrays go through pipes: joblib's files for large ones would outlive a killed process.
    parallel = Parallel(n_jobs=workers, return_as="generator", max_nbytes=None)
    call = delayed(partial(_call, function, parent=os.getpid()))
    yield from parallel(call(item) for item in items)


def _call(function: Callable[[Item], Result], item: Item, *, parent: int) -> Result:
    """Call a function in a worker, ended with its parent."""
    if sys.platform == "linux" and os.getppid() == parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return function(item)
