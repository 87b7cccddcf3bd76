"""Read a collection of any layout into a scans table.

A subject whose diagnosis changes between visits follows a policy: ``visit`` keeps each scan's own,
``baseline`` takes that of the first scan, ``stable-only`` skips the subject.
"""

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from adpet.cohort import adni, bids, folder
from adpet.cohort.adni import LEVELS
from adpet.cohort.identity import unify_subjects
from adpet.cohort.scans import (
    IN_BOTH,
    Collection,
    check_scans,
    rejected_table,
    scans_table,
    score_only_table,
    set_aside_conflicts,
)
from adpet.cohort.tables import (
    SKIPPED,
    UNUSABLE,
    Candidate,
    DateOrder,
    Findings,
    Rejection,
    column_key,
    require_inside,
    session_order,
    table_columns,
    years_between,
)
from adpet.errors import InputError
from adpet.imaging import dicom, nifti, sidecar
from adpet.imaging.dicom import READ_BY_NIBABEL, as_nifti
from adpet.imaging.nifti import content_hash, natural_key, read_header, scan_files
from adpet.imaging.sidecar import FRAMES_MINUTES, facts_of, read_object, require_fdg, used_seconds
from adpet.storage import atomic_write

Layout: TypeAlias = Literal["bids", "adni", "folder"]
Policy: TypeAlias = Literal["visit", "baseline", "stable-only"]
# Calls a function for each batch of files, like `map`, here or elsewhere.
Each: TypeAlias = Callable[..., Iterable[list["FileEntry"]]]

# Exams of one visit may be some weeks apart.
SAME_VISIT_YEARS = 0.25

FRAME_TIMES = ("FrameDuration", "FrameTimesStart", "FrameReferenceTime", "InjectionStart", "ScanStart")
# Files that a process gets at once: fewer cost time in handing over, more leave a process idle at the end.
BATCH_FILES = 32
# A line of the index on disk: stamp (JSON, which holds no tabs), frames, checksum, frame times (JSON).
INDEX_LINE = re.compile(r"(.+)\t(\d+)\t([0-9a-f]{64})\t([^\t]*)")


@dataclass(frozen=True)
class FileEntry:
    """Frames and checksum of a scan's file, or its `problem`.

    `times` are `FRAME_TIMES` in JSON where a header has them, which is DICOM's.
    """

    n_frames: int = 0
    sha256: str = ""
    times: str = ""
    problem: str = ""


def read_collection(
    root: Path,
    *,
    layout: Literal["auto", "bids", "adni", "folder"],
    table: Path | None,
    diagnosis_column: str,
    diagnosis_map: Mapping[str, str],
    score_only: Sequence[str] = (),
    diagnosis: Policy = "visit",
    diagnosis_table: Path | None = None,
    adni_level: Sequence[str] = tuple(LEVELS),
    reconstruction: Sequence[str] = (),
    frames_minutes: Sequence[float] = FRAMES_MINUTES,
    date_order: DateOrder = "auto",
    link_targets: Sequence[str] = (),
    each: Each = map,
    notes: Path | None = None,
    progress: Callable[..., Iterable[Any]] = lambda items, **_: items,
) -> Collection:
    """Read all scans of a collection, and reject unusable files.

    Paths under the working directory are given relative to it. `diagnosis_map` gives AD or CN for the
    collection's words, in any case; other diagnoses are skipped. Subjects with a scan of a `score_only`
    diagnosis are listed apart with all their scans, whatever the policy. `reconstruction` orders the versions
    of a BIDS scan, `frames_minutes` are those after injection that are averaged, `link_targets` folders that
    links may lead to, as they may into DVC's cache. `each`, like `map`, calls the function that reads a batch
    of files. With `notes`, the file index on disk, the next call reads new and changed files alone.
    `progress` wraps the iterable of opened scans, and is called with it and ``total=``.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: required a folder of scans; received none; check the path (cohort.raw, external.raw), "
            "or run `dvc repro`"
        )
    detected = detect_layout(root, table=table) if layout == "auto" else layout
    if diagnosis_table is not None and detected != "adni":
        raise InputError(
            f"cohort.diagnosis_table: required ADNI's layout; received {detected}, whose own tables tell the "
            "diagnosis of every visit; set it to null"
        )
    options: dict[str, Any] = {"declared": date_order, "link_targets": link_targets}
    if detected == "adni":
        found = adni.find_adni(
            root, table=table, diagnosis_table=diagnosis_table, levels=adni_level, **options
        )
    elif detected == "bids":
        found = bids.find_bids(
            root, diagnosis_column=diagnosis_column, reconstruction=reconstruction, **options
        )
    else:
        found = folder.find_folder(root, table=table, **options)
    if not found.candidates and not found.rejected:
        raise InputError(
            f"{root}: required scans (.nii or .nii.gz); received none; check the folder and its layout"
        )
    found, spellings = unify_subjects(found)
    words = {word.casefold(): word for word in score_only}
    scored = {scan.subject for scan in found.candidates if scan.diagnosis.casefold() in words}
    trainable = replace(found, candidates=[scan for scan in found.candidates if scan.subject not in scored])
    settled = apply_policy(trainable, policy=diagnosis, diagnosis_map=diagnosis_map)
    settled = _with_diagnoses(settled, diagnosis_map, found)
    score_only_scans = [scan for scan in found.candidates if scan.subject in scored]
    settled += _with_diagnoses(score_only_scans, {**diagnosis_map, **words}, found)
    to_open = _without_repeats(settled, found, scored)
    index = partial(_index_inside, root=root, link_targets=link_targets)
    opened = zip(to_open, progress(index(to_open, each=each, notes=notes), total=len(to_open)), strict=True)
    rows = [_row_or_next(candidate, entry, index, frames_minutes, found) for candidate, entry in opened]
    pairs = [(scan, row) for scan, row in zip(to_open, rows, strict=True) if row and scan.subject in scored]
    score_only_rows = list(_score_only_rows(pairs, set(score_only), diagnosis_map, found))
    collection = set_aside_conflicts(
        Collection(
            scans_table([row for row in rows if row and row["subject"] not in scored]),
            rejected_table([_rejected_row(rejection) for rejection in found.rejected]),
            tracers=dict(found.tracers),
            levels=dict(found.levels),
            unread=dict(found.unread),
            spellings=spellings,
            without_scan=found.without_scan,
            score_only=score_only_table(score_only_rows),
        )
    )
    check_scans(collection.scans)
    return collection


def detect_layout(root: Path, *, table: Path | None = None) -> Layout:
    """Detect the layout of a collection, or of its table."""
    if table is not None:
        return "folder" if "path" in map(column_key, table_columns(table)) else "adni"
    signs: dict[Layout, bool] = {
        "bids": (root / bids.PARTICIPANTS).is_file() or any(root.glob("sub-*/")),
        "folder": (root / folder.TABLE).is_file(),
        "adni": adni.has_adni_folders(root),
    }
    found = [layout for layout, there in signs.items() if there]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{root}: required one layout: bids ({bids.PARTICIPANTS}, sub-*), adni (941_S_6962) or folder "
        f"({folder.TABLE}); received {' and '.join(found) or 'none'}; set cohort.layout, or check cohort.raw"
    )


def apply_policy(found: Findings, *, policy: Policy, diagnosis_map: Mapping[str, str]) -> list[Candidate]:
    """Return the candidates with diagnoses by `policy`; reject the others."""
    if policy == "visit":
        return found.candidates
    subjects: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in found.candidates:
        subjects[candidate.subject].append(candidate)
    words = {word.casefold(): diagnosis for word, diagnosis in diagnosis_map.items()}
    kept = []
    for subject, scans in subjects.items():
        if policy == "baseline":
            # An unknown diagnosis of the first scan is not replaced by a later one.
            diagnosis = chronological(scans)[0].diagnosis
            settled = [replace(scan, diagnosis=diagnosis) for scan in scans if diagnosis]
            reason, kind = (
                "no diagnosis of the subject's first scan, which cohort.diagnosis baseline takes; fill it in",
                UNUSABLE,
            )
        else:
            # Visits without a scan count too; an unknown diagnosis is no change.
            known = {visit.diagnosis for visit in (*scans, *found.visits.get(subject, ()))}
            by_class = {words.get(word.casefold(), word.casefold()): word for word in sorted(known - {""})}
            settled = scans if len(by_class) < 2 else []
            listed = ", ".join(sorted(by_class.values()))
            reason, kind = (
                f"the subject's diagnosis changes ({listed}), and cohort.diagnosis is stable-only",
                SKIPPED,
            )
        kept += settled
        for scan in [] if settled else scans:
            found.reject(scan.file, reason, kind)
    return kept


def chronological(scans: Sequence[Candidate]) -> list[Candidate]:
    """Order scans by date or age if known, else session."""
    dated = all(scan.date for scan in scans)
    aged = all(scan.age > 0 for scan in scans)

    def key(scan: Candidate) -> tuple[Any, ...]:
        age = scan.age if aged and not dated else 0.0
        return scan.date if dated else "", age, session_order(scan.session), natural_key(scan.run)

    return sorted(scans, key=key)


def index_files(files: Sequence[Path], *, each: Each = map, notes: Path | None = None) -> Iterator[FileEntry]:
    """Index files with checksums: yield an entry each, in order."""
    stamps = [_stamp(file) for file in files]
    noted = _read_notes(notes) if notes else {}
    known = [noted.get(stamp) for stamp in stamps]
    unknown = [file for file, entry in zip(files, known, strict=True) if entry is None]
    batches = [unknown[start : start + BATCH_FILES] for start in range(0, len(unknown), BATCH_FILES)]
    fresh = chain.from_iterable(each(_index_batch, batches))
    with _begin_notes(notes, zip(stamps, known, strict=True)) if notes else nullcontext() as stream:
        for stamp, entry in zip(stamps, known, strict=True):
            current = entry or next(fresh)
            # Damage is looked at again each time: it may have been the disk's or the network's.
            if stream and entry is None and stamp and not current.problem:
                stream.write(_note(stamp, current))
            yield current


def _index_batch(files: Sequence[Path]) -> list[FileEntry]:
    return [_index_file(file) for file in files]


def _index_file(file: Path) -> FileEntry:
    try:
        with as_nifti(file) as image:
            # Other formats have their sidecar's facts from the reader of the layout.
            converted = image != file and file.suffix.casefold() not in READ_BY_NIBABEL
            facts = read_object(image.with_suffix(".json")) if converted else {}
            require_fdg(facts_of([], [("its header", facts)]))
            times = json.dumps({name: facts[name] for name in FRAME_TIMES if name in facts})
            return FileEntry(read_header(image).n_frames, content_hash(image), times if facts else "")
    except InputError as error:
        return FileEntry(problem=str(error).removeprefix(f"{file}: "))
    except (OSError, RuntimeError, ValueError) as error:
        # No permission, a link that leads to itself, a disk that fails.
        return FileEntry(problem=" ".join(f"cannot be read: {error}".split()))


def _stamp(file: Path) -> str:
    try:
        found = [(part.name, os.stat(part)) for part in scan_files(file)]  # noqa: PTH116 - half Path's time
    except OSError:
        return ""
    return json.dumps([str(file), *([name, st.st_size, st.st_mtime_ns, st.st_ino] for name, st in found)])


def _begin_notes(notes: Path, known: Iterable[tuple[str, FileEntry | None]]) -> TextIO:
    lines = "".join(_note(stamp, entry) for stamp, entry in dict(known).items() if entry)
    with atomic_write(notes) as aside:
        aside.write_text(f"{_code()}\n{lines}", encoding="utf-8")
    # Each line goes to the file when it ends, so that a killed call loses none.
    return notes.open("a", encoding="utf-8", buffering=1)


def _read_notes(notes: Path) -> dict[str, FileEntry]:
    try:
        code, *lines = notes.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    matches = map(INDEX_LINE.fullmatch, lines if code == _code() else ())
    return {match[1]: FileEntry(int(match[2]), match[3], match[4]) for match in matches if match}


def _note(stamp: str, entry: FileEntry) -> str:
    return f"{stamp}\t{entry.n_frames}\t{entry.sha256}\t{entry.times}\n"


@cache
def _code() -> str:
    digest = hashlib.sha256(f"{version('nibabel')} {version('dcm2niix')}".encode())
    for source in (__file__, str(nifti.__file__), dicom.__file__, sidecar.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _with_diagnoses(
    candidates: Iterable[Candidate], diagnosis_map: Mapping[str, str], found: Findings
) -> list[Candidate]:
    words = {word.casefold(): diagnosis for word, diagnosis in diagnosis_map.items()}
    kept = []
    for candidate in candidates:
        diagnosis = words.get(candidate.diagnosis.casefold())
        if diagnosis:
            kept.append(replace(candidate, diagnosis=diagnosis))
        elif candidate.diagnosis:
            reason = f"diagnosis '{candidate.diagnosis}' is neither AD nor CN"
            found.reject(candidate.file, reason, SKIPPED)
        else:
            found.reject(candidate.file, "no diagnosis is given; fill it in")
    return kept


def _without_repeats(
    candidates: Sequence[Candidate], found: Findings, scored: Container[str]
) -> list[Candidate]:
    """Reject what is listed twice; all, where rows differ.

    The diagnosis of subjects who are only scored (`scored`) may change between visits.
    """
    owners, labels = defaultdict[Path, set[str]](set), defaultdict[str, set[str]](set)
    for candidate in candidates:
        owners[candidate.file].add(candidate.subject)
        labels[candidate.subject].add(candidate.diagnosis)
    first: dict[str, Candidate] = {}
    files: set[Path] = set()
    for candidate in candidates:
        if len(owners[candidate.file]) > 1:
            reason = f"listed for {' and '.join(sorted(owners[candidate.file]))}; correct one of the rows"
        elif candidate.file in files:
            reason = "listed twice; remove one of the rows"
        elif len(labels[candidate.subject]) > 1 and candidate.subject not in scored:
            reason = IN_BOTH.format(candidate.subject)
        elif (other := first.setdefault(candidate.key.lower(), candidate)) is not candidate:
            reason = f"same subject and session as {other.file.name}; number the sessions"
        else:
            reason = ""
        files.add(candidate.file)
        if reason:
            found.reject(candidate.file, reason)
    return sorted(first.values(), key=lambda candidate: candidate.key)


def _index_inside(
    candidates: Sequence[Candidate],
    *,
    root: Path,
    link_targets: Sequence[str],
    each: Each = map,
    notes: Path | None = None,
) -> Iterator[FileEntry]:
    problems = [_problem_with_place(candidate.file, root, link_targets) for candidate in candidates]
    inside = [candidate.file for candidate, problem in zip(candidates, problems, strict=True) if not problem]
    entries = index_files(inside, each=each, notes=notes)
    for problem in problems:
        yield FileEntry(problem=problem) if problem else next(entries)


def _problem_with_place(file: Path, root: Path, link_targets: Sequence[str]) -> str:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    try:
        for part in {file, *scan_files(file)}:
            require_inside(part, root, link_targets)
        there = file.exists()
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"cannot be listed: {error.strerror}"
    return "" if there else "listed, but not there, or a link to nothing; check its name, or fetch it"


def _row_or_next(
    candidate: Candidate,
    entry: FileEntry,
    index: Callable[[Sequence[Candidate]], Iterator[FileEntry]],
    minutes: Sequence[float],
    found: Findings,
) -> dict[str, str | float] | None:
    """Return the row of the first intact version, or None."""
    try:
        return _scan_row(candidate, entry, minutes)
    except InputError as error:
        if not candidate.others:
            found.reject(candidate.file, str(error))
            return None
        following, *others = candidate.others
        reason = f"{error}; the next version is used, {following.file.name}"
    found.reject(candidate.file, reason, SKIPPED)
    found.rejected[:] = [one for one in found.rejected if one.file != following.file]
    about = {name: getattr(candidate, name) for name in ("subject", "diagnosis")}
    following = replace(following, **about, others=tuple(others))
    (entry,) = index([following])
    return _row_or_next(following, entry, index, minutes, found)


def _scan_row(candidate: Candidate, entry: FileEntry, minutes: Sequence[float]) -> dict[str, str | float]:
    if entry.problem:
        raise InputError(entry.problem)
    frames = {**candidate.frames, **json.loads(entry.times or "{}")}
    seconds = used_seconds(frames, entry.n_frames, minutes=minutes) or []
    return {
        "scan": candidate.key,
        "subject": candidate.subject,
        "session": candidate.session,
        "diagnosis": candidate.diagnosis,
        "age": candidate.age,
        "sex": candidate.sex,
        "site": candidate.site,
        "scanner": candidate.scanner,
        "level": candidate.level,
        "path": _shown(candidate.file),
        "frame_seconds": " ".join(f"{value:.10g}" for value in seconds),
        "content": entry.sha256,
    }


def _score_only_rows(
    pairs: Iterable[tuple[Candidate, dict[str, Any]]],
    words: Container[str],
    diagnosis_map: Mapping[str, str],
    found: Findings,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of subjects who are only scored."""
    ad = {word.casefold() for word, diagnosis in diagnosis_map.items() if diagnosis == "AD"}
    subjects: dict[str, list[tuple[Candidate, dict[str, Any]]]] = defaultdict(list)
    for candidate, row in pairs:
        subjects[candidate.subject].append((candidate, row))
    for subject, rows in subjects.items():
        scans = chronological([scan for scan, _ in rows])
        baseline = next((scan for scan in scans if scan.diagnosis in words), None)
        if not baseline:
            for scan in scans:
                reason = "no scan of this subject with a diagnosis of cohort.score_only can be used"
                found.reject(scan.file, reason, SKIPPED)
            continue
        visits = found.visits.get(subject, ())
        times = [(years_between(baseline.visit, visit), visit.diagnosis.casefold() in ad) for visit in visits]
        # With AD before the baseline, a subject neither converts nor stays stable.
        had_ad = any(years < 0 and is_ad for years, is_ad in times)
        later = [] if had_ad else [(years, is_ad) for years, is_ad in times if years > SAME_VISIT_YEARS]
        converted = [years for years, is_ad in later if is_ad]
        about = {
            "group": baseline.diagnosis,
            "ad_years": min(converted, default=math.nan),
            "followed_years": max((years for years, _ in later), default=math.nan),
        }
        for scan, row in rows:
            years = 0.0 if scan is baseline else years_between(baseline.visit, scan.visit)
            yield {**row, **about, "baseline": scan is baseline, "years": years}


def _rejected_row(rejection: Rejection) -> dict[str, str]:
    reason = rejection.reason.encode(errors="backslashreplace").decode()
    return {"file": _shown(rejection.file), "reason": reason, "kind": rejection.kind}


def _shown(file: Path) -> str:
    """Return a POSIX path, relative inside the working directory."""
    path = Path(os.path.normpath(file.absolute()))
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return path.as_posix().encode(errors="backslashreplace").decode()
