"""Write a simulated cohort in BIDS or as ADNI download."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd

from adpet.cohort.scans import write_table
from adpet.cohort.tables import Candidate
from adpet.imaging.nifti import Volume, write_volume
from adpet.parallel import map_in_processes
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import (
    FIRST_NUMBER,
    Row,
    SimulatedScan,
    SimulationRecipe,
    cohort_rows,
    draw_cohort,
    simulate_scan,
)
from adpet.simulation.defects import (
    CHANGED,
    NO_DEFECTS,
    ODD_NAME,
    SHARED,
    ExtraSubject,
    Planted,
    PlantedDefects,
    Verdict,
    plan_defects,
    turned,
    write_scan,
)
from adpet.simulation.scanner import SCANNERS, SITES
from adpet.storage import atomic_write, write_json

# ADNI: descriptions of processing levels.
AVERAGED: Final = "Co-registered, Averaged"
DYNAMIC: Final = "Co-registered Dynamic"
RAW: Final = "ADNI Brain PET: Raw FDG"
STANDARDIZED: Final = "Coreg, Avg, Standardized Image and Voxel Size"
FRAMES = "six frames, each in a file of its own"
# ADNI: its tables.
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
# ADNI: image numbers; a subject has a hundred, a visit ten.
FIRST_IMAGE, IMAGES_A_SUBJECT, IMAGES_A_VISIT = 1_000_000, 100, 10
# Every third subject's leaf folders are named by the series; every third site numbers its visits.
SERIES_LEAVES, NUMBERED_VISITS = 3, 3

# BIDS: the tracer's entity, a label that BIDS does not allow and people give, duration of a scan in s.
FDG: Final = "trc-18FFDG"
ODD_LABEL = "rec-Größe, neu 1"
SECONDS = 1800


@dataclass(frozen=True)
class Image:
    """Row of the collection CSV; `version` 0 is the scan."""

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
        """The end of a file's name."""
        return f"S{self.number}_I{self.number}.nii"

    @property
    def _described(self) -> str:
        return self.description.replace(" ", "_").replace(":", "_")


@dataclass(frozen=True)
class AdniTree:
    """ADNI download below `root`."""

    root: Path
    defects: PlantedDefects = NO_DEFECTS

    def key(self, row: Row) -> str:
        """Return the key that ingest gives a scan."""
        return Candidate(self.root, _ptid(row), _visit(row)).key

    def path(self, row: Row) -> Path:
        """Return a scan's file, or the folder of its frames."""
        image = self._image(row)
        folder = self.root / image.folder
        if image.description == RAW:
            return folder
        if self.defects.pitfall(row) == ODD_NAME:
            return folder / f"Aufnahme, größer als 1_{image.ending}"
        return folder / image.name()

    def write(self, row: Row, scan: SimulatedScan) -> None:
        """Write a scan; frames in a folder all at once."""
        pitfall, path = self.defects.pitfall(row), self.path(row)
        image = self._image(row)
        if image.description != RAW:
            write_scan(path, turned(scan.volume, pitfall), pitfall=pitfall)
            return
        with atomic_write(path) as folder:
            for frame in range(SITES[row["site"]].frames):
                volume = Volume(scan.volume.data[..., frame], scan.volume.affine)
                write_scan(folder / image.name(frame + 1), volume)

    def finish(self, cohort: pd.DataFrame) -> list[Planted]:
        """Write tables and defects; return what was planted."""
        rows = cohort_rows(cohort)
        extra_subjects = self.defects.extra_subjects
        listed = [*rows, *(subject.row for subject in extra_subjects if subject.listed)]
        versions = list(_further_images(self.defects.plain))
        images = [*map(self._image, listed), *versions]
        _write_rows(self.root / COLLECTION, COLLECTION_COLUMNS, map(self._collection_row, images))
        if self.defects == NO_DEFECTS:
            return []
        _write_rows(self.root / DIAGNOSES, DIAGNOSIS_COLUMNS, map(self._diagnosis_row, listed))
        return [*_stored(self, rows), *map(self._extra_subject, extra_subjects), *self._versions(versions)]

    def _image(self, row: Row) -> Image:
        if SITES[row["site"]].frames == 1:
            return Image(row)
        return Image(row, DYNAMIC if self.defects == NO_DEFECTS else RAW)

    def pitfall(self, row: Row) -> str:
        """Return how a scan is stored, ``""`` if as usual."""
        return FRAMES if self._image(row).description == RAW else self.defects.pitfall(row)

    def _extra_subject(self, subject: ExtraSubject) -> Planted:
        if not subject.damage:
            return Planted(f"I{Image(subject.row).number}", subject.pitfall, subject.verdict)
        path = self.path(subject.row)
        _write_bytes(path, subject.damage(self.path(subject.source).read_bytes()))
        return _planted(self, path, subject.pitfall, subject.verdict)

    def _versions(self, images: Iterable[Image]) -> Iterator[Planted]:
        for image in images:
            if image.description != STANDARDIZED:
                path = self.root / image.folder / image.name()
                _write_bytes(path, self.path(image.row).read_bytes())
                pitfall = f"{image.modality} '{image.description}' of the same visit"
                yield _planted(self, path, pitfall, "skipped")
        for row in self.defects.plain[-1:]:
            path = self.path(row)
            # After its original in the order of names, whichever of the two forms that has.
            copy = path.parent.with_name("copy") / path.name
            _write_bytes(copy, path.read_bytes())
            yield _planted(self, copy, "copy in another folder", "skipped")
            yield _macos_twin(self, path)

    def _collection_row(self, image: Image) -> list[Any]:
        row, day = image.row, date.fromisoformat(image.row["date"])
        messy = self.defects != NO_DEFECTS
        padded = f"{day.month:02d}/{day.day:02d}/{day.year}"
        short = f"{day.month}/{day.day}/{day.year}"
        return [
            str(image.number) if messy and _rid(row) % 5 == 0 else f"I{image.number}",
            _ptid(row), row["diagnosis"], row["sex"], round(row["age"]), _visit(row), image.modality,
            image.description, "Original" if image.description == RAW else "Processed",
            short if messy and _rid(row) % 2 else padded, "NiFTI", "1/15/2024",
        ]  # fmt: skip

    def _diagnosis_row(self, row: Row) -> list[Any]:
        code = MCI_CODE if row == self.defects.changed else DIAGNOSIS_CODES.get(row["diagnosis"], MCI_CODE)
        exam = date.fromisoformat(row["date"]) + EXAM_DELAY
        return [_ptid(row), _rid(row), _viscode(row), exam.isoformat(), code]


@dataclass(frozen=True)
class BidsTree:
    """BIDS-PET dataset below `root`."""

    root: Path
    defects: PlantedDefects = NO_DEFECTS

    def key(self, row: Row) -> str:
        """Return the key that ingest gives a scan."""
        return Candidate(self.root, row["subject"], row["session"]).key

    def path(self, row: Row) -> Path:
        """Return a scan's file."""
        label = f"{FDG}_{ODD_LABEL}" if self.defects.pitfall(row) == ODD_NAME else FDG
        # Noise hardly compresses: six frames are not worth the time.
        suffix = ".nii.gz" if SITES[row["site"]].frames == 1 else ".nii"
        return self._file(row, f"{label}_pet{suffix}")

    def write(self, row: Row, scan: SimulatedScan) -> None:
        """Write a scan after its sidecar: it stands for both."""
        pitfall, path = self.defects.pitfall(row), self.path(row)
        write_json(_sidecar_path(path), _sidecar(row, scan.injected_mbq))
        write_scan(path, turned(scan.volume, pitfall), pitfall=pitfall)

    def finish(self, cohort: pd.DataFrame) -> list[Planted]:
        """Write tables and defects; return what was planted."""
        extra = pd.DataFrame([subject.row for subject in self.defects.extra_subjects if subject.listed])
        write_json(
            self.root / "dataset_description.json",
            {
                "Name": "adpet simulate: simulated FDG-PET of people with and without Alzheimer's disease",
                "BIDSVersion": "1.9.0",
                "DatasetType": "raw",
                "License": "MIT",
                "GeneratedBy": [{"Name": "adpet", "Description": "adpet.simulation.cohort"}],
            },
        )
        people = pd.concat([cohort, extra], ignore_index=True).drop_duplicates("subject")
        people = people.assign(participant_id=people["subject"].radd("sub-"))
        columns = ["participant_id", "age", "sex", "diagnosis", "site"]
        write_table(self.root / "participants.tsv", people[columns], separator="\t")
        self._write_sessions(cohort)
        return [*_stored(self, cohort_rows(cohort)), *self._extra_subjects(), *self._further_files()]

    def _write_sessions(self, cohort: pd.DataFrame) -> None:
        changed = self.defects.changed
        for subject, visits in cohort.groupby("subject"):
            if len(visits) > 1:
                table = visits.assign(session_id=visits["session"].radd("ses-"))
                if changed and changed["subject"] == subject:
                    table.loc[table["session"] == changed["session"], "diagnosis"] = "MCI"
                path = self.root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
                write_table(path, table[["session_id", "age", "diagnosis"]], separator="\t")

    def pitfall(self, row: Row) -> str:
        """Return how a scan is stored, ``""`` if as usual."""
        return self.defects.pitfall(row)

    def _extra_subjects(self) -> Iterator[Planted]:
        for subject in self.defects.extra_subjects:
            # A participant without files is no fault in BIDS.
            if subject.damage:
                path = self.path(subject.row)
                self._copy(subject.source, path, {})
                path.write_bytes(subject.damage(path.read_bytes()))
                yield _planted(self, path, subject.pitfall, subject.verdict)

    def _further_files(self) -> Iterator[Planted]:
        if not self.defects.plain:
            return
        row = self.defects.plain[0]
        session, suffix = self.path(row).parents[1], "".join(self.path(row).suffixes)
        tracer = self._file(row, f"trc-18FAV45_pet{suffix}")
        self._copy(row, tracer, {"TracerName": "AV45"})
        yield _planted(self, tracer, "another tracer", "skipped")
        again = self._file(row, f"{FDG}_rec-late_pet{suffix}")
        self._copy(row, again, {"ReconMethodName": "FBP"})
        yield _planted(self, again, "another reconstruction", "skipped")
        anatomy = session / "anat" / self._file(row, f"T1w{suffix}").name
        _write_bytes(anatomy, self.path(row).read_bytes())
        yield _planted(self, anatomy, "MRI", "ignored")
        yield _macos_twin(self, self.path(row))

    def _file(self, row: Row, ending: str) -> Path:
        subject, session = f"sub-{row['subject']}", f"ses-{row['session']}"
        return self.root / subject / session / "pet" / f"{subject}_{session}_{ending}"

    def _copy(self, row: Row, path: Path, facts: dict[str, Any]) -> None:
        write_json(_sidecar_path(path), _sidecar(row, 185.0) | facts)
        path.write_bytes(self.path(row).read_bytes())


Tree: TypeAlias = BidsTree | AdniTree


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
    """Simulate a cohort; write the collection and its truth.

    The truth is ``severity.tsv``, one row a scan, and ``<scan>_deficit.nii.gz`` for each scan whose severity
    is not 0, where ``<scan>`` is the key that ingest gives it. A varied cohort has pattern, asymmetry (above
    0: the left side is worse) and the course of MCI there too. A scan that exists already is whole and not
    made again, so that a killed call continues. `messy` plants the pitfalls of real collections, and lists
    them in ``planted.csv`` with the verdict that ingest must come to: ``read``, ``skipped``, ``unusable``, or
    ``ignored`` if no table of ingest names it.
    """
    cohort = draw_cohort(recipe)
    defects = plan_defects(cohort, recipe.seed) if messy else NO_DEFECTS
    tree: Tree = BidsTree(folder_raw, defects) if layout == "bids" else AdniTree(folder_raw, defects)
    rows = cohort_rows(cohort)
    write = partial(_write_scan, tree=tree, folder_truth=folder_truth, recipe=recipe)
    for _ in progress(map_in_processes(write, rows, workers=workers), total=len(rows)):
        pass
    planted = tree.finish(cohort)
    truth = cohort[["subject", "session", "diagnosis", "severity"]].copy()
    truth.insert(0, "scan", [tree.key(row) for row in rows])
    truth["deficit"] = [_deficit_name(tree, row) if row["severity"] > 0 else "n/a" for row in rows]
    if recipe.varied:
        ill = cohort["severity"] > 0
        truth["pattern"] = cohort["pattern"].where(ill, "n/a")
        truth["asymmetry"] = cohort["asymmetry"].where(ill, 0.0)
        truth["course"] = cohort["course"].replace("", "n/a")
    write_table(folder_truth / "severity.tsv", truth, separator="\t")
    if messy:
        table = pd.DataFrame(map(asdict, planted), columns=["file", "pitfall", "verdict"])
        write_table(folder_truth / "planted.csv", table.sort_values("file"))


def _write_scan(row: Row, *, tree: Tree, folder_truth: Path, recipe: SimulationRecipe) -> None:
    if tree.path(row).exists():
        return
    scan = simulate_scan(row, recipe, load_anatomy())
    if scan.deficit is not None:
        deficit = turned(scan.deficit, tree.defects.pitfall(row))
        write_volume(folder_truth / _deficit_name(tree, row), deficit, dtype=np.uint8)
    tree.write(row, scan)


def _stored(tree: Tree, rows: Sequence[Row]) -> Iterator[Planted]:
    for row in rows:
        if row["diagnosis"] in FIRST_NUMBER:
            yield _planted(tree, tree.path(row), f"diagnosis {row['diagnosis']}", "skipped")
        elif row == tree.defects.changed:
            yield _planted(tree, tree.path(row), CHANGED, "skipped")
        elif row == tree.defects.shared:
            yield _planted(tree, tree.path(row), SHARED, "unusable")
        elif pitfall := tree.pitfall(row):
            yield _planted(tree, tree.path(row), pitfall, "read")


def _planted(tree: Tree, path: Path, pitfall: str, verdict: Verdict) -> Planted:
    return Planted(path.relative_to(tree.root).as_posix(), pitfall, verdict)


def _macos_twin(tree: Tree, path: Path) -> Planted:
    twin = path.with_name(f"._{path.name}")
    twin.write_bytes(b"\0\5\x16\7Mac OS X")
    return _planted(tree, twin, "twin that macOS leaves", "ignored")


def _deficit_name(tree: Tree, row: Row) -> str:
    return f"{tree.key(row)}_deficit.nii.gz"


def _further_images(plain: Sequence[Row]) -> Iterator[Image]:
    descriptions = (DYNAMIC, RAW, f"AV45 {AVERAGED}", "MPRAGE", STANDARDIZED)
    for version, description in enumerate(descriptions if plain else (), start=1):
        modality = "MRI" if description == "MPRAGE" else "PET"
        yield Image(plain[version % len(plain)], description, version, modality)


def _rid(row: Row) -> int:
    return int(row["subject"][1:])


def _ptid(row: Row) -> str:
    return f"{int(row['site'][1:]):03d}_S_{_rid(row):04d}"


def _viscode(row: Row) -> str:
    """Return ``bl``, or the month of a six-monthly follow-up."""
    return f"m{6 * round(row['years'] * 2):02d}" if row["years"] else "bl"


def _visit(row: Row) -> str:
    numbered = int(row["site"][1:]) % NUMBERED_VISITS == 0
    return str(int(row["session"])) if numbered else _viscode(row)


def _sidecar_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def _sidecar(row: Row, injected_mbq: float) -> dict[str, Any]:
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


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_write(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([columns, *rows])


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
