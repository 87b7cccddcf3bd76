"""Tell tracer and processing level of an ADNI image by the whole text of its description."""

import re
from typing import Final

from adpet.cohort.adni_facts import ImageFacts
from adpet.cohort.tracers import FDG, UNKNOWN, tracer_name

# ADNI's descriptions of FDG images by our names of their levels, in the default order of preference: the
# most processed first, as it is the most alike over scanners (8 mm before 6 mm, because every phase of ADNI
# has it). Other tracers have the same descriptions with their name before.
LEVELS: Final = {
    "uniform-8mm": "Coreg, Avg, Std Img and Vox Siz, Uniform Resolution",
    "uniform-6mm": "Coreg, Avg, Std Img and Vox Siz, Uniform 6mm Res",
    "standardized": "Coreg, Avg, Standardized Image and Voxel Size",
    "averaged": "Co-registered, Averaged",
    "dynamic": "Co-registered Dynamic",
    "raw": "ADNI Brain PET: Raw FDG",
}
# Levels whose images have frames, which may be files of their own.
WITH_FRAMES: Final = ("dynamic", "raw")

RAW: Final = re.compile(r"ADNI Brain PET: Raw (.+)", re.IGNORECASE)
PET: Final = "PET"


def level_of(description: str) -> str:
    """Return the processing level of an FDG image, ``""`` for a description of anything else."""
    wanted = description.casefold()
    return next((level for level, text in LEVELS.items() if text.casefold() == wanted), "")


def tracer_of(facts: ImageFacts) -> str:
    """Return the tracer of a PET image, the modality of another one, ``unknown`` where nothing tells."""
    if facts.modality and facts.modality.upper() != PET:
        return facts.modality
    stated = tracer_name(facts.tracer)
    if level_of(facts.description):
        return stated or FDG
    return _named_before(facts.description) or stated or UNKNOWN


def _named_before(description: str) -> str:
    """Return what is said beside a level's description: ``AV45`` of ``AV45 Co-registered, Averaged``."""
    if raw := RAW.fullmatch(description):
        return raw[1]
    texts = (" " + text.casefold() for text in LEVELS.values())
    found = (description[: -len(text)] for text in texts if description.casefold().endswith(text))
    return next(found, "")
