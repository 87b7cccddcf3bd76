"""Plant the defects of real downloads in a simulated cohort.

``truth/planted.csv`` lists each with the verdict that ingest must come to.
"""

import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
import pandas as pd

from adpet.imaging.nifti import Volume, write_volume
from adpet.simulation.cohort import Row, cohort_rows
from adpet.simulation.scanner import SITES
from adpet.storage import atomic_write

# "ignored": what no table names, since no reader takes it for a scan.
Verdict = Literal["read", "skipped", "unusable", "ignored"]

# Where scl_slope lies in a header of NIfTI-1.
SLOPE_BYTES = slice(112, 116)
# NIfTI's codes of extensions that may hold text: DICOM, AFNI, comment, unknown to most.
TEXT_EXTENSIONS = (2, 4, 6, 32)
# An invented name, for every place of a header that holds real ones.
NAME = b"ROE^JANE^1931"
OBLIQUE_DEGREES = 12.0

TEXT = b"Dear colleague, the images are on the disc that we sent to you. " * 40

# Share of the cohort's scans that are stored in an unusual way.
STORED_SHARE = 2 / 3
# Unusable files for each scan, below the usual cohort.max_rejected_fraction of 0.1.
UNUSABLE_SHARE = 0.08
# Scans with intact files that may get further files.
PLAIN = 4

# What archives call people who are neither AD nor CN.
OTHER_GROUPS: Final = ("MCI", "EMCI", "LMCI", "SMC", "Patient")
SHARED = "the same image under two subjects"
CHANGED = "a diagnosis that changed between visits"


@dataclass(frozen=True)
class Planted:
    """Line of ``planted.csv``; `file` is POSIX, relative to the collection."""

    file: str
    pitfall: str
    verdict: Verdict


@dataclass(frozen=True)
class ExtraSubject:
    """Person beyond the cohort, with the damaged file of `source`."""

    row: Row
    source: Row
    pitfall: str
    verdict: Verdict
    damage: Callable[[bytes], bytes] | None
    listed: bool = True


@dataclass(frozen=True)
class PlantedDefects:
    """Plan of the defects of a cohort.

    `stored` has the pitfall by subject and session. `shared` is the scan that another subject has too,
    `changed` that from before a diagnosis, and `plain` are scans without any of this.
    """

    stored: dict[tuple[str, str], str]
    extra_subjects: tuple[ExtraSubject, ...]
    shared: Row | None
    changed: Row | None
    plain: tuple[Row, ...]

    def pitfall(self, row: Row) -> str:
        """Return how a scan is stored, ``""`` if as usual."""
        return self.stored.get((row["subject"], row["session"]), "")


NO_DEFECTS: Final = PlantedDefects({}, (), None, None, ())


def plan_defects(cohort: pd.DataFrame, seed: int) -> PlantedDefects:
    """Plan the defects of a cohort of `draw_cohort`."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4,)))
    cohort = cohort[cohort["diagnosis"].isin(["AD", "CN"])]
    rows = cohort_rows(cohort.iloc[rng.permutation(len(cohort))])
    visits = cohort["subject"].value_counts()
    first_of_several = (row for row in rows if row["session"] == "01" and visits[row["subject"]] > 1)
    changed = next((row for row in first_of_several if row["diagnosis"] == "AD"), None)
    # Frames are a pitfall of their own.
    free = [row for row in rows if row is not changed and SITES[row["site"]].frames == 1]
    number = int(STORED_SHARE * len(free))
    scans = [(row["subject"], row["session"]) for row in free[:number]]
    stored = dict(zip(scans, cycle(READABLE), strict=False))
    plain = free[number:]
    shared = next((row for row in plain[1:] if visits[row["subject"]] == 1), None)
    sources = [row for row in plain if row is not shared]
    extra_subjects = _extra_subjects(cohort, sources, shared)
    if SHARED not in {subject.pitfall for subject in extra_subjects}:
        shared = None
    return PlantedDefects(stored, extra_subjects, shared, changed, tuple(sources[:PLAIN]))


def _extra_subjects(
    cohort: pd.DataFrame, sources: Sequence[Row], shared: Row | None
) -> tuple[ExtraSubject, ...]:
    last = int(cohort["subject"].iloc[-1][1:])
    other = {"verdict": "skipped", "damage": bytes}
    others = [(f"diagnosis {group}", group, other) for group in OTHER_GROUPS]
    chosen = [*others, *_unusable(int(UNUSABLE_SHARE * len(cohort)), shared)]
    subjects = []
    for number, (source, (pitfall, group, facts)) in enumerate(zip(cycle(sources), chosen, strict=False)):
        original = shared if pitfall == SHARED and shared else source
        own = {"subject": f"P{last + 1 + number:04d}", "session": "01", "diagnosis": group}
        subjects.append(ExtraSubject({**original, **own}, original, pitfall, **facts))
    return tuple(subjects)


def _unusable(budget: int, shared: Row | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for number, (pitfall, facts) in enumerate(UNUSABLE.items()):
        # Of a shared image both scans are lost.
        cost = 2 if pitfall == SHARED else 1
        if cost <= budget and (shared or pitfall != SHARED):
            budget -= cost
            yield pitfall, ("AD", "CN")[number % 2], {"verdict": "unusable", **facts}


UNUSABLE: Final[dict[str, dict[str, Any]]] = {
    "truncated file": {"damage": lambda content: content[: len(content) // 3]},
    "row without file": {"damage": None},
    SHARED: {"damage": bytes},
    "zero-byte file": {"damage": lambda _: b""},
    "text called .nii": {"damage": lambda _: TEXT},
    "file without row": {"damage": bytes, "listed": False},
}


def write_scan(path: Path, volume: Volume, *, pitfall: str = "") -> None:
    """Write a scan as int16 NIfTI-1, or as `pitfall` says."""
    if pitfall not in ENCODINGS:
        write_volume(path, volume, dtype=np.int16)
        return
    content = ENCODINGS[pitfall](volume)
    with atomic_write(path) as aside:
        aside.write_bytes(gzip.compress(content, 6, mtime=0) if path.name.endswith(".gz") else content)


def turned(volume: Volume, pitfall: str) -> Volume:
    """Return the volume in the geometry of `pitfall`, if any."""
    return GEOMETRIES[pitfall](volume) if pitfall in GEOMETRIES else volume


def _flipped(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (volume.data.shape[0] - 1)
    affine[:3, 0] *= -1
    return Volume(volume.data[::-1], affine)


def _oblique(volume: Volume) -> Volume:
    angle = np.radians(OBLIQUE_DEGREES)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return Volume(volume.data, turn @ volume.affine)


def _thick(volume: Volume) -> Volume:
    data = volume.data[:, :, : volume.data.shape[2] // 2 * 2]
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] / 2
    affine[:3, 2] *= 2
    return Volume(np.asarray((data[:, :, ::2] + data[:, :, 1::2]) / 2, dtype=np.float32), affine)


def _image(volume: Volume) -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.round(volume.data).astype(np.int16), volume.affine)
    image.header.set_xyzt_units("mm")
    return image


def _big_endian(volume: Volume) -> bytes:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(np.round(volume.data).astype(">i2"), volume.affine, header)
    return bytes(image.to_bytes())


def _slope_nan(volume: Volume) -> bytes:
    content = bytearray(_image(volume).to_bytes())
    content[SLOPE_BYTES] = np.array(np.nan, dtype="<f4").tobytes()
    return bytes(content)


def _nan_voxels(volume: Volume) -> bytes:
    data = volume.data.copy()
    data[0] = np.nan
    return bytes(nib.Nifti1Image(data, volume.affine).to_bytes())


def _names(volume: Volume) -> bytes:
    image = _image(volume)
    for name in ("descrip", "db_name", "aux_file", "intent_name"):
        image.header[name] = NAME
    for code in TEXT_EXTENSIONS:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, b"PatientName " + NAME))
    return bytes(image.to_bytes())


GEOMETRIES: Final[dict[str, Callable[[Volume], Volume]]] = {
    "left-right flipped storage": _flipped,
    "oblique affine": _oblique,
    "anisotropic voxels": _thick,
}
ENCODINGS: Final[dict[str, Callable[[Volume], bytes]]] = {
    "big-endian": _big_endian,
    "NIfTI-2": lambda volume: bytes(nib.Nifti2Image(_image(volume).dataobj, volume.affine).to_bytes()),
    "trailing axis of 1": lambda volume: bytes(
        _image(Volume(volume.data[..., None], volume.affine)).to_bytes()
    ),
    "scl_slope NaN": _slope_nan,
    "NaN voxels": _nan_voxels,
    "names in header and extensions": _names,
}
ODD_NAME = "file name with comma, space and umlaut"
# All of these are read, and read right.
READABLE: Final = (*ENCODINGS, *GEOMETRIES, ODD_NAME)
