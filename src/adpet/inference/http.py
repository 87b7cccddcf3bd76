"""Answers for scans sent as base64 text, as over HTTP.

All scans are answered, or none: an answer that is missing among others is easily overlooked. Files are
checked before anything is computed. A scan is on the disk only until it has been read.
"""

import base64
import gzip
import io
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from adpet.errors import InputError
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import CHUNK_BYTES, Volume, VolumeHeader, read_header, read_volume, write_volume
from adpet.imaging.sidecar import facts_of, read_facts, require_fdg, scanner_of, used_seconds
from adpet.inference.exported_model import ExportedModel
from adpet.inference.predictor import answer, require_age

T = TypeVar("T")

# Twice as many as the largest PET matrices in use have; memory for a scan is bounded by it.
MAX_VOXELS: Final = 2**25
# The largest field of view, a PET scanner's bore along half of a body: registration lays a grid of its own
# over the box around a scan, whose memory does not go by the scan's voxels.
MAX_VIEW_MM: Final = (700, 700, 1000)
MM3_OF_A_LITRE: Final = 10**6
GZIP: Final = b"\x1f\x8b"
ZIP: Final = b"PK\3\4"
MB: Final = 10**6

# Computes requests in order of arrival, as many at a time as there are cores.
_POOL: Final = ThreadPoolExecutor(os.cpu_count() or 1)


@dataclass(frozen=True)
class Limits:
    """Largest request; environment variables in `VARIABLES` override it."""

    scans: int = 8
    megabytes: int = 64
    unpacked_megabytes: int = 512

    @classmethod
    def from_environment(cls) -> "Limits":
        """Return the limits set in the environment."""
        return cls(
            **{name: _whole(variable) for name, variable in VARIABLES.items() if variable in os.environ}
        )


VARIABLES: Final = {
    "scans": "ADPET_SERVE_MAX_SCANS",
    "megabytes": "ADPET_SERVE_MAX_MB",
    "unpacked_megabytes": "ADPET_SERVE_MAX_UNPACKED_MB",
}


@dataclass(frozen=True)
class SentScan:
    """NIfTI or ZIP in base64, perhaps with name and sidecar."""

    scan: str
    name: str = ""
    sidecar: Mapping[str, Any] = field(default_factory=dict)


def answer_encoded(
    sent: Any,
    model: ExportedModel,
    limits: Limits,
    *,
    age: float | None = None,
    maps: bool = False,
    force: bool = False,
) -> list[dict[str, Any]]:
    """Answer for scans that were sent.

    These are one or more files in base64, NIfTI, gzipped or not, or a ZIP of DICOM; white space does not
    matter. One of a list may be a mapping of `scan`, `name` and `sidecar` instead, which then count as they
    do for `adpet predict`. The answers are as `adpet predict --json` writes them, in order, named "scan 1"
    and so on. `age` is of the person, if one scan is sent; with `maps`, each answer has both, in MNI space,
    as NIfTI in base64; with `force`, scans are answered that the quality checks refuse (`forced`).
    """
    scans = {f"scan {number}": scan for number, scan in enumerate(_scans(sent, limits), 1)}
    require_age(age)
    if age is not None and len(scans) > 1:
        raise InputError(f"age: required one scan, whose age it is; received {len(scans)}; send each alone")

    def answers() -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory(prefix="adpet-scans-") as folder:
            places = {name: Path(folder, name) for name in scans}
            paths = _each(lambda name: _written(scans[name], places[name], limits), places)
            found = _each(
                lambda name: _answered(
                    paths[name], scans[name], model, name, maps=maps, age=age, force=force
                ),
                places,
            )
            return list(found.values())

    return _POOL.submit(answers).result()


def _each(work: Callable[[str], T], places: Mapping[str, Path]) -> dict[str, T]:
    """Apply `work` to every scan; report all failures together."""
    done, reasons = {}, []
    for name, place in places.items():
        try:
            done[name] = work(name)
        except InputError as error:
            reasons.append(f"{name}: {_without_path(str(error), place)}")
    if reasons:
        raise InputError(" | ".join(reasons))
    return done


def _answered(
    path: Path, sent: SentScan, model: ExportedModel, name: str, *, maps: bool, **asked: Any
) -> dict[str, Any]:
    header = read_header(path, max_voxels=MAX_VOXELS)
    minutes = model.document["standard"]["frames_minutes"]
    facts = read_facts(path)
    require_fdg(facts)
    seconds = used_seconds({**facts.metadata, **sent.sidecar}, header.n_frames, minutes=minutes)
    scan = read_volume(path, frame_seconds=seconds, steady=True, max_voxels=MAX_VOXELS)
    path.unlink()
    asked |= {"scanner": scanner_of({**facts.metadata, **sent.sidecar})}
    found = answer(scan, model, name=name, shape=header.shape, affine=header.affine, **asked)
    if not maps:
        return found.document
    return found.document | {"maps": {key: _encoded(one, path.parent) for key, one in found.volumes.items()}}


def _encoded(volume: Volume, folder: Path) -> str:
    path = folder / "map.nii.gz"
    write_volume(path, volume, space="mni")
    return base64.b64encode(path.read_bytes()).decode()


def _scans(sent: Any, limits: Limits) -> list[SentScan]:
    texts = [sent] if isinstance(sent, str) else sent
    if not isinstance(texts, list) or not texts or not all(map(_is_scan, texts)):
        raise InputError(
            "required a NIfTI file or a ZIP of DICOM in base64, or a list of them; received "
            f"{'an empty list' if isinstance(sent, list) and not sent else 'something else'}; send "
            '{"inputs": ["..."]}'
        )
    if len(texts) > limits.scans:
        raise InputError(
            f"required {limits.scans} scans at most; received {len(texts)}; send fewer at once, or set "
            f"{VARIABLES['scans']} where the model is served"
        )
    return [SentScan(text) if isinstance(text, str) else SentScan(**text) for text in texts]


def _is_scan(sent: Any) -> bool:
    kinds = {"scan": str, "name": str, "sidecar": dict}
    return isinstance(sent, str) or (
        isinstance(sent, dict)
        and "scan" in sent
        and all(isinstance(value, kinds.get(key, ())) for key, value in sent.items())
    )


def _written(sent: SentScan, place: Path, limits: Limits) -> Path:
    require_fdg(facts_of([sent.name], [("its sidecar", sent.sidecar)]))
    content = _decoded(sent.scan, limits)
    packed = content.startswith(GZIP)
    if packed:
        _require_unpacked(content, limits)
    place.mkdir()
    path = place / ("scan.nii.gz" if packed else "scan.zip" if content.startswith(ZIP) else "scan.nii")
    path.write_bytes(content)
    with as_nifti(path, max_bytes=limits.unpacked_megabytes * MB) as image:
        if image != path:
            path.unlink()
            for file in image.parent.glob("scan.*"):
                shutil.move(file, place)
            path = place / image.name
    _require_field_of_view(read_header(path, max_voxels=MAX_VOXELS))
    return path


def _decoded(text: str, limits: Limits) -> bytes:
    characters = "".join(text.split())
    if len(characters) * 3 / 4 > limits.megabytes * MB:
        raise InputError(
            f"required {limits.megabytes} MB at most; received more; gzip the scan, or set "
            f"{VARIABLES['megabytes']} where the model is served"
        )
    try:
        return base64.b64decode(characters, validate=True)
    except ValueError as error:
        raise InputError(
            "required a NIfTI file or a ZIP of DICOM in base64; received other text; encode the file with: "
            "base64 -w 0 SCAN.nii.gz"
        ) from error


def _require_unpacked(content: bytes, limits: Limits) -> None:
    length = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            while block := stream.read(CHUNK_BYTES):
                length += len(block)
                if length > limits.unpacked_megabytes * MB:
                    raise InputError(
                        f"required {limits.unpacked_megabytes} MB at most when unpacked; received more; send "
                        f"the mean of the frames, or set {VARIABLES['unpacked_megabytes']} where the model "
                        "is served"
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return  # reported when the header is read


def _require_field_of_view(header: VolumeHeader) -> None:
    sides_mm = (np.abs(header.affine[:3, :3]) @ header.shape).tolist()
    if math.prod(sides_mm) > math.prod(MAX_VIEW_MM):
        raise InputError(
            f"required a field of view of {_volume(MAX_VIEW_MM)} at most; received {_volume(sides_mm)}; "
            "cut the scan to the head"
        )


def _volume(sides_mm: Sequence[float]) -> str:
    sides = " x ".join(f"{side:.0f}" for side in sides_mm)
    return f"{math.prod(sides_mm) / MM3_OF_A_LITRE:.0f} litres ({sides} mm)"


def _without_path(reason: str, place: Path) -> str:
    """Return a reason without paths of temporary files."""
    for path in place.parent.glob(f"{place.name}/*"):
        reason = reason.removeprefix(f"{path}: ").replace(f"{path}", "the scan")
    return reason.replace(f"{place}/", "")


def _whole(variable: str) -> int:
    text = os.environ[variable].strip()
    if not text.isdecimal() or int(text) < 1:
        raise InputError(
            f"{variable}: required a whole number above 0; received {text!r}; correct or unset it"
        )
    return int(text)
