"""Read a collection of any layout: find its scans, open and hash every file, keep what agrees.

Nothing that is wrong with one file stops the others: it is set aside with its path and the reason.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from adpet.cohort import adni, bids, folder
from adpet.cohort.adni_levels import LEVELS
from adpet.cohort.candidates import SKIPPED, UNUSABLE, Candidate, Findings, Rejection
from adpet.cohort.contents import Contents, Unreadable, read_contents
from adpet.cohort.diagnosis import Policy, follow_policy
from adpet.cohort.scans import (
    DIAGNOSES,
    Collection,
    check_scans,
    rejected_table,
    scans_table,
    set_aside_conflicts,
)
from adpet.cohort.tables import read_table
from adpet.errors import InputError
from adpet.imaging.volume import scan_files

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
        What happens to a subject whose diagnosis changes: see `adpet.cohort.diagnosis`.
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
