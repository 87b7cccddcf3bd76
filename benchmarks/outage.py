"""What tracking costs a training: ``python benchmarks/outage.py [--rounds 3] [--seconds 30]``.

Trains the pipeline's own network on noise and tells MLflow 12 metrics an epoch: a SQLite file, a server, one
that takes 2 s for each answer, and one that goes away after the start; side by side with a training that
tells nobody. ``ratio`` is that of such neighbours, as noisy as the machine is busy; ``calls`` is the share
of the training spent in tracking's own calls, and ``sender`` the processor time of the thread that sends, so
that their sum bounds what tracking can have cost. The end of a run waits for ``tracking.wait_s`` at most.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import keras
import numpy as np

from adpet.learning.model import build_model
from adpet.params import load_params
from adpet.tracking.runs import open_run
from adpet.tracking.store import TRACKING_URI, connect

PROJECT = Path(__file__).parents[1]
KINDS = ("SQLite file", "server", "server, 2 s late", "server that goes")
EPOCHS = 12
LATE_S = 2.0
WAIT_S = 10.0


def main() -> None:
    options = _options()
    work = _Work(options.seconds)
    print(
        f"{EPOCHS} epochs of {work.steps} steps, about {options.seconds:.0f} s; medians of {options.rounds}"
    )
    print(f"{'MLflow is':<20}{'ratio':>8}{'calls':>9}{'sender':>9}{'the end waits':>15}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            rounds = [_round(Path(folder), kind, work, number) for number in range(options.rounds)]
            ratio, calls, sender, end = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"{kind:<20}{ratio:>8.3f}{calls:>9.3%}{sender:>9.3%}{end:>13.2f} s", flush=True)


class _Work:
    """A training of the pipeline's network that takes about so many seconds."""

    def __init__(self, seconds: float) -> None:
        rng = np.random.default_rng(0)
        self._images = rng.integers(0, 255, (32, 64, 64, 1), dtype=np.uint8)
        self._labels = rng.integers(0, 2, (32, 1))
        settings = load_params(PROJECT / "params.yaml").model.model_dump()
        self._model = build_model(**settings, seed=0)
        loss = keras.losses.SparseCategoricalCrossentropy()
        self._model.compile(loss={"probability": loss}, optimizer="adam")
        self.steps = 1
        self.train(None)
        self.steps = max(1, round(seconds / self.train(None)[0]))

    def train(self, tell: Callable[[dict[str, float], int], None] | None) -> tuple[float, float]:
        """Return the seconds of a training, and those of the calls of `tell` among them."""
        started, telling = time.perf_counter(), 0.0
        for epoch in range(EPOCHS):
            for _ in range(self.steps):
                self._model.train_on_batch(self._images, self._labels)
            if tell is not None:
                called = time.perf_counter()
                tell({f"metric_{number}": epoch / (1 + number) for number in range(12)}, epoch)
                telling += time.perf_counter() - called
        return time.perf_counter() - started, telling


def _round(folder: Path, kind: str, work: _Work, number: int) -> tuple[float, float, float, float]:
    """Return the ratio, the shares of the calls and of the sender, and the seconds of the end."""
    root = folder / f"{kind} {number}"
    root.mkdir()
    with _store(root, kind) as go_away:
        connect(root, wait_s=WAIT_S)
        with open_run(lineage="a1", kind="train", name="x", params={"a": 1}) as run:
            go_away()
            tracked, calls = work.train(run.log_metrics)
            thread = next(one for one in threading.enumerate() if one.name == "adpet sender")
            sender = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            ended = time.perf_counter()
        end = time.perf_counter() - ended
    plain, _ = work.train(None)
    return tracked / plain, calls / tracked, sender / tracked, end


@contextmanager
def _store(root: Path, kind: str) -> Iterator[Callable[[], None]]:
    """Name a store of this kind to the process; what is yielded makes it go away, where that is its kind."""
    os.environ.pop(TRACKING_URI, None)
    if kind == "SQLite file":
        yield lambda: None
        return
    port, late = _free_port(), kind == "server, 2 s late"
    server = _start_server(root, port)
    try:
        with _late_proxy(port) if late else nullcontext(port) as shown_port:
            os.environ[TRACKING_URI] = f"http://127.0.0.1:{shown_port}"
            yield partial(_kill, server) if kind == "server that goes" else lambda: None
    finally:
        _kill(server)


def _start_server(root: Path, port: int) -> subprocess.Popen[bytes]:
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = (
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *(
            "--backend-store-uri",
            f"sqlite:///{root}/server.db",
            "--artifacts-destination",
            str(root / "kept"),
        ),
    )
    server = subprocess.Popen(
        [sys.executable, *command], cwd=root, env=os.environ | quiet, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return server
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


def _kill(server: subprocess.Popen[bytes]) -> None:
    """Kill a server and the workers that it started."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@contextmanager
def _late_proxy(port: int) -> Iterator[int]:
    """Yield a port that passes everything on to the server, and its answers back after `LATE_S`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=(listening, port), daemon=True).start()
        yield listening.getsockname()[1]


def _accept(listening: socket.socket, port: int) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:  # closed: the round is over
            return
        server = socket.create_connection(("127.0.0.1", port))
        for source, sink, late_s in ((client, server, 0.0), (server, client, LATE_S)):
            threading.Thread(target=_pass_on, args=(source, sink, late_s), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, late_s: float) -> None:
    with suppress(OSError), source, sink:
        while content := source.recv(1 << 16):
            time.sleep(late_s)
            sink.sendall(content)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30, help="of each training")
    return parser.parse_args()


if __name__ == "__main__":
    main()
