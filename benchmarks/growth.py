"""Time and memory of what the pipeline does with its tables, for more and more scans.

    python benchmarks/growth.py [--scans 100 1000 10000 100000] [--only NAME ...]

Each row is a process of its own on simulated tables; scans that are read are tiny. What is done to pixels
scan by scan is in `benchmarks/scans.py`. A power of 1 means that the time grows with the number of scans.
"""

import argparse
import hashlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SLICES = 15


def scans_of(n: int) -> pd.DataFrame:
    """Return a table of scans, one a subject."""
    rng = np.random.default_rng(0)
    number = [f"{each:06d}" for each in range(n)]
    return pd.DataFrame(
        {
            "scan": [f"sub-{each}" for each in number],
            "subject": number,
            "session": "",
            "diagnosis": np.where(rng.random(n) < 0.5, "AD", "CN"),
            "age": rng.normal(75, 7, n).round(1),
            "sex": rng.choice(["F", "M"], n),
            "site": [f"{each:03d}" for each in rng.integers(0, 60, n)],
            "scanner": rng.choice(["A", "B"], n),
            "level": "",
            "path": [f"data/raw/{each}.nii.gz" for each in number],
            "frame_seconds": "",
            "content": [hashlib.sha256(each.encode()).hexdigest() for each in number],
        }
    )


def slices_of(scans: pd.DataFrame) -> pd.DataFrame:
    """Return a table of slices."""
    repeated = scans.loc[scans.index.repeat(SLICES)].reset_index(drop=True)
    return repeated[["scan", "subject", "diagnosis"]].assign(index=np.tile(np.arange(SLICES), len(scans)))


def ingest(n: int, folder: Path) -> Callable[[], object]:
    """Read a BIDS tree of small scans."""
    import nibabel as nib

    from adpet.cohort.reader import read_collection
    from adpet.params import Cohort

    scans = scans_of(n)
    for number in scans["subject"]:
        pet = folder / f"raw/sub-{number}/pet"
        pet.mkdir(parents=True)
        data = np.random.default_rng(int(number)).random((8, 8, 8), dtype=np.float32)
        nib.save(nib.Nifti1Image(data, np.eye(4) * 4), pet / f"sub-{number}_trc-18FFDG_pet.nii.gz")
    people = scans[["diagnosis", "age", "sex"]].set_axis("sub-" + scans["subject"])
    people.to_csv(folder / "raw/participants.tsv", sep="\t", index_label="participant_id")
    (folder / "raw/dataset_description.json").write_text('{"Name": "growth", "BIDSVersion": "1.9.0"}')
    settings = Cohort().model_dump(exclude={"raw", "table", "diagnosis_table", "max_rejected_fraction"})
    return lambda: read_collection(
        folder / "raw", **settings, table=None, diagnosis_table=None, notes=folder / "notes.tsv"
    )


def copies(n: int, folder: Path) -> Callable[[], object]:  # noqa: ARG001 (all have the same arguments)
    """Look for copies of one image under two names."""
    from adpet.cohort import duplicates

    voxels = int(duplicates._coarse_mask().sum())  # noqa: SLF001
    rng = np.random.default_rng(0)
    brains = rng.random((n, voxels), dtype=np.float32)
    return lambda: duplicates.find_duplicates(brains, [str(number) for number in range(n)])


def split(n: int, folder: Path) -> Callable[[], object]:
    """Split the subjects, write and read the table of slices."""
    from adpet.cohort import splits
    from adpet.cohort.scans import subject_table

    scans = scans_of(n)
    slices = slices_of(scans)[["scan", "index"]]

    def run() -> object:
        parts = splits.split_by_subject(subject_table(scans), test_fraction=0.4, folds=4, seed=0)
        table = splits.assign_slices(slices, scans, parts)
        splits.check_disjoint(table)
        splits.write_split(folder / "split.csv", table)
        return splits.split_summary(splits.read_split(folder / "split.csv"), scans)

    return run


def batches(n: int, folder: Path) -> Callable[[], object]:
    """Begin an epoch of training: its data set, and a hundred batches."""
    from adpet.learning.data import Augmentation, SliceDataset, SliceRef

    path = folder / "slices.npy"
    np.save(path, np.zeros((SLICES, 64, 64, 3), np.uint8))
    rows = slices_of(scans_of(n))

    def run() -> object:
        columns = (rows["index"], rows["diagnosis"], rows["subject"])
        refs = [SliceRef(path, *row) for row in zip(*columns, strict=True)]
        data = SliceDataset(
            refs, batch_size=32, augmentation=Augmentation(rotation_degrees=5), seed=0, balance=True
        )
        return [data[step] for step in range(min(100, len(data)))]

    return run


def evaluate(n: int, folder: Path) -> Callable[[], object]:  # noqa: ARG001
    """Score the test subjects, 40 % of all, with 2,000 resamples."""
    from adpet.evaluation.aggregation import Pooling
    from adpet.evaluation.metrics import evaluation

    rng = np.random.default_rng(1)
    scans = scans_of(n)
    rows = slices_of(scans)
    logit = rng.normal(size=n)[scans.index.repeat(SLICES)] + 2.0 * (rows["diagnosis"] == "AD") - 1
    rows = rows.assign(session="", probability=1 / (1 + np.exp(-logit - rng.normal(size=len(rows)) / 2)))
    tested = rows["subject"].astype(int) % 5 < 2
    test, rest = rows[tested].assign(part="test"), rows[~tested].assign(part="fold-0")
    return lambda: evaluation(test, rest, pooling=Pooling(), seed=0)


STEPS = {step.__name__: step for step in (ingest, copies, split, batches, evaluate)}


def main() -> None:
    """Print seconds and megabytes of each step and number of scans."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--only", choices=list(STEPS), nargs="+", default=list(STEPS))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, n = options.one
        print(json.dumps(_measure(STEPS[name], int(n))))
        return
    print(f"{'step':<10} {'scans':>8} {'seconds':>9} {'power':>6} {'MB more':>8}")
    for name in options.only:
        before: dict[str, Any] = {}
        for n in options.scans:
            command = [sys.executable, __file__, "--one", name, str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(
                    f"{name:<10} {n:>8} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
                )
                break
            found = json.loads(done.stdout.splitlines()[-1])
            power = (
                math.log(found["seconds"] / before["seconds"]) / math.log(n / before["n"])
                if before
                else math.nan
            )
            print(f"{name:<10} {n:>8} {found['seconds']:>9.2f} {power:>6.2f} {found['mb']:>8.0f}", flush=True)
            before = found | {"n": n}


def _measure(step: Callable[[int, Path], Callable[[], object]], n: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = step(n, Path(folder))
        start, began = _most_mb(), time.process_time()
        run()
        return {"seconds": time.process_time() - began, "mb": _most_mb() - start}


def _most_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
