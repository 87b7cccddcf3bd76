"""Map a function over many items in parallel processes, and show how far long work is.

joblib starts the processes, so that ``joblib.parallel_config(backend="dask")`` moves the same
work to a cluster.
"""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TypeVar

from tqdm import tqdm

from adpet.temporary import semaphores_of

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long the end of a stage waits for what its workers shared.
PATIENCE_S = 2.0

# How often a worker looks whether its work is still wanted.
WATCH_S = 0.2

# Holds something while joblib keeps processes that a map has started.
_kept: list[int] = []

OnEpoch = Callable[[int, dict[str, float]], bool | None]


def progress(items: Iterable[Item], *, label: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items` with a bar on stderr, which is silent where stderr is no terminal."""
    yield from tqdm(items, desc=label, unit=unit, total=total, disable=None, dynamic_ncols=True)


@contextmanager
def epochs_shown(epochs: int, *, label: str, on_epoch: OnEpoch) -> Iterator[OnEpoch]:
    """Yield `on_epoch` with a bar around it that shows epochs, the time left and the losses."""
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
    """Yield `function(item)` for every item, in order; no more results are held than are not yet taken.

    One worker runs in this process, which keeps errors and debuggers simple. Others end with this process,
    whatever they are at, also where it is killed.
    """
    if workers == 1 or len(items) < 2:
        yield from map(function, items)
        return
    from joblib import Parallel, delayed

    _kept.append(workers)
    parallel = Parallel(n_jobs=workers, return_as="generator")
    call = partial(_call, function, starter=os.getpid())
    yield from parallel(delayed(call)(item) for item in items)


def _call(function: Callable[[Item], Result], item: Item, *, starter: int) -> Result:
    _end_with(starter)
    return function(item)


@cache
def _end_with(starter: int) -> None:
    """End this process when the one that started it has ended; on another machine that is never seen."""

    def watch() -> None:
        while os.getppid() == starter:
            time.sleep(WATCH_S)
        os._exit(1)

    if os.getppid() == starter:
        threading.Thread(target=watch, daemon=True, name="end with the starter").start()


@contextmanager
def workers_ended() -> Iterator[None]:
    """End the processes that joblib keeps for more work, and take away the semaphores that they share.

    joblib does so when Python itself ends, from a process of its own: whoever kills that one leaves them.
    """
    try:
        yield
    finally:
        if _kept:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)
            _kept.clear()
            _wait_for_semaphores()


def _wait_for_semaphores() -> None:
    """Wait a moment until no cycle, and no thread that is ending, holds the ended workers' semaphores."""
    last = time.monotonic() + PATIENCE_S
    gc.collect()
    while semaphores_of(os.getpid()) and time.monotonic() < last:
        time.sleep(0.005)
        gc.collect()
