"""Normalize every scan to MNI space; judge alignment, find duplicates."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.duplicates import coarse_brain, find_duplicates
from adpet.cohort.scans import read_scans
from adpet.errors import InputError, told_apart
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import Array, read_volume, write_volume
from adpet.imaging.normalization import load_standard, normalize
from adpet.parallel import map_in_processes, progress
from adpet.params import Normalize, Params
from adpet.stages.common.tables import ALIGNMENT_COLUMNS, MATRIX_COLUMNS, write_table
from adpet.storage import move, read_json, remove, work_dir, write_json


def run(params: Params) -> None:
    """Write a standard volume per aligned scan, and ``alignment.csv``."""
    scans = read_scans(paths.SCANS)
    rows = scans[["scan", "path", "frame_seconds", "content"]].to_dict("records")
    facts = {"normalize": params.normalize.model_dump(), "scans": rows}
    with work_dir("normalize", facts) as work:
        (work / "volumes").mkdir(exist_ok=True)
        one = partial(_normalize_scan, settings=params.normalize, work=work)
        done = map_in_processes(one, rows, workers=params.compute.workers)
        shown = progress(done, label="normalize", unit="scan", total=len(rows))
        table = pd.DataFrame(list(shown), columns=list(ALIGNMENT_COLUMNS))
        copies = _copies(table, scans, volumes=work / "volumes", workers=params.compute.workers)
        table = _set_aside(table, copies, volumes=work / "volumes")
        _require_enough(table, max_rejected_fraction=params.cohort.max_rejected_fraction)
        write_table(table, paths.ALIGNMENT, float_format=None)
        move(work / "volumes", paths.VOLUMES)


def _normalize_scan(scan: dict[str, Any], *, settings: Normalize, work: Path) -> dict[str, Any]:
    """Normalize one unfinished scan; return its row."""
    report, volume = work / f"{scan['scan']}.json", work / "volumes" / f"{scan['scan']}.nii"
    # A run that was killed at its very end has moved the volumes away, and their reports stay behind.
    if not report.exists() or (read_json(report)["passed"] and not volume.exists()):
        write_json(report, _attempt(scan, settings=settings, volumes=work / "volumes"))
    row: dict[str, Any] = read_json(report)
    return row


def _attempt(scan: dict[str, Any], *, settings: Normalize, volumes: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"scan": scan["scan"], "passed": False, "similarity": None, "reason": ""}
    standard = load_standard(**settings.model_dump(exclude={"min_similarity"}))
    seconds = [float(value) for value in scan["frame_seconds"].split()] or None
    try:
        with as_nifti(Path(scan["path"])) as image:
            volume, alignment = normalize(read_volume(image, frame_seconds=seconds, steady=True), standard)
    except InputError as error:
        reason = str(error)
        return {**row, "reason": reason if scan["path"] in reason else f"{scan['path']}: {reason}"}
    row["similarity"] = round(alignment.similarity, 6)
    row.update(zip(MATRIX_COLUMNS, np.round(alignment.matrix[:3].ravel(), 6).tolist(), strict=True))
    if alignment.similarity < settings.min_similarity:
        reason = "similarity {} is below {}".format(
            *told_apart(alignment.similarity, settings.min_similarity)
        )
        return {**row, "reason": reason}
    write_volume(volumes / f"{scan['scan']}.nii", volume, space="mni")
    return {**row, "passed": True}


def _copies(table: pd.DataFrame, scans: pd.DataFrame, *, volumes: Path, workers: int) -> dict[str, str]:
    """Return and print the copies of other subjects' scans."""
    passed = table.loc[table["passed"], "scan"].tolist()
    subjects = scans.set_index("scan")["subject"]
    brains = list(map_in_processes(partial(_coarse_brain, volumes=volumes), passed, workers=workers))
    reasons: dict[str, str] = {}
    for pair in find_duplicates(np.stack(brains), subjects[passed].tolist()) if brains else []:
        one, other = passed[pair.first], passed[pair.second]
        alike = f"(correlation {pair.correlation:.2f})"
        print(
            f"{one} and {other}: one image under two subjects' names {alike}; "
            "both set aside, since which name is right cannot be known"
        )
        for scan, twin in ((one, other), (other, one)):
            reasons.setdefault(scan, f"the same image as {twin} of another subject {alike}")
    return reasons


def _coarse_brain(scan: str, *, volumes: Path) -> Array:
    return coarse_brain(read_volume(volumes / f"{scan}.nii"))


def _set_aside(table: pd.DataFrame, reasons: Mapping[str, str], *, volumes: Path) -> pd.DataFrame:
    """Let scans fail that had passed, and remove their volumes."""
    found = table["scan"].isin(list(reasons))
    for scan in table.loc[found, "scan"]:
        remove(volumes / f"{scan}.nii")
    reason = table["scan"].map(reasons).where(found, table["reason"])
    return table.assign(passed=table["passed"] & ~found, reason=reason)


def _require_enough(table: pd.DataFrame, *, max_rejected_fraction: float) -> None:
    failed = table[~table["passed"]]
    if len(failed) > max_rejected_fraction * len(table):
        first = failed.iloc[0]
        raise InputError(
            f"{len(failed)} of {len(table)} scans could not be aligned, or are another subject's (allowed: "
            f"cohort.max_rejected_fraction = {max_rejected_fraction}); the first is {first['scan']}: "
            f"{first['reason']}; look at it, or lower normalize.min_similarity"
        )
