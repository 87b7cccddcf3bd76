"""Ask a served model from all sides: ``python benchmarks/serve_load.py SCAN.nii.gz ... [--minutes 5]``.

Run it in a project with a champion. ``mlflow models serve`` runs on loopback, and eight clients send good and
bad scans, alone and in lists, as quickly as they are answered. Each knows the probability of its own scans,
which were asked of the same exported model here, without a server. It ends with status 1 where an answer is
another one, a bad scan is not refused with 400 and one line, the server ends, its memory grows by more than a
tenth after the first fifth of the time, or a file is left.
"""

import argparse
import base64
import gzip
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_header, read_volume, write_volume
from adpet.inference.exported_model import open_model
from adpet.inference.predictor import answer
from adpet.params import load_params
from adpet.tracking.registry import exported_model
from adpet.tracking.store import TRACKING_URI, store_uri

CLIENTS = 8
START_S, LOOK_S = 120, 1.0
# For a request, in which others may wait before it: on two cores eight lists take a minute.
ANSWER_S = 300
MB = 10**6
# Kinds of requests, and how often each is sent.
KINDS = {"good": 5, "list": 2, "bad": 2, "mixed": 1}
# What memory may grow by, between the time after the start and the end.
GROWTH = 1.1


# A request: its kind, the seconds to its answer, and what was wrong with that.
Request = tuple[str, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN.nii.gz")
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args()
    scans = _good(options.scans), _bad(options.scans[0])
    with tempfile.TemporaryDirectory() as temporary, _served(Path(temporary)) as (address, process):
        before = _files(temporary)
        seen: list[Request] = []
        ends = time.monotonic() + 60 * options.minutes
        clients = [
            threading.Thread(target=_client, args=(number, address, scans, seen, ends), daemon=True)
            for number in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        memory = list(_memory(process.pid, ends))
        for client in clients:
            client.join(ANSWER_S)
        ended = process.poll() is not None
        left = _files(temporary) - before
    _report(seen, memory, ["the server ended"] * ended + [f"a file is left: {path}" for path in sorted(left)])


def _client(
    number: int,
    address: str,
    scans: tuple[list[tuple[str, float]], list[str]],
    seen: list[Request],
    ends: float,
) -> None:
    good, bad = scans
    chance = random.Random(number)  # noqa: S311 (which scan, no secret)
    while time.monotonic() < ends:
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0]
        wanted = [
            chance.choice(good) for _ in range(chance.randint(2, 3) if kind in ("list", "mixed") else 1)
        ]
        sent = [text for text, _ in wanted]
        if kind in ("bad", "mixed"):
            sent[-1] = chance.choice(bad)
        started = time.monotonic()
        try:
            status, text = _asked(address, sent[0] if kind in ("good", "bad") else sent)
            problem = _judged(kind, status, text, [probability for _, probability in wanted])
        except (OSError, ValueError, KeyError) as error:
            problem = f"{type(error).__name__}: {error}"
        seen.append((kind, time.monotonic() - started, problem))


def _judged(kind: str, status: int, text: str, wanted: list[float]) -> str:
    """Return what is wrong with an answer."""
    if status not in (200, 400):
        return f"status {status}: {text[:200]}"
    document = json.loads(text)
    if kind in ("bad", "mixed"):
        one_line = "\n" not in document["message"] and "Traceback" not in text
        return "" if status == 400 and one_line else f"status {status}: {text[:200]}"
    found = [one["probability_of_ad"] for one in document["predictions"]] if status == 200 else []
    return "" if found == wanted else f"status {status}: required {wanted}; received {found or text[:200]}"


def _asked(address: str, inputs: Any) -> tuple[int, str]:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{address}/invocations",
        data=json.dumps({"inputs": inputs}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as reply:  # noqa: S310
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _good(paths: list[Path]) -> list[tuple[str, float]]:
    """Return scans in base64, with the probability that the exported model gives them here."""
    tracking = load_params().tracking
    uri = f"models:/{tracking.model_name}@champion"
    folder, found = exported_model(uri, root=Path.cwd(), experiment=tracking.experiment)
    model = open_model(folder, name=found.uri, leaky=found.leaky)
    scans = []
    for path in paths:
        header = read_header(path)
        try:
            known = answer(read_volume(path), model, name="", shape=header.shape, affine=header.affine)
        except InputError as error:
            sys.exit(f"{path}: required a scan that is answered; received: {error}")
        scans.append((_text(path.read_bytes()), known.document["probability_of_ad"]))
    return scans


def _bad(path: Path) -> list[str]:
    """Return what is no scan, or none that can be judged."""
    content = path.read_bytes()
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    giant = bytearray(plain)
    giant[42:48] = np.array([30000, 30000, 3000], dtype="<i2").tobytes()
    with tempfile.TemporaryDirectory() as folder:
        noise = Path(folder, "noise.nii.gz")
        values = np.random.default_rng(0).random((64, 64, 40), dtype=np.float32)
        write_volume(noise, Volume(values, np.diag([3.0, 3.0, 4.0, 1.0])))
        noisy = noise.read_bytes()
    wrong = (b"no image at all", plain[: len(plain) // 2], content[:-2000], bytes(giant), noisy)
    return ["no base64 !", *(_text(one) for one in wrong)]


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@contextmanager
def _served(temporary: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve the champion with its temporary files in a folder; end the server and what it started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name = load_params().tracking.model_name
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"TMPDIR": str(temporary), TRACKING_URI: store_uri(Path.cwd())}
    process = subprocess.Popen(
        (
            *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{name}@champion"),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
            *("--timeout", str(ANSWER_S)),
        ),
        env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, process)
        yield address, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/ping", timeout=1):  # noqa: S310
            return
        time.sleep(0.2)
    sys.exit(f"required a server within {START_S} s; received none; run mlflow models serve to see why")


def _memory(pid: int, ends: float) -> Iterator[float]:
    """Yield what the server's processes hold together, in MB, every second."""
    while time.monotonic() < ends:
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(pid)
            yield sum(one.memory_info().rss for one in (server, *server.children(recursive=True))) / MB
        time.sleep(LOOK_S)


def _files(folder: str) -> set[str]:
    return {
        str(path) for path in Path(folder).rglob("*") if path.name != "__pycache__" and path.suffix != ".pyc"
    }


def _report(seen: list[Request], memory: list[float], problems: list[str]) -> None:
    fifth = max(len(memory) // 5, 1)
    early, late = statistics.median(memory[fifth : 2 * fifth] or memory), statistics.median(memory[-fifth:])
    if late > GROWTH * early:
        problems.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    counts = Counter(kind for kind, *_ in seen)
    if len(counts) < len(KINDS):
        problems.append("required requests of each kind; received fewer; take more minutes")
    problems += [f"{kind}: {problem}" for kind, _, problem in seen if problem]
    seconds = [duration for kind, duration, _ in seen if kind != "bad"] or [0.0]
    print(f"requests     {dict(counts)} of {CLIENTS} clients")
    print(f"seconds      median {statistics.median(seconds):.1f}, 95 % {np.quantile(seconds, 0.95):.1f}")
    print(f"memory       early {early:.0f}, late {late:.0f}, most {max(memory):.0f} MB")
    print(f"problems     {len(problems)}", *problems[:20], sep="\n    ")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
