"""Read a flat folder of scans described by a ``scans.csv``.

Its paths are relative to the folder; one may name a folder with the frames of one image. A scan is taken for
FDG unless its name, its sidecar or a column `tracer` says otherwise.
"""

import os
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from adpet.cohort.adni_metadata import files_under
from adpet.cohort.identity import without_decimals
from adpet.cohort.tables import (
    IMAGE,
    SKIPPED,
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
)
from adpet.errors import InputError
from adpet.imaging.dicom import is_dicom
from adpet.imaging.nifti import scan_files
from adpet.imaging.sidecar import FLUORINE_CODES, PET, Statement, read_facts, tracer_name

TABLE = "scans.csv"
REQUIRED = ("path", "subject", "session", "diagnosis")
TRACER = (
    "tracer", "tracername", "tracertype", "pettracer", "radiotracer", "radiotracername", "ligand",
    "radioligand", "radiopharmaceutical",
)  # fmt: skip
# Columns by which a tracer is known, with their values that name none.
TRACER_COLUMNS = dict.fromkeys(TRACER, ()) | {
    "modality": PET,
    "radionuclide": FLUORINE_CODES,
    "isotope": FLUORINE_CODES,
}


def find_folder(
    root: Path, *, table: Path | None = None, declared: DateOrder = "auto", link_targets: Sequence[str] = ()
) -> Findings:
    """List the scans of a CSV, by default ``scans.csv``."""
    if table is None:
        require_inside(root / TABLE, root, link_targets)
    listing = read_table(table or root / TABLE)
    require_columns(listing, REQUIRED, hint="age, sex, site, scanner and date may be added")
    findings = Findings()
    day = partial(parse_date, order=date_order(listing, "date", declared))
    inside = partial(require_inside, root=root, link_targets=link_targets)
    column = next(filter(listing.has, TRACER), "")
    hint = f"fill in the column {column} of {listing.path.name}" if column else ""
    listed: set[str] = set()
    for row in listing.rows:
        file = root / row["path"]
        if not os.path.lexists(file):  # as Windows writes it
            file = root / row["path"].replace("\\", "/")
        subject = without_decimals(plain(row["subject"]))
        if not row["path"]:
            findings.reject(listing.path, f"a row of subject {subject or 'unknown'} has no path; fill it in")
            continue
        listed.add(os.path.realpath(file))
        try:
            inside(file)
            listed.update(map(os.path.realpath, scan_files(file)))
            facts = read_facts(file, inside)
        except InputError as error:
            findings.reject(file, str(error))
            continue
        except OSError as error:
            findings.reject(file, f"cannot be listed: {error.strerror}")
            continue
        if not subject:
            findings.reject(file, f"no subject in {listing.path.name}; fill it in")
            continue
        stated = [*facts.statements, *_stated(row)]
        words: dict[str, Any] = {
            name: without_decimals(plain(row.get(name, "")))
            for name in ("session", "diagnosis", "site", "scanner")
        }
        words["scanner"] = words["scanner"] or scanner_stated(facts.metadata)
        if findings.takes(file, stated, hint=hint, uncorrected=facts.uncorrected):
            findings.candidates.append(
                Candidate(
                    file=file,
                    subject=subject,
                    **words,
                    age=findings.parse("age", parse_age, row.get("age", "")),
                    sex=findings.parse("sex", parse_sex, row.get("sex", "") or row.get("gender", "")),
                    date=findings.parse("date", day, row.get("date", "")),
                    frames=facts.metadata,
                )
            )
    findings.visits.update(_visits(findings.candidates))
    for place in dict.fromkeys(_unlisted(root, listed)):
        findings.reject(place, f"not in {listing.path.name}; add a row if it is a scan", SKIPPED)
    return findings


def _visits(candidates: Iterable[Candidate]) -> dict[str, set[Visit]]:
    """Return the rows with a diagnosis, by subject."""
    found: dict[str, set[Visit]] = defaultdict(set)
    for candidate in candidates:
        if candidate.diagnosis:
            found[candidate.subject].add(candidate.visit)
    return found


def _stated(row: Mapping[str, str]) -> Iterator[Statement]:
    for column, words in TRACER_COLUMNS.items():
        text = plain(row.get(column, ""))
        if (tracer := tracer_name(text)) and column_key(text) not in words:
            yield f"column {column}", tracer


def _unlisted(root: Path, listed: Container[str]) -> Iterator[Path]:
    """Yield images, and folders of DICOM."""
    for file in files_under(root, re.compile(".+")):
        if os.path.realpath(file) not in listed:
            if is_dicom(file):
                yield file.parent
            elif IMAGE.fullmatch(file.name):
                yield file
