"""Normalize every scan to MNI space; judge quality, find duplicates."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.duplicates import coarse_brain, find_duplicates
from adpet.cohort.scans import read_scans
from adpet.cohort.summary import quality_text
from adpet.errors import InputError
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import Array, read_header, read_volume, write_volume
from adpet.imaging.normalization import load_standard, normalize
from adpet.imaging.registration import brain_points
from adpet.imaging.template import tissue_labels
from adpet.inference.quality import judged, measures, people_limits, refused_by, unlike_cohort, view_measures
from adpet.parallel import map_in_processes, progress
from adpet.params import Params
from adpet.stages.common.tables import ALIGNMENT_COLUMNS, MATRIX_COLUMNS, MEASURE_COLUMNS, write_table
from adpet.storage import move, read_json, remove, work_dir, write_json


def run(params: Params) -> None:
    """Write a standard volume per aligned scan, and ``alignment.csv``."""
    scans = read_scans(paths.SCANS)
    target, native = params.normalize.target_fwhm_mm, dict(params.normalize.native_fwhm_mm or {})
    by_scanner = ["scanner"] if target else []
    if wide := [name for name, width in native.items() if target and width > target]:
        print(f"{', '.join(wide)}: not smoothed, since their resolution is above normalize.target_fwhm_mm")
    rows = scans[["scan", "path", "frame_seconds", "content", *by_scanner]].to_dict("records")
    facts = {
        "normalize": params.normalize.model_dump(),
        "quality": params.quality.model_dump(),
        "scans": rows,
    }
    with work_dir("normalize", facts) as work:
        (work / "volumes").mkdir(exist_ok=True)
        one = partial(_normalize_scan, params=params, work=work)
        each = partial(map_in_processes, workers=params.compute.workers, cluster=params.compute.cluster)
        shown = progress(each(one, rows), label="normalize", unit="scan", total=len(rows))
        table = pd.DataFrame(list(shown), columns=list(ALIGNMENT_COLUMNS))
        copies = _copies(table, scans, volumes=work / "volumes", each=each)
        table = _flag_unlike(_set_aside(table, copies, volumes=work / "volumes"))
        print(quality_text(scans.merge(table, on="scan")))
        _require_enough(table, max_rejected_fraction=params.cohort.max_rejected_fraction)
        write_table(table, paths.ALIGNMENT, float_format=None)
        move(work / "volumes", paths.VOLUMES)


def _normalize_scan(scan: dict[str, Any], *, params: Params, work: Path) -> dict[str, Any]:
    """Normalize one unfinished scan; return its row."""
    report, volume = work / f"{scan['scan']}.json", work / "volumes" / f"{scan['scan']}.nii"
    # A run that was killed at its very end has moved the volumes away, and their reports stay behind.
    if not report.exists() or (read_json(report)["passed"] and not volume.exists()):
        write_json(report, _attempt(scan, params=params, volumes=work / "volumes"))
    row: dict[str, Any] = read_json(report)
    return row


def _attempt(scan: dict[str, Any], *, params: Params, volumes: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"scan": scan["scan"], "passed": False, "reason": "", "flagged": ""}
    standard = load_standard(**params.normalize.model_dump(exclude={"min_similarity"}))
    seconds = [float(value) for value in scan["frame_seconds"].split()] or None
    try:
        with as_nifti(Path(scan["path"])) as image:
            header = read_header(image)
            standard = standard.of_scanner(scan.get("scanner", ""))
            volume, alignment = normalize(read_volume(image, frame_seconds=seconds, steady=True), standard)
    except InputError as error:
        reason = str(error)
        return {**row, "reason": reason if scan["path"] in reason else f"{scan['path']}: {reason}"}
    values = measures(volume.data, brain=standard.brain, tissue=tissue_labels(params.normalize.grid_mm))
    points = brain_points(standard.brain, standard.template.affine)
    values |= view_measures(header.shape, header.affine, alignment.matrix, points)
    values["similarity"] = alignment.similarity
    row |= {name: round(value, 6) if math.isfinite(value) else None for name, value in values.items()}
    row.update(zip(MATRIX_COLUMNS, np.round(alignment.matrix[:3].ravel(), 6).tolist(), strict=True))
    limits = people_limits(
        params.quality.model_dump(), **params.normalize.model_dump(include={"min_similarity", "grid_mm"})
    )
    checks = judged(values, [limit for limit in limits if limit["name"] in values])
    if refused := refused_by(checks):
        return {**row, "reason": "; ".join(refused)}
    row["flagged"] = "; ".join(check["finding"] for check in checks if check["verdict"] == "flagged")
    write_volume(volumes / f"{scan['scan']}.nii", volume, space="mni")
    return {**row, "passed": True}


def _flag_unlike(table: pd.DataFrame) -> pd.DataFrame:
    """Flag scans that are unlike those which passed."""
    passed, flagged = table[table["passed"]], table["flagged"].copy()
    for name in MEASURE_COLUMNS if len(passed) else ():
        if name == "field_of_view_mm":  # scanners differ in it by design
            continue
        values = passed[name].to_numpy(np.float64)
        for index in passed.index[unlike_cohort(values)]:
            finding = (
                f"{name.replace('_', ' ')} {table[name][index]:.3g}, the cohort's {np.nanmedian(values):.3g}"
            )
            flagged[index] = "; ".join(filter(None, [flagged[index], finding]))
    return table.assign(flagged=flagged)


def _copies(
    table: pd.DataFrame, scans: pd.DataFrame, *, volumes: Path, each: Callable[..., Iterable[Array]]
) -> dict[str, str]:
    """Return and print the copies of other subjects' scans."""
    passed = table.loc[table["passed"], "scan"].tolist()
    subjects = scans.set_index("scan")["subject"]
    brains = list(each(partial(_coarse_brain, volumes=volumes), passed))
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
            f"{len(failed)} of {len(table)} scans are unlike FDG-PET of a head, or another subject's "
            f"(allowed: cohort.max_rejected_fraction = {max_rejected_fraction}); the first is "
            f"{first['scan']}: {first['reason']}; look at it, or widen quality in params.yaml"
        )
