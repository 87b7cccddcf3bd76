"""Read a BIDS-PET dataset with its sidecars and tables.

pathlib does it: pybids takes seconds to start and indexes files that are not needed here.
Metadata are inherited from the top down: of two ``*_pet.json`` the one nearer to the scan wins.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from adpet.cohort.adni_metadata import files_under
from adpet.cohort.identity import Rows, person_key, rows_by_id
from adpet.cohort.tables import (
    IMAGE,
    SKIPPED,
    UNUSABLE,
    Candidate,
    DateOrder,
    Findings,
    Visit,
    column_key,
    date_order,
    parse_age,
    parse_date,
    parse_sex,
    plain,
    read_table,
    require_columns,
    require_inside,
    scanner_stated,
    session_order,
)
from adpet.errors import InputError
from adpet.imaging import sidecar
from adpet.imaging.nifti import natural_key
from adpet.imaging.sidecar import Facts

PARTICIPANTS = "participants.tsv"
# What tables call the visit of a row.
VISIT_COLUMNS: Final = ("sessionid", "session", "ses", "visit", "visitid", "viscode", "timepoint")

# Endings that no reader knows.
COMPRESSED: Final = re.compile(r".*\.(?!gz|nii|img|hdr)\w+", re.IGNORECASE)
NAME = "sub-..._pet.nii.gz (or .nii)"

# Entities that tell versions of one scan apart, and how labels of parts of the body begin.
VERSION: Final = ("rec", "acq", "chunk", "desc", "proc", "res")
BRAIN: Final = ("brain", "head", "neuro", "cereb")
BODY: Final = (
    *("body", "wb", "wholebody", "torso", "trunk", "thorax", "chest", "abdom", "pelvi", "legs", "lung"),
    *("heart", "cardi", "liver", "neck", "spine"),
)


def find_bids(
    root: Path,
    *,
    diagnosis_column: str,
    reconstruction: Sequence[str] = (),
    declared: DateOrder = "auto",
    link_targets: Sequence[str] = (),
) -> Findings:
    """List the PET scans of a BIDS dataset.

    Its name, its sidecar and those it inherits tell the tracer. Of several versions of one session and run
    the first by `reconstruction` is used, see `_rank`. `diagnosis_column` is one of ``participants.tsv``,
    with a row a person or a session, or of ``sub-*_sessions.tsv``, which wins: a session that it lacks has no
    diagnosis.
    """
    inside = partial(require_inside, root=root, link_targets=link_targets)
    inside(root / PARTICIPANTS)
    participants = read_table(root / PARTICIPANTS)
    require_columns(participants, ["participant_id"], hint="BIDS asks for it")
    visit_key = next(filter(participants.has, VISIT_COLUMNS), "")
    people = rows_by_id(participants, "participantid", visit_key)
    sessions = {person_key(path.name) for path in root.glob("sub-*/ses-*/")}
    by_visit = visit_key in VISIT_COLUMNS[:3] or any(
        len(own) > 1 or not sessions.isdisjoint(own) for own in people.values()
    )
    key = column_key(diagnosis_column)
    has_diagnoses = participants.has(diagnosis_column)
    findings = Findings()
    told_by_visit, later = False, list[Candidate]()
    for scan, versions in _versions(root, reconstruction, inside, findings).items():
        (file, _), *others = versions
        for other, _ in others:
            findings.reject(other, f"another version of {file.name} of the same session", SKIPPED)
        try:
            visits, order = _sessions(file, inside, declared) if scan[1] else ({}, declared)
            has_diagnoses |= any(key in row for row in visits.values())
            own = people.get(person_key(scan[0]), {})
            told = [*visits.values(), *(own.values() if by_visit else ())]
            day = partial(parse_date, order=order)
            findings.visits[scan[0]] = {
                Visit(day(row.get("acqtime", "")), parse_age(row.get("age", "")), word)
                for row in told
                if (word := plain(row.get(key, "")))
            }
            rows = _rows(scan, visits, _person(scan, own, by_visit=by_visit), key)
            made = _candidate(versions[0], scan, rows, diagnosis_key=key, findings=findings)
            date = findings.parse("date", day, rows[0].get("acqtime", ""))
            rest = (replace(made, date=date, **_of_version(*other)) for other in others)
            found = replace(made, date=date, others=tuple(rest))
            findings.candidates.append(found)
            if any(plain(row.get(key, "")) for row in visits.values()):
                told_by_visit = True
            elif scan[1] and not by_visit and scan[1] != _first_session(file):
                later.append(found)
        except InputError as error:
            findings.reject(file, str(error))
    for found in later if told_by_visit else ():
        findings.candidates.remove(found)
        findings.reject(
            found.file,
            f"sub-{found.subject} has no diagnoses in a sessions.tsv, as others have, and {PARTICIPANTS} has "
            "that of the first session; add the table",
        )
    _list_overlooked(root, people, findings)
    if not has_diagnoses:
        require_columns(participants, [diagnosis_column], hint="set cohort.diagnosis_column to another one")
    return findings


def _versions(
    root: Path, reconstruction: Sequence[str], inside: Callable[[Path], None], findings: Findings
) -> dict[tuple[str, ...], list[tuple[Path, Facts]]]:
    """Return each scan's FDG files, the preferred first."""
    listed = cache(sidecar.sidecars_in)
    ranked: dict[tuple[str, ...], list[tuple[Any, Path, Facts]]] = defaultdict(list)
    for file in _pet_files(root):
        try:
            entities = sidecar.entities_of(file.name)
            facts = _facts(file, entities, root, listed, inside)
            hint = "add TracerName to its own .json, or trc-18FFDG to its name"
            if not findings.takes(file, facts.statements, hint=hint):
                continue
            findings.levels.update(filter(None, [level_of(file.name)]))
            rank = _rank(file, facts, reconstruction)
            if isinstance(rank, str):
                findings.reject(file, rank, SKIPPED)
            else:
                scan = tuple(entities.get(name, "") for name in ("sub", "ses", "run"))
                ranked[scan].append((rank, file, facts))
        except InputError as error:
            findings.reject(file, str(error))
    return {
        scan: [one[1:] for one in sorted(found, key=lambda one: one[0])] for scan, found in ranked.items()
    }


def _rank(file: Path, facts: Facts, patterns: Sequence[str]) -> tuple[Any, ...] | str:
    """Return a version's rank, or why it is not used.

    First the order of the patterns, then brain before whole before body, corrected for attenuation before
    not known, and names. A version that was not corrected is taken only by a pattern that names it.
    """
    version = level_of(file.name)
    parts = [part.partition("-") for part in version.split("_")]
    labels = [label.casefold() for *_, label in parts]
    names = {version.casefold(), *version.casefold().split("_"), *labels}
    matching = [
        index
        for index, pattern in enumerate(patterns or ["*"])
        if any(fnmatchcase(name, pattern.casefold()) for name in names)
        and (not facts.uncorrected or sidecar.is_uncorrected(pattern.rpartition("-")[2]))
    ]
    if not matching and facts.uncorrected:
        return f"not corrected for attenuation, says {facts.uncorrected}"
    if not matching:
        return f"version {version or 'without a label'} is not in cohort.reconstruction"
    body, brain, corrected = (any(one.startswith(words) for one in labels) for words in (BODY, BRAIN, "ac"))
    known = corrected or any(map(facts.metadata.get, sidecar.CORRECTION))
    return matching[0], body, not brain, not known, natural_key(file.name), file.name


def level_of(name: str) -> str:
    """Return ``rec-acstat_chunk-brain``, what tells versions of a scan apart."""
    entities = sidecar.entities_of(name)
    pairs = ((key, entities[key]) for key in VERSION if key in entities)
    return "_".join(
        f"{key}-{label}" for key, label in pairs if not list(sidecar.tracers_in(f"{key}-{label}"))
    )


def _candidate(
    version: tuple[Path, Facts],
    scan: tuple[str, ...],
    rows: tuple[Mapping[str, str], ...],
    *,
    diagnosis_key: str,
    findings: Findings,
) -> Candidate:
    subject, session, run = scan

    def fact(column: str) -> str:
        return next(filter(None, (plain(row.get(column, "")) for row in rows)), "")

    return Candidate(
        **_of_version(*version),
        subject=subject,
        session=session,
        run=run,
        diagnosis=fact(diagnosis_key),
        age=findings.parse("age", parse_age, fact("age")),
        sex=findings.parse("sex", parse_sex, fact("sex") or fact("gender")),
        site=fact("site"),
    )


def _of_version(file: Path, facts: Facts) -> dict[str, Any]:
    scanner = scanner_stated(facts.metadata)
    return {"file": file, "level": level_of(file.name), "frames": facts.metadata, "scanner": scanner}


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
    days = {label: parse_date(visit.get("acqtime", ""), "auto") for label, visit in visits.items()}
    first = min(visits, key=lambda label: (days[label] * all(days.values()), session_order(label)))
    return row, person if row == visits[first] else {**person, key: ""}


def _facts(
    file: Path,
    entities: Mapping[str, str],
    root: Path,
    listed: Callable[[Path], list[tuple[Path, dict[str, str]]]],
    inside: Callable[[Path], None],
) -> Facts:
    folders = dict(folder.split("-", 1) for folder in file.relative_to(root).parts[:-2])
    if {name: entities[name] for name in ("sub", "ses") if name in entities} != folders:
        raise InputError("its name and its folders give different subjects or sessions; rename it")
    sidecars = []
    for path in sidecar.sidecar_paths(file, root, listed):
        inside(path)
        sidecars.append((path.name, sidecar.read_object(path)))
    return sidecar.facts_of([file.name], sidecars)


def _first_session(file: Path) -> str:
    """Return the first session of a subject's folders."""
    return min((path.name[4:] for path in file.parents[2].glob("ses-*/")), key=session_order)


def _sessions(
    file: Path, inside: Callable[[Path], None], declared: DateOrder
) -> tuple[dict[str, dict[str, str]], DateOrder]:
    """Return the rows by session, and their dates' order."""
    path = file.parents[2] / f"{file.parents[2].name}_sessions.tsv"
    if not path.is_file():
        return {}, declared
    inside(path)
    table = read_table(path)
    require_columns(table, ["session_id"], hint="BIDS asks for it")
    rows = {session: own[""] for session, own in rows_by_id(table, "sessionid").items()}
    return rows, date_order(table, "acqtime", declared)


def _list_overlooked(root: Path, people: Rows, findings: Findings) -> None:
    """Reject images named unlike BIDS; list people without one."""
    read = set(_pet_files(root))
    visits = {file.parent.parent for file in read}
    seen = {person_key(sidecar.entities_of(file.name).get("sub", "")) for file in read}
    for subject in sorted(path for path in root.iterdir() if path.name.casefold().startswith("sub-")):
        for file in files_under(subject, IMAGE):
            if file.parent.name.casefold() == "pet" or re.search("(?i)_pet[a-z0-9]?[.]", file.name):
                seen |= {person_key(subject.name), person_key(sidecar.entities_of(file.name).get("sub", ""))}
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
