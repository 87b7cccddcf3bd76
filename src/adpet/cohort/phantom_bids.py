"""Lay the phantom out as a BIDS-PET dataset, clean or with what real datasets hold beside their scans."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from adpet.artifacts import write_json, written_aside
from adpet.cohort.candidates import Candidate
from adpet.cohort.phantom import PhantomScan, Row, cohort_rows
from adpet.cohort.phantom_pitfalls import CHANGED, NO_MESS, SHARED, Mess, Planted, Verdict
from adpet.cohort.phantom_stored import ODD_NAME, turned, write_scan
from adpet.cohort.scanner import SCANNERS, SITES

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

    def write(self, row: Row, scan: PhantomScan) -> None:
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
            "Name": "adpet phantom: simulated FDG-PET of people with and without Alzheimer's disease",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "MIT",
            "GeneratedBy": [{"Name": "adpet", "Description": "adpet.cohort.phantom"}],
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
    with written_aside(path) as aside:
        table.to_csv(aside, sep="\t", index=False, lineterminator="\n")
