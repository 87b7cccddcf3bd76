"""Read a flat folder of scans described by a ``scans.csv``.

Its paths are relative to the folder; one may name a folder with the frames of one image. A scan is taken for
FDG unless its name, its sidecar or a column `tracer` says otherwise.
"""

from pathlib import Path

from adpet.cohort.tables import (
    Candidate,
    Findings,
    parse_age,
    parse_date,
    parse_sex,
    plain,
    read_table,
    require_columns,
    require_inside,
)
from adpet.imaging.sidecar import read_facts, tracer_name

TABLE = "scans.csv"
REQUIRED = ("path", "subject", "session", "diagnosis")
TRACER = ("tracer", "tracername", "radiotracer", "radiopharmaceutical")


def find_folder(root: Path, *, table: Path | None = None) -> Findings:
    """List the scans of a CSV, by default ``scans.csv``."""
    if table is None:
        require_inside(root / TABLE, root)
    listing = read_table(table or root / TABLE)
    require_columns(listing, REQUIRED, hint="age, sex, site, scanner and date may be added")
    findings = Findings()
    column = next(filter(listing.has, TRACER), "")
    hint = f"fill in the column {column} of {listing.path.name}" if column else ""
    for row in listing.rows:
        file = root / row["path"]
        subject = plain(row["subject"])
        if not row["path"]:
            findings.reject(listing.path, f"a row of subject {subject or 'unknown'} has no path; fill it in")
            continue
        if not subject:
            findings.reject(file, f"no subject in {listing.path.name}; fill it in")
            continue
        facts = read_facts(file)
        tracer = tracer_name(row.get(column, ""))
        stated = [*facts.statements, *([(f"column {column}", tracer)] if tracer else [])]
        if findings.takes(file, stated, hint=hint, uncorrected=facts.uncorrected):
            findings.candidates.append(
                Candidate(
                    file=file,
                    subject=subject,
                    session=plain(row["session"]),
                    diagnosis=plain(row["diagnosis"]),
                    site=plain(row.get("site", "")),
                    scanner=plain(row.get("scanner", "")),
                    age=parse_age(row.get("age", "")),
                    sex=parse_sex(row.get("sex", "")),
                    date=parse_date(row.get("date", "")),
                    frames=facts.metadata,
                )
            )
    return findings
