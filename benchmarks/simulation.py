"""Time the simulated cohort: seconds a scan on one core, and the peak of memory after 20 and after 200 scans.

Run it in the project's root: ``python benchmarks/simulation.py [--layout adni] [--messy] [--scans 20 200]``.
Each number of scans is written by a process of its own into a temporary folder.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

# One core: what libraries would start threads with.
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layout", choices=["bids", "adni"], default="bids")
    parser.add_argument("--messy", action="store_true")
    parser.add_argument("--scans", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--one", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(*measure(options.one, layout=options.layout, messy=options.messy))
        return
    print("scans   seconds a scan   slowest   peak MiB")
    for scans in options.scans:
        command = [sys.executable, __file__, "--one", str(scans), "--layout", options.layout]
        done = subprocess.run(
            [*command, *(["--messy"] if options.messy else [])],
            env=os.environ | ONE_CORE, capture_output=True, text=True, check=True,
        )  # fmt: skip
        number, mean, slowest, peak = done.stdout.split()
        print(f"{number:>5}   {float(mean):14.3f}   {float(slowest):7.3f}   {peak:>8}")


def measure(scans: int, *, layout: Literal["bids", "adni"], messy: bool) -> tuple[int, float, float, int]:
    """Write a cohort; return scans, mean and longest seconds of processor time a scan, and peak MiB."""
    from adpet.simulation.anatomy import load_anatomy
    from adpet.simulation.cohort import SimulationRecipe
    from adpet.simulation.layouts import write_cohort

    recipe = SimulationRecipe(ad_subjects=scans // 2, cn_subjects=scans // 2, followup_fraction=0)
    load_anatomy()
    times = [time.process_time()]

    def progress(items: Iterable[Any], **_: Any) -> Iterator[Any]:
        for item in items:
            times.append(time.process_time())
            yield item

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cohort(root / "raw", root / "truth", recipe, layout=layout, messy=messy, progress=progress)
        mean = (time.process_time() - times[0]) / scans
    # The first scan also computes what all share.
    _, *single = [after - before for before, after in pairwise(times)]
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
    return len(times) - 1, round(mean, 4), round(max(single), 4), peak


if __name__ == "__main__":
    main()
