"""Read a BIDS-PET dataset with its sidecars and tables.

pathlib does it: pybids takes seconds to start and indexes files that are not needed here.
Metadata are inherited from the top down: of two ``*_pet.json`` the one nearer to the scan wins.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
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

    A scan is FDG by its TracerName, else by its ``trc-`` entity. Of several reconstructions of one session
    and run the first by name is used. `diagnosis_column` is one of ``participants.tsv``, or of
    ``sub-*_sessions.tsv``, which wins.
    """
    require_inside(root / PARTICIPANTS, root)
    participants = read_table(root / PARTICIPANTS)
    require_columns(participants, ["participant_id"], hint="BIDS asks for it")
    people = _by_label(participants, "participantid", prefix="sub-")
    key = column_key(diagnosis_column)
    has_diagnoses = participants.has(diagnosis_column)
    sidecars = cache(_sidecars)
    findings = Findings()
    taken: dict[tuple[str, ...], Path] = {}
    for file in _pet_files(root):
        try:
            entities = _entities(file.name)
            metadata = _metadata(file, entities, root, sidecars)
            if not _is_fdg(file, entities, metadata, findings):
                continue
            scan = tuple(entities.get(name, "") for name in ("sub", "ses", "run"))
            first = taken.setdefault(scan, file)
            if first != file:
                findings.reject(file, f"another version of {first.name} of the same session", SKIPPED)
                continue
            visits = _sessions(file, root) if "ses" in entities else {}
            has_diagnoses |= any(key in row for row in visits.values())
            findings.diagnoses[scan[0]] = {plain(row.get(key, "")) for row in visits.values()} - {""}
            rows = visits.get(scan[1], {}), people.get(scan[0], {})
            findings.candidates.append(_candidate(file, scan, rows, metadata, key))
        except InputError as error:
            findings.reject(file, str(error))
    if not has_diagnoses:
        require_columns(participants, [diagnosis_column], hint="set cohort.diagnosis_column to another one")
    return findings


def _is_fdg(file: Path, entities: Entities, metadata: Mapping[str, Any], findings: Findings) -> bool:
    tracer = tracer_name(str(metadata.get("TracerName", ""))) or tracer_name(entities.get("trc", ""))
    findings.tracers[tracer or UNKNOWN] += 1
    if not tracer:
        raise InputError("its tracer is not given; add TracerName to its .json or to pet.json at the root")
    if tracer != FDG:
        findings.reject(file, f"tracer {tracer} is not FDG", SKIPPED)
    return tracer == FDG


def _candidate(
    file: Path,
    scan: tuple[str, ...],
    rows: tuple[Mapping[str, str], ...],
    metadata: Mapping[str, Any],
    diagnosis_key: str,
) -> Candidate:
    subject, session, run = scan
    if not rows[1]:
        raise InputError(f"sub-{subject} is not in {PARTICIPANTS}; add a row for it")

    maker, model = (plain(str(metadata.get(name, ""))) for name in ("Manufacturer", "ManufacturersModelName"))
    named = bool(model) and model.casefold().startswith(maker.casefold())

    def fact(column: str) -> str:
        return next(filter(None, (plain(row.get(column, "")) for row in rows)), "")

    return Candidate(
        file=file,
        subject=subject,
        session=session,
        run=run,
        diagnosis=fact(diagnosis_key),
        age=parse_age(fact("age")),
        sex=parse_sex(fact("sex")),
        site=fact("site"),
        scanner=model if named else f"{maker} {model}".strip(),
        frame_seconds=frame_seconds(metadata.get("FrameDuration")),
        date=parse_date(rows[0].get("acqtime", "")),
    )


def _metadata(
    file: Path, entities: Entities, root: Path, sidecars: Callable[[Path], list[tuple[Path, Entities]]]
) -> dict[str, Any]:
    folders = dict(folder.split("-", 1) for folder in file.relative_to(root).parts[:-2])
    if {name: entities[name] for name in ("sub", "ses") if name in entities} != folders:
        raise InputError("its name and its folders give different subjects or sessions; rename it")
    metadata: dict[str, Any] = {}
    for folder in reversed(file.parents):
        if folder.is_relative_to(root):
            for path, keys in sidecars(folder):
                if keys.items() <= entities.items():
                    require_inside(path, root)
                    metadata.update(_read_object(path))
    return metadata


def _sidecars(folder: Path) -> list[tuple[Path, Entities]]:
    """Return the sidecars of a folder, most specific last."""
    paths = sorted({*folder.glob("*_pet.json"), *folder.glob("pet.json")})
    return sorted(((path, _entities(path.name)) for path in paths), key=lambda pair: len(pair[1]))


def _sessions(file: Path, root: Path) -> dict[str, dict[str, str]]:
    path = file.parents[2] / f"{file.parents[2].name}_sessions.tsv"
    if not path.is_file():
        return {}
    require_inside(path, root)
    return _by_label(read_table(path), "sessionid", prefix="ses-")


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
    rows: dict[str, dict[str, str]] = {}
    for row in table.rows:
        label = row.get(key, "").removeprefix(prefix)
        if label in rows:
            raise InputError(f"{table.path}: required one row for each label; received {prefix}{label} twice")
        rows[label] = row
    return rows


def frame_seconds(durations: Any) -> str:
    """Return FrameDuration as `Candidate` has it."""
    listed = durations if isinstance(durations, list) else [] if durations is None else [durations]
    return " ".join(f"{value:.10g}" if isinstance(value, int | float) else str(value) for value in listed)
