"""Tell FDG from other tracers by whatever name it is given."""

import re
from typing import Final

from adpet.cohort.tables import column_key, plain

FDG: Final = "FDG"
# How files are counted of which nobody says what was injected.
UNKNOWN: Final = "unknown"

# FDG without case and marks: "FDG", "18F-FDG", "fluorodeoxyglucose", "fludeoxyglucose",
# "2-deoxy-2-[18F]fluoro-D-glucose".
FDG_NAMES: Final = re.compile("fdg|deoxyglucose|fluoro.{0,2}glucose")


def tracer_name(text: str) -> str:
    """Return ``FDG`` for every name of FDG, other tracers as they are named, ``""`` where none is."""
    name = plain(text)
    return FDG if FDG_NAMES.search(column_key(name)) else name
