"""Two workers of Dask against one: ``python benchmarks/cluster.py [PROJECT] [--scans 40] [--rounds 5]``.

PROJECT (default: this folder) has been ingested. Two clusters on loopback, each a scheduler with one or two
workers of one thread, register the same scans in turns by `normalize`'s own function, into a temporary
folder.
Exits with 1 if the median of the rounds' ratios is below `LEAST`.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from adpet.cluster import clusters
from adpet.cohort.scans import read_scans
from adpet.parallel import map_in_processes
from adpet.params import load_params
from adpet.paths import SCANS
from adpet.stages.normalize import _normalize_scan

LEAST = 1.9


def main() -> None:
    """Print the seconds of each round, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", nargs="?", type=Path, default=Path())
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.chdir(options.project)
    params = load_params()
    rows = read_scans(SCANS)[["scan", "path", "frame_seconds"]].head(options.scans).to_dict("records")

    def seconds(workers: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "volumes").mkdir()
            one = partial(_normalize_scan, params=params, work=Path(folder))
            start = time.perf_counter()
            done = list(map_in_processes(one, rows, workers=workers, cluster="local"))
            taken = time.perf_counter() - start
        if [row["scan"] for row in done] != [row["scan"] for row in rows]:
            sys.exit("a scan is missing, double or in another place")
        return taken

    with clusters:
        for workers in (1, 2):  # imports and templates
            seconds(workers)
        rounds = [(seconds(1), seconds(2)) for _ in range(options.rounds)]
    for one, two in rounds:
        print(f"{len(rows)} scans: one worker {one:.1f} s, two workers {two:.1f} s, ratio {one / two:.2f}")
    ratio = statistics.median(one / two for one, two in rounds)
    print(f"median ratio {ratio:.2f}; required {LEAST} or more")
    sys.exit(ratio < LEAST)


if __name__ == "__main__":
    main()
