"""Processes beside this one: whether one runs still, and locks that go with whoever has them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def is_running(process: int) -> bool:
    """Say whether a process runs; one that has ended can be listed until its parent takes note of it."""
    try:
        return psutil.Process(process).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time have a folder or file; the lock goes with the process."""
    own = lock(path)
    try:
        yield
    finally:
        os.close(own)


def lock(path: Path, *, wait: bool = True) -> int:
    """Lock a folder or file, and return the descriptor that holds the lock.

    Raises
    ------
    BlockingIOError
        Where another process has it and it is not waited for.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor
