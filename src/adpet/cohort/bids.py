"""Read a BIDS-PET dataset with its sidecars and tables.

pathlib does it: pybids takes seconds to start and indexes files that are not needed here.
Metadata are inherited from the top down: of two ``*_pet.json`` the one nearer to the scan wins.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adpet.cohort.tables import (
    FDG,
    SKIPPED,
    UNKNOWN,
    Candidate,
    Findings,
    Table,
    column_key,
    parse_age,
    parse_date,
    parse_sex,
    plain,
    read_table,
    require_columns,
    require_inside,
    tracer_name,
)
from adpet.errors import InputError

PARTICIPANTS = "participants.tsv"

Entities = dict[str, str]


def find_bids(root: Path, *, diagnosis_column: str) -> Findings:
    """List the PET scans of a BIDS dataset.

    A scan is FDG by its TracerName, else by its ``trc-`` entity. A scan with neither is rejected, since a
    network that learns from a mixture of tracers is wrong unnoticed; one ``pet.json`` with a TracerName at
    the root of the dataset mends it for all scans. Of several reconstructions of one session and run the
    first by name is used.

    Parameters
    ----------
    root : Path
        The dataset's folder, with ``participants.tsv``.
    diagnosis_column : str
        A column of ``participants.tsv``, or of ``sub-*_sessions.tsv``, which wins.

    Raises
    ------
    InputError
        If ``participants.tsv`` is missing or unreadable, or the diagnosis column is nowhere.
    """
    require_inside(root / PARTICIPANTS, root)
    participants = read_table(root / PARTICIPANTS)
    require_columns(participants, ["participant_id"], hint="BIDS asks for it")
    people = _by_label(participants, "participantid", prefix="sub-")
    reader = _Reader(root, people, column_key(diagnosis_column))
    for file in _pet_files(root):
        try:
            reader.judge(file)
        except InputError as error:
            reader.findings.reject(file, str(error))
    if not participants.has(diagnosis_column) and column_key(diagnosis_column) not in reader.sessions.columns:
        require_columns(participants, [diagnosis_column], hint="set cohort.diagnosis_column to another one")
    return reader.findings


class _Reader:
    """Reader of one dataset, file by file."""

    def __init__(self, root: Path, people: Mapping[str, dict[str, str]], diagnosis_key: str) -> None:
        self.root = root
        self.people = people
        self.diagnosis_key = diagnosis_key
        self.sidecars = _Sidecars(root)
        self.sessions = _SessionTables(root)
        self.findings = Findings()
        self.taken: dict[tuple[str, str, str], Path] = {}

    def judge(self, file: Path) -> None:
        """Add one file to candidates or rejections, or raise InputError."""
        entities = _entities(file.name)
        folders = dict(folder.split("-", 1) for folder in file.relative_to(self.root).parts[:-2])
        if {name: entities[name] for name in ("sub", "ses") if name in entities} != folders:
            raise InputError("its name and its folders give different subjects or sessions; rename it")
        metadata = self.sidecars.of(file, entities)
        tracer = tracer_name(str(metadata.get("TracerName", ""))) or tracer_name(entities.get("trc", ""))
        self.findings.tracers[tracer or UNKNOWN] += 1
        if not tracer:
            raise InputError(
                "its tracer is not given; add TracerName to its .json or to pet.json at the root"
            )
        if tracer != FDG:
            self.findings.reject(file, f"tracer {tracer} is not FDG", SKIPPED)
            return
        scan = (entities["sub"], entities.get("ses", ""), entities.get("run", ""))
        first = self.taken.setdefault(scan, file)
        if first != file:
            self.findings.reject(file, f"another version of {first.name} of the same session", SKIPPED)
            return
        self.findings.candidates.append(self._candidate(file, scan, metadata))

    def _candidate(self, file: Path, scan: tuple[str, str, str], metadata: Mapping[str, Any]) -> Candidate:
        subject, session, run = scan
        if subject not in self.people:
            raise InputError(f"sub-{subject} is not in {PARTICIPANTS}; add a row for it")
        visits = self.sessions.of(file, subject)
        visit = visits.get(session, {})
        known = {plain(row.get(self.diagnosis_key, "")) for row in visits.values()}
        self.findings.diagnoses[subject] = known - {""}

        def fact(column: str) -> str:
            return plain(visit.get(column, "")) or plain(self.people[subject].get(column, ""))

        return Candidate(
            file=file,
            subject=subject,
            session=session,
            run=run,
            diagnosis=fact(self.diagnosis_key),
            age=parse_age(fact("age")),
            sex=parse_sex(fact("sex")),
            site=fact("site"),
            scanner=_scanner(metadata),
            frame_seconds=_frame_seconds(metadata.get("FrameDuration")),
            date=parse_date(visit.get("acqtime", "")),
        )


@dataclass
class _Sidecars:
    """``*_pet.json`` files by folder, each read once."""

    root: Path
    read: dict[Path, list[tuple[Path, Entities]]] = field(default_factory=dict)
    contents: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def of(self, file: Path, entities: Entities) -> dict[str, Any]:
        """Return the metadata that apply to `file`."""
        metadata: dict[str, Any] = {}
        folders = [folder for folder in reversed(file.parents) if folder.is_relative_to(self.root)]
        for folder in folders:
            for path, keys in self._in(folder):
                if keys.items() <= entities.items():
                    metadata.update(self._content(path))
        return metadata

    def _in(self, folder: Path) -> list[tuple[Path, Entities]]:
        """Return the sidecars of a folder, most specific last."""
        if folder not in self.read:
            paths = sorted({*folder.glob("*_pet.json"), *folder.glob("pet.json")})
            pairs = [(path, _entities(path.name)) for path in paths]
            self.read[folder] = sorted(pairs, key=lambda pair: len(pair[1]))
        return self.read[folder]

    def _content(self, path: Path) -> dict[str, Any]:
        if path not in self.contents:
            require_inside(path, self.root)
            self.contents[path] = _read_object(path)
        return self.contents[path]


@dataclass
class _SessionTables:
    """``sub-*_sessions.tsv`` of each subject, read once."""

    root: Path
    rows: dict[Path, dict[str, dict[str, str]]] = field(default_factory=dict)
    columns: set[str] = field(default_factory=set)

    def of(self, file: Path, subject: str) -> Mapping[str, Mapping[str, str]]:
        """Return a subject's rows by session, if it has sessions."""
        if not file.parent.parent.name.startswith("ses-"):
            return {}
        path = file.parents[2] / f"sub-{subject}_sessions.tsv"
        if path not in self.rows:
            self.rows[path] = {}
            if path.is_file():
                require_inside(path, self.root)
                table = read_table(path)
                self.columns.update(map(column_key, table.columns))
                self.rows[path] = _by_label(table, "sessionid", prefix="ses-")
        return self.rows[path]


def _pet_files(root: Path) -> Iterator[Path]:
    for subject in sorted(root.glob("sub-*/")):
        yield from sorted(
            file
            for pattern in ("pet/*", "ses-*/pet/*")
            for file in subject.glob(pattern)
            if re.fullmatch(r"sub-.*_pet\.nii(\.gz)?", file.name)
        )


def _entities(name: str) -> Entities:
    """Return ``{"sub": "01", "trc": "18FFDG"}`` of ``sub-01_trc-18FFDG_pet.nii.gz``."""
    parts = name.split(".", maxsplit=1)[0].split("_")[:-1]
    return dict(part.split("-", 1) for part in parts if "-" in part)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not JSON ({error}); mend it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name} holds no names and values; mend it")
    return content


def _by_label(table: Table, key: str, *, prefix: str) -> dict[str, dict[str, str]]:
    """Return the rows by label, with or without prefix."""
    rows: dict[str, dict[str, str]] = {}
    for row in table.rows:
        label = row.get(key, "").removeprefix(prefix)
        if label in rows:
            raise InputError(f"{table.path}: required one row for each label; received {prefix}{label} twice")
        rows[label] = row
    return rows


def _scanner(metadata: Mapping[str, Any]) -> str:
    maker = plain(str(metadata.get("Manufacturer", "")))
    model = plain(str(metadata.get("ManufacturersModelName", "")))
    return model if model.casefold().startswith(maker.casefold()) and model else f"{maker} {model}".strip()


def _frame_seconds(durations: Any) -> str:
    """Return durations as text, to be checked with the frames."""
    listed = durations if isinstance(durations, list) else [] if durations is None else [durations]
    return " ".join(f"{value:.10g}" if isinstance(value, int | float) else str(value) for value in listed)
