"""What the reader of one layout finds in a collection, before any image is opened."""

import hashlib
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

# "skipped": no part of the study by design (another tracer, diagnosis, processing level);
# "unusable": damaged, contradictory or incomplete, which counts against cohort.max_rejected_fraction.
Kind = Literal["skipped", "unusable"]
SKIPPED: Final[Kind] = "skipped"
UNUSABLE: Final[Kind] = "unusable"


@dataclass(frozen=True)
class Candidate:
    """One scan as a collection describes it, before its file is opened; `diagnosis` in its own words.

    `file` is an image, or a folder that holds nothing but the frames of one; `level` is what was done to the
    image before we got it, in the collection's words; `date` is YYYYMMDD and orders a subject's scans only.
    """

    file: Path
    subject: str
    session: str = ""
    run: str = ""
    diagnosis: str = ""
    age: float = math.nan
    sex: str = ""
    site: str = ""
    scanner: str = ""
    frame_seconds: str = ""
    level: str = ""
    date: str = ""

    @property
    def key(self) -> str:
        """The scan's key, safe as a file name on every system."""
        entities = (("sub", self.subject), ("ses", self.session), ("run", self.run))
        return "_".join(f"{name}-{safe_label(label)}" for name, label in entities if label)


@dataclass(frozen=True)
class Rejection:
    """One file that is not used, and why, in words for who keeps the scans."""

    file: Path
    reason: str
    kind: Kind


@dataclass(frozen=True)
class Findings:
    """What a reader of one layout found.

    `tracers` counts the files of every tracer there is, `levels` the FDG images of every processing level,
    whether they are used or not. `diagnoses` are those that tables give a subject at any of its visits, with
    and without a scan.
    """

    candidates: list[Candidate] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    tracers: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    diagnoses: dict[str, set[str]] = field(default_factory=dict)

    def reject(self, file: Path, reason: str, kind: Kind = UNUSABLE) -> None:
        """Set one file aside."""
        self.rejected.append(Rejection(file, reason, kind))


def safe_label(label: str) -> str:
    """Return `label` in ASCII letters and digits: ``941_S_6962`` is ``941S6962``.

    Where more than separators is lost, some digits of a hash keep labels apart.
    """
    ascii_only = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9]", "", ascii_only)
    if re.fullmatch(r"[A-Za-z0-9 ._-]*[A-Za-z0-9][A-Za-z0-9 ._-]*", label):
        return safe
    return safe + hashlib.sha256(label.encode()).hexdigest()[:6]
