"""Read a BIDS-PET dataset with its sidecars and tables.

pathlib does it: pybids takes seconds to start and indexes files that are not needed here.
Metadata are inherited from the top down: of two ``*_pet.json`` the one nearer to the scan wins.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from adpet.cohort.adni_metadata import files_under
from adpet.cohort.identity import Rows, person_key, rows_by_id
from adpet.cohort.tables import (
    FDG,
    IMAGE,
    SKIPPED,
    UNKNOWN,
    UNUSABLE,
    Candidate,
    DateOrder,
    Findings,
    column_key,
    date_order,
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
# What tables call the visit of a row.
VISIT_COLUMNS: Final = ("sessionid", "session", "ses", "visit", "visitid")

# Endings that no reader knows.
COMPRESSED: Final = re.compile(r".*\.(?!gz|nii|img|hdr)\w+", re.IGNORECASE)
NAME = "sub-..._pet.nii.gz (or .nii)"

Entities = dict[str, str]


def find_bids(
    root: Path,
    *,
    diagnosis_column: str,
    declared: DateOrder = "auto",
    link_targets: Sequence[str] = (),
) -> Findings:
    """List the PET scans of a BIDS dataset.

    A scan is FDG by its TracerName, else by its ``trc-`` entity. Of several reconstructions of one session
    and run the first by name is used. `diagnosis_column` is one of ``participants.tsv``, with a row a person
    or a session, or of ``sub-*_sessions.tsv``, which wins: a session that it lacks has no diagnosis.
    """
    inside = partial(require_inside, root=root, link_targets=link_targets)
    inside(root / PARTICIPANTS)
    participants = read_table(root / PARTICIPANTS)
    require_columns(participants, ["participant_id"], hint="BIDS asks for it")
    visit_key = next(filter(participants.has, VISIT_COLUMNS), "")
    people = rows_by_id(participants, "participantid", visit_key)
    by_visit = visit_key == VISIT_COLUMNS[0] or any(len(own) > 1 for own in people.values())
    key = column_key(diagnosis_column)
    has_diagnoses = participants.has(diagnosis_column)
    sidecars = cache(_sidecars)
    findings = Findings()
    taken: dict[tuple[str, ...], Path] = {}
    for file in _pet_files(root):
        try:
            entities = _entities(file.name)
            metadata = _metadata(file, entities, root, sidecars, inside)
            if not _is_fdg(file, entities, metadata, findings):
                continue
            scan = tuple(entities.get(name, "") for name in ("sub", "ses", "run"))
            first = taken.setdefault(scan, file)
            if first != file:
                findings.reject(file, f"another version of {first.name} of the same session", SKIPPED)
                continue
            visits, order = _sessions(file, inside, declared) if "ses" in entities else ({}, declared)
            has_diagnoses |= any(key in row for row in visits.values())
            own = people.get(person_key(scan[0]), {})
            told = [*visits.values(), *(own.values() if by_visit else ())]
            findings.diagnoses[scan[0]] = {plain(row.get(key, "")) for row in told} - {""}
            rows = _rows(scan, visits, _person(scan, own, by_visit=by_visit), key)
            scan_of = _candidate(file, scan, rows, metadata, diagnosis_key=key, findings=findings)
            date = findings.parse("date", partial(parse_date, order=order), rows[0].get("acqtime", ""))
            findings.candidates.append(replace(scan_of, date=date))
        except InputError as error:
            findings.reject(file, str(error))
    _list_overlooked(root, people, findings)
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
    *,
    diagnosis_key: str,
    findings: Findings,
) -> Candidate:
    subject, session, run = scan
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
        age=findings.parse("age", parse_age, fact("age")),
        sex=findings.parse("sex", parse_sex, fact("sex")),
        site=fact("site"),
        scanner=model if named else f"{maker} {model}".strip(),
        frame_seconds=_frame_seconds(metadata.get("FrameDuration")),
    )


def _person(scan: tuple[str, ...], own: Mapping[str, dict[str, str]], *, by_visit: bool) -> dict[str, str]:
    """Return the participant's row, or that of the visit."""
    subject, session, _ = scan
    if not own:
        raise InputError(f"sub-{subject} is not in {PARTICIPANTS}; add a row for it")
    first = next(iter(own.values()))
    row = first if len(own) == 1 and not (by_visit and session) else own.get(person_key(session))
    if not row:
        raise InputError(
            f"{PARTICIPANTS} has a row for each session, but not for session '{session}' of sub-{subject}; "
            "add it"
        )
    return row


def _rows(
    scan: tuple[str, ...], visits: Mapping[str, dict[str, str]], person: dict[str, str], key: str
) -> tuple[dict[str, str], ...]:
    """Return the rows of visit and person.

    The person's diagnosis is that of the first visit.
    """
    row = visits.get(person_key(scan[1]), {})
    if not any(plain(visit.get(key, "")) for visit in visits.values()):
        return row, person
    if not row:
        raise InputError(
            f"ses-{scan[1]} is not in sub-{scan[0]}_sessions.tsv, which has the visits' diagnoses; add a row"
        )
    return row, person if row == next(iter(visits.values())) else {**person, key: ""}


def _metadata(
    file: Path,
    entities: Entities,
    root: Path,
    sidecars: Callable[[Path], list[tuple[Path, Entities]]],
    inside: Callable[[Path], None],
) -> dict[str, Any]:
    folders = dict(folder.split("-", 1) for folder in file.relative_to(root).parts[:-2])
    if {name: entities[name] for name in ("sub", "ses") if name in entities} != folders:
        raise InputError("its name and its folders give different subjects or sessions; rename it")
    metadata: dict[str, Any] = {}
    for folder in reversed(file.parents):
        if folder.is_relative_to(root):
            for path, keys in sidecars(folder):
                if keys.items() <= entities.items():
                    inside(path)
                    metadata.update(_read_object(path))
    return metadata


def _sidecars(folder: Path) -> list[tuple[Path, Entities]]:
    """Return the sidecars of a folder, most specific last."""
    paths = sorted({*folder.glob("*_pet.json"), *folder.glob("pet.json")})
    return sorted(((path, _entities(path.name)) for path in paths), key=lambda pair: len(pair[1]))


def _sessions(
    file: Path, inside: Callable[[Path], None], declared: DateOrder
) -> tuple[dict[str, dict[str, str]], DateOrder]:
    """Return the rows by session, and their dates' order."""
    path = file.parents[2] / f"{file.parents[2].name}_sessions.tsv"
    if not path.is_file():
        return {}, declared
    inside(path)
    table = read_table(path)
    rows = {session: own[""] for session, own in rows_by_id(table, "sessionid").items()}
    return rows, date_order(table, "acqtime", declared)


def _list_overlooked(root: Path, people: Rows, findings: Findings) -> None:
    """Reject images named unlike BIDS; list people without one."""
    read = set(_pet_files(root))
    visits = {file.parent.parent for file in read}
    seen = {person_key(_entities(file.name).get("sub", "")) for file in read}
    for subject in sorted(path for path in root.iterdir() if path.name.casefold().startswith("sub-")):
        for file in files_under(subject, IMAGE):
            if file.parent.name.casefold() == "pet" or re.search("(?i)_pet[a-z0-9]?[.]", file.name):
                seen |= {person_key(subject.name), person_key(_entities(file.name).get("sub", ""))}
                if file not in read:
                    kind = SKIPPED if file.parent.parent in visits else UNUSABLE
                    findings.reject(file, _why_overlooked(file), kind)
    without = [own for label, own in people.items() if label and label not in seen]
    findings.without_scan.extend(next(iter(own.values()))["participantid"] for own in without)


def _why_overlooked(file: Path) -> str:
    if COMPRESSED.fullmatch(file.name):
        return "its ending is not read; decompress it, or convert it to NIfTI (.nii.gz)"
    if re.search("_pet[a-z0-9][.]", file.name):
        return f"dcm2niix names a further image of a series so; rename it to {NAME} if it is the scan"
    if re.fullmatch(r"sub-.*_pet\.nii(\.gz)?", file.name):
        return "BIDS has scans in sub-*/pet or sub-*/ses-*/pet, in lower case; rename or move its folder"
    return f"BIDS calls scans {NAME}, in lower case; rename it"


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


def _frame_seconds(durations: Any) -> str:
    listed = durations if isinstance(durations, list) else [] if durations is None else [durations]
    return " ".join(f"{value:.10g}" if isinstance(value, int | float) else str(value) for value in listed)
