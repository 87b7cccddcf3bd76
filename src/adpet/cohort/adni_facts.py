"""What ADNI says of an image, in one form, whether a collection CSV or XML files say it.

An image is known by its number: ``I1480670`` in paths, with or without the letter in tables.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PTID: Final = re.compile(r"(?<!\d)\d{3}_S_\d{4,5}(?!\d)")
IMAGE_ID: Final = re.compile(r"[ID]?(\d+)", re.IGNORECASE)

# Two descriptions of one image must not differ in these: label, scan and time follow from them.
DECIDING: Final = ("subject", "group", "modality", "description", "date", "tracer")


@dataclass(frozen=True)
class ImageFacts:
    """One image as the archive describes it, as text; `date` is YYYYMMDD, and unknown is ``""``."""

    number: str
    subject: str
    group: str
    description: str
    sex: str = ""
    age: str = ""
    visit: str = ""
    modality: str = ""
    date: str = ""
    tracer: str = ""


@dataclass(frozen=True)
class Listing:
    """All images that one source describes.

    Attributes
    ----------
    source : str
        The source's name, for people.
    images : dict of str to ImageFacts
        By image number.
    problems : dict of str to str
        By image number, why what is said of it cannot be used.
    strays : list of (Path, str)
        Files and reasons that concern no certain image.
    """

    source: str
    images: dict[str, ImageFacts] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    strays: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, facts: ImageFacts) -> None:
        """Add an image; what is said twice must agree."""
        first = self.images.setdefault(facts.number, facts)
        pairs = {name: {getattr(first, name), getattr(facts, name)} - {""} for name in DECIDING}
        differing = [name for name, values in pairs.items() if len(values) > 1]
        if differing:
            self.problems[facts.number] = (
                f"{self.source}: image I{facts.number} is described twice, with another "
                f"{' and '.join(differing)}; remove what is wrong"
            )


def image_number(text: str) -> str:
    """Return ``1480670`` for ``I1480670``, ``1480670`` and ``D1480670``, else ``""``."""
    match = IMAGE_ID.fullmatch(text.strip())
    return str(int(match[1])) if match else ""


def files_under(root: Path, names: re.Pattern[str]) -> Iterator[Path]:
    """Yield files whose names match, in a fixed order, without hidden ones (macOS leaves ``._`` twins)."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if names.fullmatch(name) and name[0] != ".")
