"""Read a collection of any layout into one table of scans.

Each file is opened once, checked, and hashed; an unusable one is set aside with its reason. Diagnoses that
change between visits are settled here.
"""

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from adpet.cohort import adni, bids, folder
from adpet.cohort.adni import LEVELS
from adpet.cohort.scans import (
    DIAGNOSES,
    Collection,
    check_scans,
    rejected_table,
    scans_table,
    set_aside_conflicts,
)
from adpet.cohort.tables import SKIPPED, UNUSABLE, Candidate, Findings, Rejection, read_table
from adpet.errors import InputError
from adpet.imaging import nifti
from adpet.imaging.nifti import natural_key, read_header, scan_files
from adpet.parallel import map_in_processes
from adpet.storage import atomic_write

# So many files are handed to a process at once: fewer cost time in handing over, more leave a process idle
# at the end. Up to so many are read in this process, which is quicker than starting others.
BATCH_FILES = 32
# Blocks that stay in a processor's cache between being read and being hashed.
BLOCK_BYTES = 2**18
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Contents:
    """What is in a scan's file: the number of frames, and the SHA-256 of its bytes (see `content_hash`)."""

    n_frames: int
    sha256: str


@dataclass(frozen=True)
class Unreadable:
    """Why a scan's file cannot be used, in words for who keeps the scans."""

    reason: str


def read_contents(
    files: Sequence[Path], *, workers: int = 1, notes: Path | None = None
) -> Iterator[Contents | Unreadable]:
    """Open and hash every file, and yield what is in it, in order.

    Parameters
    ----------
    files : sequence of Path
        Scans as `read_header` takes them.
    workers : int
        Processes; they do not change any result.
    notes : Path, optional
        Where earlier calls have noted what they read, and this one does. A line is added as soon as a scan
        is read, so that a killed call continues. What other code has noted, and what cannot be understood,
        counts for nothing, and is forgotten as are other files.
    """
    evidence = [_evidence(file) for file in files]
    noted = {} if notes is None else _read_notes(notes)
    known = [noted.get(now) for now in evidence]
    unknown = [file for file, contents in zip(files, known, strict=True) if contents is None]
    batches = [unknown[start : start + BATCH_FILES] for start in range(0, len(unknown), BATCH_FILES)]
    fresh = chain.from_iterable(map_in_processes(_read_batch, batches, workers=workers))
    still = {now: contents for now, contents in zip(evidence, known, strict=True) if contents}
    with _noting(notes, still) as note:
        for now, contents in zip(evidence, known, strict=True):
            outcome = contents or next(fresh)
            # Damage is looked at again each time: it may have been the disk's or the network's.
            if contents is None and now and isinstance(outcome, Contents):
                note(now, outcome)
            yield outcome


def content_hash(file: Path) -> str:
    """Return the SHA-256 of a scan's bytes: of a file, both of a pair, or all frames of a folder."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(BLOCK_BYTES))
    for part in scan_files(file):
        with part.open("rb", buffering=0) as stream:
            while size := stream.readinto(block):
                digest.update(block[:size])
    return digest.hexdigest()


def _read_batch(files: Sequence[Path]) -> list[Contents | Unreadable]:
    return [_read(file) for file in files]


def _read(file: Path) -> Contents | Unreadable:
    """Open and hash one file."""
    try:
        return Contents(read_header(file).n_frames, content_hash(file))
    except InputError as error:
        return Unreadable(str(error).removeprefix(f"{file}: "))
    except (OSError, RuntimeError, ValueError) as error:
        # No permission, a link that leads to itself, a disk that fails.
        return Unreadable(" ".join(f"cannot be read: {error}".split()))


def _evidence(file: Path) -> str:
    """Return what changes with a scan's files: path, and name, size, time of change and inode of each.

    Nothing where a file is not there.
    """
    try:
        found = [(part.name, os.stat(part)) for part in scan_files(file)]  # noqa: PTH116 - half Path's time
    except OSError:
        return ""
    return json.dumps([str(file), *([name, st.st_size, st.st_mtime_ns, st.st_ino] for name, st in found)])


@contextmanager
def _noting(notes: Path | None, still: Mapping[str, Contents]) -> Iterator[Callable[[str, Contents], object]]:
    """Let only what is known `still` stand in the notes, and yield what adds a scan to them at once."""
    if notes is None:
        yield lambda _evidence, _contents: None
        return
    with atomic_write(notes) as aside:
        lines = "".join(_line(evidence, contents) for evidence, contents in still.items())
        aside.write_text(f"{_code()}\n{lines}", encoding="utf-8")
    # Each line goes to the file when it ends, so that a killed call loses none.
    with notes.open("a", encoding="utf-8", buffering=1) as stream:
        yield lambda evidence, contents: stream.write(_line(evidence, contents))


def _read_notes(notes: Path) -> dict[str, Contents]:
    """Return what was noted by evidence; nothing where other code has noted it."""
    try:
        code, *lines = notes.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {} if code != _code() else dict(filter(None, map(_noted, lines)))


def _noted(line: str) -> tuple[str, Contents] | None:
    """Return what a line says; nothing where it is no whole one."""
    match line.split("\t"):
        case [evidence, n_frames, sha256] if n_frames.isdecimal() and SHA256.fullmatch(sha256):
            return evidence, Contents(int(n_frames), sha256)
    return None


def _line(evidence: str, contents: Contents) -> str:
    # JSON in ASCII holds neither tabs nor ends of lines.
    return f"{evidence}\t{contents.n_frames}\t{contents.sha256}\n"


@cache
def _code() -> str:
    """Return a hash of all that decides what a file is taken for: this module, imaging, and nibabel."""
    digest = hashlib.sha256(version("nibabel").encode())
    for source in (__file__, str(nifti.__file__)):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


Policy: TypeAlias = Literal["visit", "baseline", "stable-only"]

# Sessions with these names are the first ones, wherever the alphabet puts them (ADNI's sc comes before bl).
FIRST_SESSIONS: Final = ("sc", "screening", "init", "initial", "bl", "baseline")


def follow_policy(found: Findings, *, policy: Policy, diagnosis_map: Mapping[str, str]) -> list[Candidate]:
    """Return the candidates with the diagnoses that `policy` gives them; those left out become rejections.

    Parameters
    ----------
    found : Findings
        `candidates` and, for ``stable-only``, what else is known of the subjects: `diagnoses`.
    policy : "visit", "baseline" or "stable-only"
        See the module.
    diagnosis_map : mapping of str to str
        Words of one class are one diagnosis: from ``AD`` to ``Dementia`` is no change.
    """
    if policy == "visit":
        return found.candidates
    subjects: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in found.candidates:
        subjects[candidate.subject].append(candidate)
    kept = []
    for subject, scans in subjects.items():
        if policy == "baseline":
            kept += _as_at_first(scans, found)
        else:
            kept += _if_stable(subject, scans, found, diagnosis_map)
    return kept


def in_order_of_time(scans: Sequence[Candidate]) -> list[Candidate]:
    """Order one subject's scans: by dates or else by ages if all scans have them, then by session's label.

    Labels are in natural order (``m6`` before ``m12``), names of a first session before all others.
    """
    dated = all(scan.date for scan in scans)
    aged = all(scan.age > 0 for scan in scans)

    def key(scan: Candidate) -> tuple[str, float, int, tuple[str | int, ...], tuple[str | int, ...]]:
        label = scan.session.casefold()
        rank = FIRST_SESSIONS.index(label) if label in FIRST_SESSIONS else len(FIRST_SESSIONS)
        age = scan.age if aged and not dated else 0.0
        return scan.date if dated else "", age, rank, natural_key(label), natural_key(scan.run)

    return sorted(scans, key=key)


def _as_at_first(scans: Sequence[Candidate], found: Findings) -> list[Candidate]:
    """Give all scans the diagnosis of the first; where it is not known, no later one stands in for it."""
    first = in_order_of_time(scans)[0]
    if first.diagnosis:
        return [replace(scan, diagnosis=first.diagnosis) for scan in scans]
    for scan in scans:
        reason = "no diagnosis of the subject's first scan, which cohort.diagnosis baseline takes; fill it in"
        found.reject(scan.file, reason)
    return []


def _if_stable(
    subject: str, scans: Sequence[Candidate], found: Findings, diagnosis_map: Mapping[str, str]
) -> list[Candidate]:
    """Return all scans or none: other visits count as well, and what is not known is no change."""
    words = {word.casefold(): diagnosis for word, diagnosis in diagnosis_map.items()}
    known = {scan.diagnosis for scan in scans} | found.diagnoses.get(subject, set())
    by_class = {words.get(word.casefold(), word.casefold()): word for word in sorted(known - {""})}
    if len(by_class) <= 1:
        return list(scans)
    listed = ", ".join(sorted(by_class.values()))
    for scan in scans:
        reason = f"the subject's diagnosis changes ({listed}), and cohort.diagnosis is stable-only"
        found.reject(scan.file, reason, SKIPPED)
    return []


Layout = Literal["bids", "adni", "folder"]


@dataclass(frozen=True)
class _Usable:
    """A scan whose file was opened and hashed."""

    candidate: Candidate
    frame_seconds: str
    content: str


def read_collection(
    root: Path,
    *,
    layout: Literal["auto", "bids", "adni", "folder"],
    table: Path | None,
    diagnosis_column: str,
    diagnosis_map: Mapping[str, str],
    diagnosis: Policy = "visit",
    diagnosis_table: Path | None = None,
    adni_level: Sequence[str] = tuple(LEVELS),
    workers: int = 1,
    notes: Path | None = None,
    progress: Callable[..., Iterable[Any]] = lambda items, **_: items,
) -> Collection:
    """Read all scans of a collection, and all reasons why a file is not one of them.

    Parameters
    ----------
    root : Path
        The collection's folder. Paths under the working directory are given relative to it.
    layout : "auto", "bids", "adni" or "folder"
        How the folder is laid out; ``auto`` looks.
    table : Path or None
        The CSV of an ADNI download or of a flat folder, where it is not in `root`.
    diagnosis_column : str
        Where a BIDS dataset has the diagnosis.
    diagnosis_map : mapping of str to "AD" or "CN"
        What the collection calls them, in any case; other diagnoses are skipped.
    diagnosis : "visit", "baseline" or "stable-only"
        What happens to a subject whose diagnosis changes: see `adpet.cohort.reader`.
    diagnosis_table : Path, optional
        ADNI's diagnoses by visit.
    adni_level : sequence of str
        ADNI's processing levels that may be used, in the order of preference.
    workers : int
        Processes that open and hash files; they do not change any result.
    notes : Path, optional
        Where it is noted what was read, so that the next call reads new and changed files alone.
    progress : callable, optional
        Wraps the iterable of opened scans, to show how far it is; called with it and ``total=``.

    Returns
    -------
    Collection
        Checked scans, ordered by key, and the rejected files, ordered by path.

    Raises
    ------
    InputError
        If the folder is missing, its layout cannot be told, or it holds no scans at all.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: required a folder of scans; received none; check cohort.raw, or run `dvc repro`"
        )
    detected = detect_layout(root, table=table) if layout == "auto" else layout
    if diagnosis_table is not None and detected != "adni":
        raise InputError(
            f"cohort.diagnosis_table: required ADNI's layout; received {detected}, whose own tables tell the "
            "diagnosis of every visit; set it to null"
        )
    if detected == "adni":
        found = adni.find_adni(root, table=table, diagnosis_table=diagnosis_table, levels=adni_level)
    elif detected == "bids":
        found = bids.find_bids(root, diagnosis_column=diagnosis_column)
    else:
        found = folder.find_folder(root, table=table)
    if not found.candidates and not found.rejected:
        raise InputError(
            f"{root}: required scans (.nii or .nii.gz); received none; check cohort.raw and cohort.layout"
        )
    settled = follow_policy(found, policy=diagnosis, diagnosis_map=diagnosis_map)
    named = [_with_diagnosis(candidate, diagnosis_map) for candidate in settled]
    to_open = _keyed(named, found)
    rejected = [*found.rejected, *(item for item in named if isinstance(item, Rejection))]
    usable = []
    opened = _opened(to_open, root, workers=workers, notes=notes)
    for outcome in progress(opened, total=len(to_open)):
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
        else:
            usable.append(outcome)
    collection = set_aside_conflicts(
        Collection(
            scans_table([_scan_row(scan) for scan in usable]),
            rejected_table([_rejected_row(rejection) for rejection in rejected]),
            tracers=dict(found.tracers),
            levels=dict(found.levels),
        )
    )
    check_scans(collection.scans)
    return collection


def detect_layout(root: Path, *, table: Path | None = None) -> Layout:
    """Tell the layout by what lies at the top of a collection, or by the columns of its table.

    Raises
    ------
    InputError
        If there are signs of no layout, or of more than one.
    """
    if table is not None:
        return "folder" if read_table(table).has("path") else "adni"
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


def _with_diagnosis(candidate: Candidate, diagnosis_map: Mapping[str, str]) -> Candidate | Rejection:
    """Translate a diagnosis to AD or CN, or reject the scan."""
    words = {word.casefold(): diagnosis for word, diagnosis in diagnosis_map.items()}
    diagnosis = words.get(candidate.diagnosis.casefold())
    if diagnosis in DIAGNOSES:
        return replace(candidate, diagnosis=diagnosis)
    if not candidate.diagnosis:
        return Rejection(candidate.file, "no diagnosis is given; fill it in", UNUSABLE)
    return Rejection(candidate.file, f"diagnosis '{candidate.diagnosis}' is neither AD nor CN", SKIPPED)


def _keyed(named: Iterable[Candidate | Rejection], found: Findings) -> list[Candidate]:
    """Return the candidates, without those whose key or file an earlier one has; these are rejected."""
    first: dict[str, Candidate] = {}
    files: set[Path] = set()
    for candidate in named:
        if isinstance(candidate, Rejection):
            continue
        if candidate.file in files:
            found.reject(candidate.file, "listed twice; remove one of the rows")
            continue
        files.add(candidate.file)
        other = first.setdefault(candidate.key.lower(), candidate)
        if other is not candidate:
            found.reject(
                candidate.file, f"same subject and session as {other.file.name}; number the sessions"
            )
    return sorted(first.values(), key=lambda candidate: candidate.key)


def _opened(
    candidates: Sequence[Candidate], root: Path, *, workers: int, notes: Path | None
) -> Iterator[_Usable | Rejection]:
    """Open and hash the candidates' files; yield one outcome each, in order."""
    real_root = root.resolve()
    outside = [_why_outside(candidate.file, root, real_root) for candidate in candidates]
    inside = [one.file for one, reason in zip(candidates, outside, strict=True) if not reason]
    found = read_contents(inside, workers=workers, notes=notes)
    for candidate, reason in zip(candidates, outside, strict=True):
        yield _judged(candidate, Unreadable(reason) if reason else next(found))


def _judged(candidate: Candidate, found: Contents | Unreadable) -> _Usable | Rejection:
    if isinstance(found, Unreadable):
        return Rejection(candidate.file, found.reason, UNUSABLE)
    try:
        seconds = _checked_seconds(candidate.frame_seconds, found.n_frames)
    except InputError as error:
        return Rejection(candidate.file, str(error), UNUSABLE)
    return _Usable(candidate, seconds, found.sha256)


def _why_outside(file: Path, root: Path, real_root: Path) -> str:
    """Return why a file is none of the collection; nothing where it lies in it."""
    if not _is_utf8(file):
        return "its name is not valid UTF-8; rename it"
    if not all(Path(os.path.realpath(part)).is_relative_to(real_root) for part in (file, *scan_files(file))):
        return f"leads out of {root}, by its path or a link; put the file itself there"
    if not file.exists():
        return "listed, but not there, or a link to nothing; check its name, or fetch it"
    return ""


def _checked_seconds(durations: str, n_frames: int) -> str:
    """Return durations that fit the frames; one frame needs none."""
    values = durations.split()
    if n_frames == 1 or not values:
        return ""
    try:
        fits = len(values) == n_frames and all(0 < float(value) < math.inf for value in values)
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"required FrameDuration in s for {n_frames} frames; received '{durations}'; mend it"
        )
    return durations


def _scan_row(scan: _Usable) -> dict[str, str | float]:
    candidate = scan.candidate
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
        "frame_seconds": scan.frame_seconds,
        "content": scan.content,
    }


def _rejected_row(rejection: Rejection) -> dict[str, str]:
    reason = rejection.reason.encode(errors="backslashreplace").decode()
    return {"file": _shown(rejection.file), "reason": reason, "kind": rejection.kind}


def _shown(file: Path) -> str:
    """Return a POSIX path, relative to the working directory where it lies under it."""
    path = Path(os.path.normpath(file.absolute()))
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return path.as_posix().encode(errors="backslashreplace").decode()


def _is_utf8(file: Path) -> bool:
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return False
    return True
