"""Ingest against the plain tools: ``python benchmarks/ingest.py [--scans 4000] [--rounds 3] [--folder DIR]``.

Builds trees of scans in a temporary folder and, in turn, several times, hashes them with
``find | xargs sha256sum`` on all cores and ingests them with ``adpet ingest``, without and with the notes
of the round before. The ratio of such neighbours tells; seconds alone tell about the machine.
"""

import argparse
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from ruamel.yaml import YAML

from adpet.params import read_yaml, set_by_key
from adpet.paths import INGEST_NOTES

PROJECT = Path(__file__).parents[1]
# Shape, type and name of scans: the simulated cohort's, and ADNI's standardized images, packed and not.
KINDS = {
    "small, .nii.gz": ((88, 106, 86), "<i2", ".nii.gz"),
    "160x160x96, .nii.gz": ((160, 160, 96), "<i2", ".nii.gz"),
    "160x160x96, .nii": ((160, 160, 96), "<i2", ".nii"),
}


def main() -> None:
    options = _options()
    cores = os.cpu_count() or 1
    print(f"{options.scans} scans, {cores} cores, {options.rounds} rounds; medians")
    print(
        f"{'kind':<20} {'MB each':>8} {'sha256sum':>10} {'ingest':>8} {'ratio':>6} {'again':>7} {'ratio':>6}"
    )
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            root = Path(folder)
            size = build_project(root, KINDS[kind], scans=options.scans, workers=cores)
            rounds = [_round(root, cores) for _ in range(options.rounds + 1)][1:]
        plain, first, again = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = [statistics.median(row[n] / row[0] for row in rounds) for n in (1, 2)]
        print(
            f"{kind:<20} {size / 1e6:>8.2f} {plain:>8.2f} s {first:>6.2f} s {ratios[0]:>6.2f} "
            f"{again:>5.2f} s {ratios[1]:>6.2f}",
            flush=True,
        )


def build_project(root: Path, kind: tuple[tuple[int, ...], str, str], *, scans: int, workers: int) -> float:
    """Write parameters and a BIDS tree of different scans; return the mean size of a scan in bytes."""
    document = read_yaml(PROJECT / "params.yaml")
    set_by_key(document, "cohort.raw", "raw")
    set_by_key(document, "compute.workers", workers)
    YAML(typ="safe").dump(document, root / "params.yaml")
    people = ["participant_id\tage\tsex\tdiagnosis\tsite"]
    total = 0
    for number, content in enumerate(_contents(kind, scans)):
        name = f"sub-{number:05d}"
        path = root / "raw" / name / "pet" / f"{name}_pet{kind[2]}"
        path.parent.mkdir(parents=True)
        total += path.write_bytes(content)
        people.append(f"{name}\t{60 + number % 30}\tF\t{('AD', 'CN')[number % 2]}\tA")
    (root / "raw" / "participants.tsv").write_text("\n".join(people) + "\n")
    (root / "raw" / "pet.json").write_text('{"TracerName": "FDG"}')
    return total / scans


def _contents(kind: tuple[tuple[int, ...], str, str], scans: int) -> Iterator[bytes]:
    """Yield files that differ in their headers alone, so that their voxels are packed once."""
    shape, dtype, suffix = kind
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(np.diag([1.5, 1.5, 1.5, 1]), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    voxels = _head(shape).astype(dtype).tobytes(order="F")
    packed = _deflated(voxels, zlib.Z_FINISH)
    for number in range(scans):
        header["descrip"] = f"scan {number}".encode()
        start = header.binaryblock + bytes(4)
        if suffix == ".nii":
            yield start + voxels
            continue
        end = struct.pack("<II", zlib.crc32(voxels, zlib.crc32(start)), len(start) + len(voxels))
        yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + _deflated(start, zlib.Z_FULL_FLUSH) + packed + end


def _deflated(content: bytes, ending: int) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(content) + stream.flush(ending)


def _head(shape: tuple[int, ...]) -> np.ndarray:
    """Return noise in an ellipsoid, and little around it."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1.25, 1.25, n) for n in shape), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    return np.where(inside, rng.normal(1500, 100, shape), rng.integers(0, 3, shape))


def _round(root: Path, cores: int) -> tuple[float, float, float]:
    """Return the seconds of the plain tools, of an ingest, and of another one."""
    hashed = f"find raw -name '*.nii*' -print0 | xargs -0 -P{cores} -n 64 sha256sum > /dev/null"
    ingest = [sys.executable, "-m", "adpet", "ingest"]
    plain = _seconds(["sh", "-c", hashed], root)
    (root / INGEST_NOTES).unlink(missing_ok=True)
    shutil.rmtree(root / "data", ignore_errors=True)
    return plain, _seconds(ingest, root), _seconds(ingest, root)


def _seconds(command: list[str], root: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    started = time.perf_counter()
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scans", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where the trees are built (up to 20 GB)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
