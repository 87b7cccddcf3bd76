"""Cold starts of `adpet predict`: ``python benchmarks/predict.py SCAN MNI_SCAN [--model FOLDER]``.

Each round starts a new process for a scan in MNI space (`--align none`), for one that is registered, and for
Python with nothing but NumPy and onnxruntime, one after the other, so that a busy machine slows all of them;
processor seconds say what a quiet one takes.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("mni_scan", type=Path)
    parser.add_argument("--model", default="results/export")
    parser.add_argument("--rounds", type=int, default=5)
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


def _seconds(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command took, and those of a processor."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, busy


if __name__ == "__main__":
    main()
