"""Tell by name and folder which image a file of an ADNI download is, and which files are copies of others."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from adpet.cohort.adni_facts import Listing, files_under
from adpet.cohort.adni_levels import tracer_of
from adpet.cohort.candidates import SKIPPED, Findings
from adpet.errors import InputError
from adpet.imaging.volume import NIFTI, scan_files

IMAGE_IN_NAME: Final = re.compile(r"_S\d+_I(\d+)\.nii(\.gz)?$", re.IGNORECASE)
IMAGE_IN_FOLDER: Final = re.compile(r"I(\d+)")


def files_by_image(root: Path, listing: Listing, findings: Findings) -> dict[str, list[Path]]:
    """Return the files of every image that the listing knows, of copies the first; report the others."""
    files: dict[str, list[Path]] = defaultdict(list)
    for file in files_under(root, NIFTI):
        try:
            number = _known_number(file, listing)
        except InputError as error:
            findings.reject(file, str(error))
            continue
        if number in listing.images:
            findings.tracers[tracer_of(listing.images[number])] += 1
        if copied := _copied(file, files[number]):
            where = "beside it" if file.parent == copied.parent else "in another folder"
            findings.reject(file, f"a copy of {copied.name} {where}", SKIPPED)
        else:
            files[number].append(file)
    return files


def shared_folder(files: Sequence[Path]) -> Path | None:
    """Return the folder of several files of one image if it holds no other image, else None."""
    if len(files) > 1 and set(scan_files(files[0].parent)) == set(files):
        return files[0].parent
    return None


def _known_number(file: Path, listing: Listing) -> str:
    """Return the image's number that name and folder give; raise InputError where none or two are there."""
    matches = (IMAGE_IN_NAME.search(file.name), IMAGE_IN_FOLDER.fullmatch(file.parent.name))
    numbers = {str(int(match[1])) for match in matches if match}
    if not numbers:
        raise InputError("neither name (_S<series>_I<image>.nii) nor folder (I<image>) tells its image")
    if len(numbers) > 1:
        raise InputError("its name and its folder give different images; rename what is wrong")
    number = numbers.pop()
    if number not in listing.images and number not in listing.problems:
        raise InputError(f"image I{number} is not described in {listing.source}; add it, or remove the file")
    return number


def _copied(file: Path, earlier: Sequence[Path]) -> Path | None:
    """Return the file of the same image that this one repeats: in another folder, or packed beside it."""
    for other in earlier:
        if other.parent != file.parent or _unpacked(other) == _unpacked(file):
            return other
    return None


def _unpacked(file: Path) -> str:
    return file.name.lower().removesuffix(".gz")
