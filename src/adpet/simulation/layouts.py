"""Write a simulated cohort as a BIDS-PET tree or an ADNI download."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from adpet.cohort.tables import Candidate
from adpet.imaging.nifti import Volume, write_volume
from adpet.parallel import map_in_processes
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import (
    Row,
    SimulatedScan,
    SimulationRecipe,
    cohort_rows,
    draw_cohort,
    simulate_scan,
)
from adpet.simulation.defects import (
    CHANGED,
    NO_MESS,
    ODD_NAME,
    SHARED,
    Guest,
    Mess,
    Planted,
    Verdict,
    plan_mess,
    turned,
    write_scan,
)
from adpet.simulation.scanner import SCANNERS, SITES
from adpet.storage import atomic_write, write_json

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

    def write(self, row: Row, scan: SimulatedScan) -> None:
        """Write a scan; frames in a folder of their own all at once."""
        pitfall, path = self.mess.pitfall(row), self.path(row)
        image = self._image(row)
        if image.description != RAW:
            write_scan(path, turned(scan.volume, pitfall), pitfall=pitfall)
            return
        with atomic_write(path) as folder:
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
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([columns, *rows])


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


FDG: Final = "trc-18FFDG"
# A label that BIDS does not allow and people give.
ODD_LABEL = "rec-Größe, neu 1"
SECONDS = 1800


@dataclass(frozen=True)
class BidsTree:
    """A dataset that is filled: `root` is its folder."""

    root: Path
    mess: Mess = NO_MESS

    def key(self, row: Row) -> str:
        """Return the key that ingest gives a scan."""
        return Candidate(self.root, row["subject"], row["session"]).key

    def path(self, row: Row) -> Path:
        """Return where the scan of a row lies."""
        label = f"{FDG}_{ODD_LABEL}" if self.mess.pitfall(row) == ODD_NAME else FDG
        # Noise hardly compresses: six frames are not worth the time.
        suffix = ".nii.gz" if SITES[row["site"]].frames == 1 else ".nii"
        return self._file(row, f"{label}_pet{suffix}")

    def write(self, row: Row, scan: SimulatedScan) -> None:
        """Write a scan and its sidecar; the scan comes last and stands for both."""
        pitfall, path = self.mess.pitfall(row), self.path(row)
        write_json(_sidecar_path(path), _sidecar(row, scan.injected_mbq))
        write_scan(path, turned(scan.volume, pitfall), pitfall=pitfall)

    def finish(self, cohort: pd.DataFrame) -> list[Planted]:
        """Write the tables and whatever is planted beside the scans; return what was planted."""
        guests = pd.DataFrame([guest.row for guest in self.mess.guests if guest.listed])
        _write_description(self.root)
        _write_people(self.root, pd.concat([cohort, guests], ignore_index=True))
        _write_sessions(self.root, cohort, self.mess.changed)
        return [*self._stored(cohort_rows(cohort)), *self._guests(), *self._beside()]

    def _stored(self, rows: list[Row]) -> Iterator[Planted]:
        for row in rows:
            if pitfall := self.mess.pitfall(row):
                yield self._planted(self.path(row), pitfall, "read")
        if self.mess.shared:
            yield self._planted(self.path(self.mess.shared), SHARED, "unusable")
        if self.mess.changed:
            yield self._planted(self.path(self.mess.changed), CHANGED, "skipped")

    def _guests(self) -> Iterator[Planted]:
        for guest in self.mess.guests:
            # Nobody misses the files of a participant.
            if guest.damage:
                path = self.path(guest.row)
                self._copy(guest.source, path, {})
                path.write_bytes(guest.damage(path.read_bytes()))
                yield self._planted(path, guest.pitfall, guest.verdict)

    def _beside(self) -> Iterator[Planted]:
        """Write what lies beside a plain scan: other tracers, reconstructions, MRI, and what macOS leaves."""
        if not self.mess.plain:
            return
        row = self.mess.plain[0]
        session, suffix = self.path(row).parents[1], "".join(self.path(row).suffixes)
        tracer = self._file(row, f"trc-18FAV45_pet{suffix}")
        self._copy(row, tracer, {"TracerName": "AV45"})
        yield self._planted(tracer, "another tracer", "skipped")
        again = self._file(row, f"{FDG}_rec-late_pet{suffix}")
        self._copy(row, again, {"ReconMethodName": "FBP"})
        yield self._planted(again, "another reconstruction", "skipped")
        anatomy = session / "anat" / self._file(row, f"T1w{suffix}").name
        anatomy.parent.mkdir(parents=True, exist_ok=True)
        anatomy.write_bytes(self.path(row).read_bytes())
        yield self._planted(anatomy, "MRI", "ignored")
        twin = self.path(row).with_name(f"._{self.path(row).name}")
        twin.write_bytes(b"\0\5\x16\7Mac OS X")
        yield self._planted(twin, "twin that macOS leaves", "ignored")

    def _file(self, row: Row, ending: str) -> Path:
        subject, session = f"sub-{row['subject']}", f"ses-{row['session']}"
        return self.root / subject / session / "pet" / f"{subject}_{session}_{ending}"

    def _copy(self, row: Row, path: Path, facts: dict[str, Any]) -> None:
        write_json(_sidecar_path(path), _sidecar(row, 185.0) | facts)
        path.write_bytes(self.path(row).read_bytes())

    def _planted(self, path: Path, pitfall: str, verdict: Verdict) -> Planted:
        return Planted(path.relative_to(self.root).as_posix(), pitfall, verdict)


def _sidecar_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def _sidecar(row: Row, injected_mbq: float) -> dict[str, Any]:
    """Return the BIDS-PET fields of one scan."""
    scanner = SCANNERS[row["scanner"]]
    frames = SITES[row["site"]].frames
    seconds = SECONDS // frames
    return {
        "Manufacturer": scanner.manufacturer,
        "ManufacturersModelName": scanner.model,
        "InstitutionName": row["site"],
        "Modality": "PT",
        "Units": "Bq/mL",
        "TracerName": "FDG",
        "TracerRadionuclide": "F18",
        "InjectedRadioactivity": injected_mbq,
        "InjectedRadioactivityUnits": "MBq",
        "ModeOfAdministration": "bolus",
        "TimeZero": "10:00:00",
        "InjectionStart": 0,
        "ScanStart": 1800,
        "FrameTimesStart": [seconds * frame for frame in range(frames)],
        "FrameDuration": [seconds] * frames,
        "AcquisitionMode": "list mode",
        "ReconMethodName": scanner.method,
        "ReconFilterType": "none",
        "AttenuationCorrection": "simulated",
        "ImageDecayCorrected": True,
        "ImageDecayCorrectionTime": 0,
    }


def _write_description(folder: Path) -> None:
    write_json(
        folder / "dataset_description.json",
        {
            "Name": "adpet simulate: simulated FDG-PET of people with and without Alzheimer's disease",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "MIT",
            "GeneratedBy": [{"Name": "adpet", "Description": "adpet.simulation.cohort"}],
        },
    )


def _write_people(folder: Path, people: pd.DataFrame) -> None:
    first = people.drop_duplicates("subject").copy()
    first["participant_id"] = first["subject"].radd("sub-")
    _write_tsv(folder / "participants.tsv", first[["participant_id", "age", "sex", "diagnosis", "site"]])


def _write_sessions(folder: Path, cohort: pd.DataFrame, changed: Row | None) -> None:
    for subject, visits in cohort.groupby("subject"):
        if len(visits) > 1:
            table = visits.assign(session_id=visits["session"].radd("ses-"))
            if changed and changed["subject"] == subject:
                table.loc[table["session"] == changed["session"], "diagnosis"] = "MCI"
            path = folder / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
            _write_tsv(path, table[["session_id", "age", "diagnosis"]])


def _write_tsv(path: Path, table: pd.DataFrame) -> None:
    with atomic_write(path) as aside:
        table.to_csv(aside, sep="\t", index=False, lineterminator="\n")


Tree = BidsTree | AdniTree


def write_cohort(
    folder_raw: Path,
    folder_truth: Path,
    recipe: SimulationRecipe,
    *,
    layout: Literal["bids", "adni"] = "bids",
    messy: bool = False,
    workers: int = 1,
    progress: Callable[..., Iterable[Any]] = lambda items, **_: items,
) -> None:
    """Simulate a cohort and write it as a collection, its truth into another folder.

    The truth is ``severity.tsv``, one row a scan, and ``<scan>_deficit.nii.gz`` for each scan whose severity
    is not 0, where ``<scan>`` is the key that ingest gives it. A scan that is there already is whole and not
    made again, so that a killed call continues; the folders must have been begun with the same arguments.

    Parameters
    ----------
    layout : "bids" or "adni"
        A BIDS-PET dataset, or a download of ADNI's archive with its CSV.
    messy : bool
        Plant the pitfalls of real collections, and list them in ``planted.csv`` beside the truth: the file or
        folder, relative to `folder_raw`; the pitfall; and the verdict that ingest must come to: ``read``,
        ``skipped``, ``unusable``, or ``ignored`` where no table of ingest names it. In ADNI's layout it must
        know ``cohort.diagnosis_table``.
    workers : int
        Processes; each holds one scan at a time.
    progress : callable
        Wraps the iterable of finished scans; called with it and ``total=``.
    """
    cohort = draw_cohort(recipe)
    mess = plan_mess(cohort, recipe.seed) if messy else NO_MESS
    tree: Tree = BidsTree(folder_raw, mess) if layout == "bids" else AdniTree(folder_raw, mess)
    rows = cohort_rows(cohort)
    one = partial(_write_scan, tree=tree, folder_truth=folder_truth, recipe=recipe)
    for _ in progress(map_in_processes(one, rows, workers=workers), total=len(rows)):
        pass
    planted = tree.finish(cohort)
    _write_truth(folder_truth, tree, cohort)
    if messy:
        _write_table(folder_truth / "planted.csv", _planted_table(planted), separator=",")


def _write_scan(row: Row, *, tree: Tree, folder_truth: Path, recipe: SimulationRecipe) -> None:
    """Write a scan and its truth; the scan comes last and stands for both."""
    if tree.path(row).exists():
        return
    scan = simulate_scan(row, recipe, load_anatomy())
    if scan.deficit is not None:
        deficit = turned(scan.deficit, tree.mess.pitfall(row))
        write_volume(folder_truth / _deficit_name(tree, row), deficit, dtype=np.uint8)
    tree.write(row, scan)


def _deficit_name(tree: Tree, row: Row) -> str:
    return f"{tree.key(row)}_deficit.nii.gz"


def _write_truth(folder: Path, tree: Tree, cohort: pd.DataFrame) -> None:
    truth = cohort[["subject", "session", "diagnosis", "severity"]].copy()
    rows = cohort_rows(cohort)
    truth.insert(0, "scan", [tree.key(row) for row in rows])
    truth["deficit"] = [_deficit_name(tree, row) if row["severity"] > 0 else "n/a" for row in rows]
    _write_table(folder / "severity.tsv", truth, separator="\t")


def _planted_table(planted: Iterable[Planted]) -> pd.DataFrame:
    table = pd.DataFrame(map(asdict, planted), columns=["file", "pitfall", "verdict"])
    return table.sort_values("file", ignore_index=True)


def _write_table(path: Path, table: pd.DataFrame, *, separator: str) -> None:
    with atomic_write(path) as aside:
        table.to_csv(aside, sep=separator, index=False, lineterminator="\n")
