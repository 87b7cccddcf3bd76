"""Read a flat folder of scans described by a ``scans.csv``.

Its paths are relative to the folder; one may name a folder with the frames of one image.
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

TABLE = "scans.csv"
REQUIRED = ("path", "subject", "session", "diagnosis")


def find_folder(root: Path, *, table: Path | None = None) -> Findings:
    """List the scans of a CSV, by default ``scans.csv``."""
    if table is None:
        require_inside(root / TABLE, root)
    listing = read_table(table or root / TABLE)
    require_columns(listing, REQUIRED, hint="age, sex, site, scanner and date may be added")
    findings = Findings()
    for row in listing.rows:
        file = root / row["path"]
        subject = plain(row["subject"])
        if not row["path"]:
            findings.reject(listing.path, f"a row of subject {subject or 'unknown'} has no path; fill it in")
        elif not subject:
            findings.reject(file, f"no subject in {listing.path.name}; fill it in")
        else:
            findings.candidates.append(
                Candidate(
                    file=file,
                    subject=subject,
                    **{
                        name: plain(row.get(name, "")) for name in ("session", "diagnosis", "site", "scanner")
                    },
                    age=parse_age(row.get("age", "")),
                    sex=parse_sex(row.get("sex", "")),
                    date=parse_date(row.get("date", "")),
                )
            )
    return findings
