"""Read a collection of any layout: find its scans, open and hash every file, keep what agrees.

Nothing that is wrong with one file stops the others: it is set aside with its path and the reason.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from adpet.cohort import adni, bids, folder
from adpet.cohort.adni_levels import LEVELS
from adpet.cohort.candidates import SKIPPED, UNUSABLE, Candidate, Findings, Rejection
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
from adpet.imaging.volume import read_header, scan_files

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
    progress: Callable[[Sequence[Candidate]], Iterable[Candidate]] = iter,
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
    progress : callable, optional
        Wraps the sequence of scans that are opened, to show how far it is.

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
    for candidate in progress(to_open):
        outcome = _examine(candidate, root)
        if isinstance(outcome, Rejection):
            rejected.append(outcome)
        else:
            usable.append(outcome)
    collection = set_aside_conflicts(
        Collection(
            scans_table([_scan_row(scan) for scan in usable]),
            rejected_table([_rejected_row(rejection) for rejection in rejected]),
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


def content_hash(file: Path) -> str:
    """Return the SHA-256 of a scan's bytes: of a file, both of a pair, or all frames of a folder."""
    digest = hashlib.sha256()
    for part in scan_files(file):
        with part.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


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


def _examine(candidate: Candidate, root: Path) -> _Usable | Rejection:
    """Open and hash one file."""
    file = candidate.file
    try:
        _require_inside(file, root)
        header = read_header(file)
        seconds = _checked_seconds(candidate.frame_seconds, header.n_frames)
        return _Usable(candidate, seconds, content_hash(file))
    except InputError as error:
        return Rejection(file, str(error).removeprefix(f"{file}: "), UNUSABLE)
    except (OSError, RuntimeError, ValueError) as error:
        # No permission, a link that leads to itself, a disk that fails.
        return Rejection(file, " ".join(f"cannot be read: {error}".split()), UNUSABLE)


def _require_inside(file: Path, root: Path) -> None:
    if not _is_utf8(file):
        raise InputError("its name is not valid UTF-8; rename it")
    for part in (file, *scan_files(file)):
        if not part.resolve().is_relative_to(root.resolve()):
            raise InputError(f"leads out of {root}, by its path or a link; put the file itself there")
    if not file.exists():
        raise InputError("listed, but not there, or a link to nothing; check its name, or fetch it")


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
