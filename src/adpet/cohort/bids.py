"""Read a BIDS-PET dataset with its sidecars and tables.

pathlib does it: pybids takes seconds to start and indexes files that are not needed here.
Metadata are inherited from the top down: of two ``*_pet.json`` the one nearer to the scan wins.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Final

from adpet.cohort.tables import (
    SKIPPED,
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
)
from adpet.errors import InputError
from adpet.imaging.nifti import natural_key
from adpet.imaging.sidecar import (
    Facts,
    entities_of,
    facts_of,
    is_uncorrected,
    read_object,
    sidecar_paths,
    sidecars_in,
    tracers_in,
)

PARTICIPANTS = "participants.tsv"

# Entities that tell versions of one scan apart, and how labels of parts of the body begin.
VERSION: Final = ("rec", "acq", "chunk", "desc", "proc", "res")
BRAIN: Final = ("brain", "head", "neuro", "cereb")
BODY: Final = (
    *("body", "wb", "wholebody", "torso", "trunk", "thorax", "chest", "abdom", "pelvi", "legs", "lung"),
    *("heart", "cardi", "liver", "neck", "spine"),
)


def find_bids(root: Path, *, diagnosis_column: str, reconstruction: Sequence[str] = ()) -> Findings:
    """List the PET scans of a BIDS dataset.

    Its name, its sidecar and those it inherits tell the tracer. Of several versions of one session and run
    the first by `reconstruction` is used, see `_rank`. `diagnosis_column` is one of ``participants.tsv``, or
    of ``sub-*_sessions.tsv``, which wins.
    """
    require_inside(root / PARTICIPANTS, root)
    participants = read_table(root / PARTICIPANTS)
    require_columns(participants, ["participant_id"], hint="BIDS asks for it")
    people = _by_label(participants, "participantid", prefix="sub-")
    key = column_key(diagnosis_column)
    has_diagnoses = participants.has(diagnosis_column)
    findings = Findings()
    for scan, versions in _versions(root, reconstruction, findings).items():
        (file, _), *others = versions
        for other, _ in others:
            findings.reject(other, f"another version of {file.name} of the same session", SKIPPED)
        try:
            visits = _sessions(file, root) if scan[1] else {}
            has_diagnoses |= any(key in row for row in visits.values())
            findings.diagnoses[scan[0]] = {plain(row.get(key, "")) for row in visits.values()} - {""}
            rows = visits.get(scan[1], {}), people.get(scan[0], {})
            first, *rest = (_candidate(*version, scan, rows, key) for version in versions)
            findings.candidates.append(replace(first, others=tuple(rest)))
        except InputError as error:
            findings.reject(file, str(error))
    if not has_diagnoses:
        require_columns(participants, [diagnosis_column], hint="set cohort.diagnosis_column to another one")
    return findings


def _versions(
    root: Path, reconstruction: Sequence[str], findings: Findings
) -> dict[tuple[str, ...], list[tuple[Path, Facts]]]:
    """Return each scan's FDG files, the preferred first."""
    listed = cache(sidecars_in)
    ranked: dict[tuple[str, ...], list[tuple[Any, Path, Facts]]] = defaultdict(list)
    for file in _pet_files(root):
        try:
            entities = entities_of(file.name)
            facts = _facts(file, entities, root, listed)
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
        and (not facts.uncorrected or is_uncorrected(pattern.rpartition("-")[2]))
    ]
    if not matching and facts.uncorrected:
        return f"not corrected for attenuation, says {facts.uncorrected}"
    if not matching:
        return f"version {version or 'without a label'} is not in cohort.reconstruction"
    body, brain, corrected = (any(one.startswith(words) for one in labels) for words in (BODY, BRAIN, "ac"))
    known = corrected or bool(facts.metadata.get("AttenuationCorrection"))
    return matching[0], body, not brain, not known, natural_key(file.name), file.name


def level_of(name: str) -> str:
    """Return ``rec-acstat_chunk-brain``, what tells versions of a scan apart."""
    entities = entities_of(name)
    pairs = ((key, entities[key]) for key in VERSION if key in entities)
    return "_".join(f"{key}-{label}" for key, label in pairs if not list(tracers_in(f"{key}-{label}")))


def _candidate(
    file: Path,
    facts: Facts,
    scan: tuple[str, ...],
    rows: tuple[Mapping[str, str], ...],
    diagnosis_key: str,
) -> Candidate:
    (subject, session, run), metadata = scan, facts.metadata
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
        level=level_of(file.name),
        frames=metadata,
        date=parse_date(rows[0].get("acqtime", "")),
    )


def _facts(
    file: Path,
    entities: Mapping[str, str],
    root: Path,
    listed: Callable[[Path], list[tuple[Path, dict[str, str]]]],
) -> Facts:
    folders = dict(folder.split("-", 1) for folder in file.relative_to(root).parts[:-2])
    if {name: entities[name] for name in ("sub", "ses") if name in entities} != folders:
        raise InputError("its name and its folders give different subjects or sessions; rename it")
    sidecars = []
    for path in sidecar_paths(file, root, listed):
        require_inside(path, root)
        sidecars.append((path.name, read_object(path)))
    return facts_of([file.name], sidecars)


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


def _by_label(table: Table, key: str, *, prefix: str) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for row in table.rows:
        label = row.get(key, "").removeprefix(prefix)
        if label in rows:
            raise InputError(f"{table.path}: required one row for each label; received {prefix}{label} twice")
        rows[label] = row
    return rows
