"""Time `adpet predict`: ``python benchmarks/predict.py SCAN MNI_SCAN [--model FOLDER] [--folder SCANS]``.

Each round starts a new process for a scan in MNI space (`--align none`), for one that is registered, and for
Python with nothing but NumPy and onnxruntime, one after the other, so that a busy machine slows all of them;
processor seconds say what a quiet one takes. `--folder` is asked as a whole, with one worker and with two; so
is its first tenth, which tells whether the memory grows with the number of scans. With `--serve MODEL`, a
name such as models:/adpet@champion or the folder of a registered model, whose own code answers, MLflow's
server is started on loopback too, and asked about 40 of the folder's scans by one client, then by eight.
"""

import argparse
import base64
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

# Scans sent over HTTP, and how many clients send them at once.
SENT, CLIENTS = 40, (1, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("mni_scan", type=Path)
    parser.add_argument("--model", default="results/export")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="of many scans, to be asked as a whole")
    parser.add_argument("--serve", metavar="MODEL", help="MLflow's name or the folder of a registered model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        predict = [sys.executable, "-m", "adpet", "predict", "--model", options.model, "--output", folder]
        commands = {
            "import numpy, onnxruntime": [sys.executable, "-c", "import numpy, onnxruntime"],
            "in MNI space": [*predict, "--align", "none", str(options.mni_scan)],
            "registered": [*predict, str(options.scan)],
        }
        rounds = [[_seconds(command) for command in commands.values()] for _ in range(options.rounds + 1)][1:]
    print(f"{'cold start':<28} {'median s':>9} {'best':>6} {'worst':>6} {'processor s':>12}")
    for name, pairs in zip(commands, zip(*rounds, strict=True), strict=True):
        seconds, busy = zip(*pairs, strict=True)
        print(
            f"{name:<28} {statistics.median(seconds):>9.2f} {min(seconds):>6.2f} {max(seconds):>6.2f} "
            f"{statistics.median(busy):>12.2f}"
        )
    if options.folder:
        scans = sorted(str(path) for path in options.folder.rglob("*.nii*"))
        print(f"\n{'scans':>6} {'workers':>8} {'scans a second':>15} {'most MB of a process':>21}")
        for some, workers in ((scans[: max(1, len(scans) // 10)], 1), (scans, 1), (scans, 2)):
            _folder(some, workers=workers, model=options.model)
        if options.serve:
            _over_http(options.serve, scans[:SENT])


def _folder(scans: list[str], *, workers: int, model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "adpet", "predict", "--force", "--model", model, "--output", folder]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--workers", str(workers), *scans], stdout=subprocess.DEVNULL)
        _, _, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        answered = sum("_space-" not in path.name for path in Path(folder).glob("*_cam.nii.gz"))
    # Of those that `--force` cannot answer, adpet has told why.
    if not answered:
        sys.exit("adpet predict failed; see above")
    print(f"{answered:>6} {workers:>8} {answered / seconds:>15.2f} {used.ru_maxrss / 1024:>21.0f}")


def _over_http(model: str, scans: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, start_new_session=True, **quiet)

    def ask(scan: str) -> float:
        """Return the seconds until a scan is answered."""
        sent = {"inputs": base64.b64encode(Path(scan).read_bytes()).decode(), "params": {"force": True}}
        connection, began = HTTPConnection("127.0.0.1", port), time.perf_counter()
        connection.request("POST", "/invocations", json.dumps(sent), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode()
        if reply.status != 200:
            sys.exit(f"{scan}: HTTP {reply.status}: {text}")
        return time.perf_counter() - began

    try:
        while server.poll() is None:
            with suppress(OSError):
                ask(scans[0])
                break
            time.sleep(0.5)
        else:
            sys.exit(f"the server ended by itself; run: {' '.join(command)}")
        print(f"\n{'clients':>8} {'scans a second':>15} {'median s':>9} {'95 % within s':>14}")
        for clients in CLIENTS:
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                waited = list(pool.map(ask, scans))
            seconds = time.perf_counter() - began
            print(
                f"{clients:>8} {len(scans) / seconds:>15.2f} {statistics.median(waited):>9.2f} "
                f"{statistics.quantiles(waited, n=20)[-1]:>14.2f}"
            )
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _seconds(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command took, and those of a processor."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, busy


if __name__ == "__main__":
    main()
