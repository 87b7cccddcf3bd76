"""Lay the phantom out as ADNI's archive delivers a collection, clean or with what real downloads hold.

Sites are the three digits before ``_S_``. Scans are "Co-registered, Averaged", on the scanner's own grid, and
"Co-registered Dynamic" from the site that delivers frames; a messy download has its raw frames, one a file.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd

from adpet.artifacts import written_aside
from adpet.cohort.candidates import Candidate
from adpet.cohort.phantom import PhantomScan, Row, cohort_rows
from adpet.cohort.phantom_pitfalls import CHANGED, NO_MESS, SHARED, Guest, Mess, Planted, Verdict
from adpet.cohort.phantom_stored import ODD_NAME, turned, write_scan
from adpet.cohort.scanner import SITES
from adpet.imaging.volume import Volume

AVERAGED: Final = "Co-registered, Averaged"
DYNAMIC: Final = "Co-registered Dynamic"
RAW: Final = "ADNI Brain PET: Raw FDG"
STANDARDIZED: Final = "Coreg, Avg, Standardized Image and Voxel Size"
FRAMES = "six frames, each in a file of its own"

COLLECTION = "FDG_PET_1_15_2024.csv"
COLLECTION_COLUMNS: Final = (
    "Image Data ID", "Subject", "Group", "Sex", "Age", "Visit", "Modality", "Description", "Type", "Acq Date",
    "Format", "Downloaded",
)  # fmt: skip
DIAGNOSES = "DXSUM.csv"
DIAGNOSIS_COLUMNS: Final = ("PTID", "RID", "VISCODE", "EXAMDATE", "DIAGNOSIS")
DIAGNOSIS_CODES: Final = {"CN": 1, "AD": 3}
MCI_CODE = 2
# The examination is some days after the scan.
EXAM_DELAY = timedelta(days=9)

# Image numbers: a subject has a hundred, a visit ten.
FIRST_IMAGE, IMAGES_A_SUBJECT, IMAGES_A_VISIT = 1_000_000, 100, 10
# Every third subject's leaf folders are named by the series; every third site numbers its visits.
SERIES_LEAVES, NUMBERED_VISITS = 3, 3


@dataclass(frozen=True)
class Image:
    """One row of the collection CSV; `version` counts the images of a scan, 0 being the one to be read."""

    row: Row
    description: str = AVERAGED
    version: int = 0
    modality: str = "PET"

    @property
    def number(self) -> int:
        """The archive's number, unique in the collection."""
        visit = int(self.row["session"]) - 1
        own = IMAGES_A_SUBJECT * _rid(self.row) + IMAGES_A_VISIT * visit + self.version
        return FIRST_IMAGE + own

    @property
    def folder(self) -> Path:
        """The leaf folder, relative to the collection's."""
        leaf = f"S{self.number}" if _rid(self.row) % SERIES_LEAVES == 0 else f"I{self.number}"
        return Path("ADNI", _ptid(self.row), self._described, f"{self.row['date']}_10_15_20.0", leaf)

    def name(self, frame: int | None = None) -> str:
        """Return the name of the file, or of one frame's."""
        kind = "PT" if self.modality == "PET" else "MR"
        stamp = f"{self.row['date'].replace('-', '')}101520123" + ("" if frame is None else f"_{frame}")
        return f"ADNI_{_ptid(self.row)}_{kind}_{self._described}_Br_{stamp}_{self.ending}"

    @property
    def ending(self) -> str:
        """What a file's name ends in."""
        return f"S{self.number}_I{self.number}.nii"

    @property
    def _described(self) -> str:
        return self.description.replace(" ", "_").replace(":", "_")


@dataclass(frozen=True)
class AdniTree:
    """A download that is filled: `root` is its folder."""

    root: Path
    mess: Mess = NO_MESS

    def key(self, row: Row) -> str:
        """Return the key that ingest gives a scan."""
        return Candidate(self.root, _ptid(row), _visit(row)).key

    def path(self, row: Row) -> Path:
        """Return where the scan of a row lies: a file, or the folder of its frames."""
        image = self._image(row)
        folder = self.root / image.folder
        if image.description == RAW:
            return folder
        if self.mess.pitfall(row) == ODD_NAME:
            return folder / f"Aufnahme, größer als 1_{image.ending}"
        return folder / image.name()

    def write(self, row: Row, scan: PhantomScan) -> None:
        """Write a scan; frames in a folder of their own all at once."""
        pitfall, path = self.mess.pitfall(row), self.path(row)
        image = self._image(row)
        if image.description != RAW:
            write_scan(path, turned(scan.volume, pitfall), pitfall=pitfall)
            return
        with written_aside(path) as folder:
            for frame in range(SITES[row["site"]].frames):
                one = Volume(scan.volume.data[..., frame], scan.volume.affine)
                write_scan(folder / image.name(frame + 1), one)

    def finish(self, cohort: pd.DataFrame) -> list[Planted]:
        """Write the tables and whatever is planted beside the scans; return what was planted."""
        rows = cohort_rows(cohort)
        guests = self.mess.guests
        listed = [*rows, *(guest.row for guest in guests if guest.listed)]
        beside = list(_beside(self.mess.plain))
        images = [*map(self._image, listed), *beside]
        _write_rows(self.root / COLLECTION, COLLECTION_COLUMNS, map(self._collection_row, images))
        if self.mess == NO_MESS:
            return []
        _write_rows(self.root / DIAGNOSES, DIAGNOSIS_COLUMNS, map(self._diagnosis_row, listed))
        return [*self._stored(rows), *map(self._guest, guests), *self._versions(beside)]

    def _image(self, row: Row) -> Image:
        if SITES[row["site"]].frames == 1:
            return Image(row)
        return Image(row, DYNAMIC if self.mess == NO_MESS else RAW)

    def _stored(self, rows: Sequence[Row]) -> Iterator[Planted]:
        for row in rows:
            if row == self.mess.changed:
                yield self._planted(self.path(row), CHANGED, "skipped")
            elif row == self.mess.shared:
                yield self._planted(self.path(row), SHARED, "unusable")
            elif self._image(row).description == RAW:
                yield self._planted(self.path(row), FRAMES, "read")
            elif pitfall := self.mess.pitfall(row):
                yield self._planted(self.path(row), pitfall, "read")

    def _guest(self, guest: Guest) -> Planted:
        if not guest.damage:
            return Planted(f"I{Image(guest.row).number}", guest.pitfall, guest.verdict)
        path = self.path(guest.row)
        _write_bytes(path, guest.damage(self.path(guest.source).read_bytes()))
        return self._planted(path, guest.pitfall, guest.verdict)

    def _versions(self, images: Iterable[Image]) -> Iterator[Planted]:
        """Write the files of further images of plain scans, a copy of one, and what macOS leaves."""
        for image in images:
            if image.description != STANDARDIZED:
                path = self.root / image.folder / image.name()
                _write_bytes(path, self.path(image.row).read_bytes())
                yield self._planted(
                    path, f"{image.modality} '{image.description}' of the same visit", "skipped"
                )
        for row in self.mess.plain[-1:]:
            path = self.path(row)
            # After its original in the order of names, whichever of the two forms that has.
            copy = path.parent.with_name("copy") / path.name
            _write_bytes(copy, path.read_bytes())
            yield self._planted(copy, "copy in another folder", "skipped")
            twin = path.with_name(f"._{path.name}")
            twin.write_bytes(b"\0\5\x16\7Mac OS X")
            yield self._planted(twin, "twin that macOS leaves", "ignored")

    def _collection_row(self, image: Image) -> list[Any]:
        """Return one row as one of the archive's exports spells it."""
        row, day = image.row, date.fromisoformat(image.row["date"])
        messy = self.mess != NO_MESS
        padded = f"{day.month:02d}/{day.day:02d}/{day.year}"
        short = f"{day.month}/{day.day}/{day.year}"
        return [
            str(image.number) if messy and _rid(row) % 5 == 0 else f"I{image.number}",
            _ptid(row), row["diagnosis"], row["sex"], round(row["age"]), _visit(row), image.modality,
            image.description, "Original" if image.description == RAW else "Processed",
            short if messy and _rid(row) % 2 else padded, "NiFTI", "1/15/2024",
        ]  # fmt: skip

    def _diagnosis_row(self, row: Row) -> list[Any]:
        code = MCI_CODE if row == self.mess.changed else DIAGNOSIS_CODES.get(row["diagnosis"], MCI_CODE)
        exam = date.fromisoformat(row["date"]) + EXAM_DELAY
        return [_ptid(row), _rid(row), _viscode(row), exam.isoformat(), code]

    def _planted(self, path: Path, pitfall: str, verdict: Verdict) -> Planted:
        return Planted(path.relative_to(self.root).as_posix(), pitfall, verdict)


def _beside(plain: Sequence[Row]) -> Iterator[Image]:
    """Yield further images of plain scans: levels, tracers and modalities; the last was not downloaded."""
    versions = (
        partial(Image, description=DYNAMIC),
        partial(Image, description=RAW),
        partial(Image, description=f"AV45 {AVERAGED}"),
        partial(Image, description="MPRAGE", modality="MRI"),
        partial(Image, description=STANDARDIZED),
    )
    for version, image in enumerate(versions, start=1):
        if plain:
            yield replace(image(plain[version % len(plain)]), version=version)


def _rid(row: Row) -> int:
    return int(row["subject"][1:])


def _ptid(row: Row) -> str:
    return f"{int(row['site'][1:]):03d}_S_{_rid(row):04d}"


def _viscode(row: Row) -> str:
    """Return ``bl``, or the month of a follow-up as ADNI plans them, every six."""
    return f"m{6 * round(row['years'] * 2):02d}" if row["years"] else "bl"


def _visit(row: Row) -> str:
    """Return the visit as the collection CSV names it."""
    numbered = int(row["site"][1:]) % NUMBERED_VISITS == 0
    return str(int(row["session"])) if numbered else _viscode(row)


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([columns, *rows])


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
