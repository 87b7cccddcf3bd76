"""Read ADNI's collection CSV: one row an image, in all the spellings of the archive's exports."""

from pathlib import Path
from typing import Final

from adpet.cohort.adni_facts import ImageFacts, Listing, image_number
from adpet.cohort.tables import Table, parse_date, plain, read_table, require_columns
from adpet.errors import InputError

# The columns' names in today's exports, and as keys those of other exports.
IMAGE, SUBJECT, GROUP, DESCRIPTION = "Image Data ID", "Subject", "Group", "Description"
COLUMN_VARIANTS: Final = {
    IMAGE: ("imagedataid", "imageid", "imageuid", "image"),
    SUBJECT: ("subject", "subjectid", "ptid"),
    GROUP: ("group", "researchgroup"),
    DESCRIPTION: ("description", "imagedescription"),
    "Sex": ("sex", "gender"),
    "Age": ("age",),
    "Visit": ("visit", "viscode"),
    "Modality": ("modality",),
    "Acq Date": ("acqdate", "acquisitiondate", "studydate"),
}
REQUIRED: Final = (IMAGE, SUBJECT, GROUP, DESCRIPTION)


def read_collection_table(path: Path) -> Listing:
    """Read the images that a collection CSV describes.

    Raises
    ------
    InputError
        If the CSV is unreadable or lacks a required column.
    """
    table = read_table(path)
    spellings = {column: _spelling(table, column) for column in COLUMN_VARIANTS}
    missing = [column for column in REQUIRED if not spellings[column]]
    require_columns(table, missing, hint="download the CSV of the collection from the archive")
    listing = Listing(path.name)
    for cells in table.rows:
        row = {column: plain(cells.get(key, "")) for column, key in spellings.items()}
        if image_number(row[IMAGE]):
            listing.add(_facts(row))
        else:
            reason = f"a row has the image id '{row[IMAGE]}', which is no number; mend it"
            listing.strays.append((path, reason))
    return listing


def is_collection_table(path: Path) -> bool:
    """Say whether a CSV has the columns of the archive's collection CSV."""
    try:
        table = read_table(path)
    except InputError:
        return False
    return all(_spelling(table, column) for column in REQUIRED)


def _facts(row: dict[str, str]) -> ImageFacts:
    return ImageFacts(
        number=image_number(row[IMAGE]),
        subject=row[SUBJECT],
        group=row[GROUP],
        description=row[DESCRIPTION],
        sex=row["Sex"],
        age=row["Age"],
        visit=row["Visit"],
        modality=row["Modality"],
        date=parse_date(row["Acq Date"]),
    )


def _spelling(table: Table, column: str) -> str:
    """Return the key under which the rows have a column, ``""`` where they have it not."""
    return next((key for key in COLUMN_VARIANTS[column] if table.has(key)), "")
