"""Exported model: its document, images and ONNX network.

`model.json` has the digest of every other file and every constant that answers depend on.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from adpet.contracts import ModelDocument, first_problem
from adpet.errors import InputError
from adpet.imaging import registration, slices
from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import Standard
from adpet.imaging.normative import Norms
from adpet.imaging.slices import CoronalGrid
from adpet.storage import fingerprint

INPUT, CAM, PROBABILITY, FOLDS = "slices", "cam", "probability", "folds"
THREADS: Final = 2
# Slices at a time, so that memory does not grow with their number.
BATCH: Final = 64
EXPORT_AGAIN: Final = "export it again with: dvc repro --force export"

# Format of the folder; a reader of another format refuses it.
FORMAT: Final = 3

DOCUMENT: Final = "model.json"
NETWORK: Final = "network.onnx"
TEMPLATE: Final = "template.nii.gz"
EXPECTED: Final = "expected.nii.gz"
BRAIN: Final = "brain.nii.gz"
REFERENCE: Final = "reference.nii.gz"
REGIONS: Final = "regions.nii.gz"
TISSUE: Final = "tissue.nii.gz"
# Of healthy scans, by voxel: mean at their mean age, change a year, standard deviation.
MEAN, SLOPE, SD = "normal_mean.nii.gz", "normal_slope.nii.gz", "normal_sd.nii.gz"
NORMS: Final = (MEAN, SLOPE, SD)
FILES: Final = (NETWORK, TEMPLATE, EXPECTED, BRAIN, REFERENCE, REGIONS, TISSUE, *NORMS)
# Baselines of images, fitted on the same training subjects. Answers do not need it.
BASELINES: Final = "baselines.json"
# What each map shows of a scan, and the unit of its values.
MAPS: Final = {"cam": "Where the network looked", "z": "Where this brain is unusual"}
UNITS: Final = {"cam": "logit", "z": "SD"}

# Constants that follow from others.
_NOT_EXPORTED: Final = ("IDENTITY", "FWHM_PER_SIGMA", "LEVELS")


class Scores(NamedTuple):
    """What networks say of slices.

    `cam`, (n, h, w), is AD minus CN in units of the logit; `probability`, (n,), is of AD; `folds`,
    (n, folds), is that of networks which were trained without a fold each, if any.
    """

    cam: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    folds: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Network:
    """ONNX network; equal slices get equal answers, in any thread."""

    session: Any

    @classmethod
    def read(cls, path: Path) -> "Network":
        """Read a network."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        # Threads that spin between two operators take time from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise _unusable_network(path, " ".join(str(error).split())[:200]) from error
        inputs = [value.name for value in session.get_inputs()]
        outputs = sorted(value.name for value in session.get_outputs())
        if (inputs, [name for name in outputs if name != FOLDS]) != ([INPUT], [CAM, PROBABILITY]):
            raise _unusable_network(path, f"{inputs} and {outputs}")
        return cls(session)

    def __call__(self, slices: npt.NDArray[np.uint8]) -> Scores:
        """Score slices, (n, size, size, channels)."""
        names = [value.name for value in self.session.get_outputs()]
        parts = [
            dict(zip(names, self.session.run(names, {INPUT: batch}), strict=True))
            for batch in (slices[start : start + BATCH] for start in range(0, len(slices), BATCH))
        ]
        found = {name: np.concatenate([part[name] for part in parts]) for name in names}
        return Scores(
            found[CAM], found[PROBABILITY], found.get(FOLDS, np.zeros((len(slices), 0), np.float32))
        )


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """Everything needed to answer for a scan.

    `name`, as in answers, is the folder's or ``models:/NAME/VERSION``; `document` is `model.json`; `tissue`
    is 1 where a voxel is mostly grey matter, 2 where it is mostly white matter. Pickled, it is its folder and
    digest: another process opens it once.
    """

    folder: Path
    name: str
    document: dict[str, Any]
    standard: Standard
    regions: npt.NDArray[np.int16]
    tissue: npt.NDArray[np.uint8]
    norms: Norms
    grid: CoronalGrid
    network: Network
    leaky: bool

    @cached_property
    def brain_points_mm(self) -> npt.NDArray[np.float64]:
        """World coordinates of the brain's voxels, (n, 3) in mm."""
        return registration.brain_points(self.standard.brain, self.standard.template.affine)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.name, self.leaky, fingerprint(self.document))


@lru_cache(maxsize=1)
def _reopened(folder: Path, name: str, leaky: bool, _digest: str) -> ExportedModel:  # noqa: FBT001
    return open_model(folder, name=name, leaky=leaky)


def open_model(folder: Path, *, name: str | None = None, leaky: bool = False) -> ExportedModel:
    """Open an exported model, and verify its files.

    `name` is that in answers (default: the folder's); `leaky` marks it as leaky, whatever the folder says.
    """
    document = _read_document(folder)
    for file in FILES:
        if file not in document["files"]:
            raise _unusable(folder, f"{DOCUMENT} that lists {file}", "another")
    for file, digest in document["files"].items():
        _require_file(folder, file, digest)
    _require_same_constants(folder, document)
    settings, slices, ages = document["standard"], document["slices"], document["norms"]["ages"]
    standard = Standard(
        template=read_volume(folder / TEMPLATE),
        expected=read_volume(folder / EXPECTED),
        brain=_labels(folder / BRAIN) > 0,
        reference=_labels(folder / REFERENCE) > 0,
        align=settings["align"],
        smoothing_mm=settings["smoothing_mm"],
        target_fwhm_mm=settings.get("target_fwhm_mm"),
        native_fwhm_mm=settings.get("native_fwhm_mm", {}),
    )
    mean, sd = (read_volume(folder / file).data[standard.brain] for file in (MEAN, SD))
    # Where age is left out there is no slope: an image of zeros, which is no scan.
    slope = read_volume(folder / SLOPE).data[standard.brain] if ages else np.zeros_like(mean)
    return ExportedModel(
        folder=folder.resolve(),
        name=name or folder.resolve().name,
        document=document,
        standard=standard,
        regions=_labels(folder / REGIONS),
        tissue=_labels(folder / TISSUE).astype(np.uint8),
        norms=Norms(mean, slope, sd, ages and (ages[0], ages[1], ages[2])),
        grid=CoronalGrid(slices["size"], slices["field_mm"], tuple(slices["y_mm"]), slices["neighbours_mm"]),
        network=Network.read(folder / NETWORK),
        leaky=bool(document["leaky"]) or leaky,
    )


def registration_constants() -> dict[str, Any]:
    """Return the registration's constants by lower-case name, as JSON."""
    constants = {
        name.lower(): value
        for name, value in vars(registration).items()
        if name.isupper() and len(name) > 1 and name not in _NOT_EXPORTED
    }
    return dict(json.loads(json.dumps(constants, default=asdict)))


def sha256(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / DOCUMENT
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: required an exported model, a folder with {DOCUMENT}; received one without; "
            "name results/export or a registered version, or run: dvc repro export"
        ) from error
    except (OSError, ValueError) as error:
        raise _unusable(folder, f"{DOCUMENT} in JSON", "a file that is not") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{path}: required format {FORMAT}; received {found}; export the model again with this "
            "version of adpet, or install the version that wrote it"
        )
    try:
        ModelDocument.model_validate_json(text)
    except ValidationError as error:
        raise _unusable(folder, f"{DOCUMENT} of this version", first_problem(error)) from error
    return dict(document)


def _require_file(folder: Path, file: str, digest: str) -> None:
    path = folder / file
    if Path(file).name != file or not path.is_file():
        raise _unusable(folder, f"the file {file}", "none")
    found = sha256(path)
    if found != digest:
        raise _unusable(folder, f"{file} as it was written ({digest[:12]})", f"another ({found[:12]})")


def _require_same_constants(folder: Path, document: Mapping[str, Any]) -> None:
    here = registration_constants() | {"centre_z_mm": slices.CENTRE_Z_MM}
    there = document["registration"] | {"centre_z_mm": document["slices"]["centre_z_mm"]}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise InputError(
                f"{folder / DOCUMENT}: required the registration of this version of adpet ({name} "
                f"{here.get(name)}); received another ({there.get(name)}), of adpet "
                f"{document['adpet_version']}; export the model again, or install that version"
            )


def _labels(path: Path) -> npt.NDArray[np.int16]:
    return read_volume(path).data.astype(np.int16)


def _unusable(folder: Path, required: str, received: str) -> InputError:
    return InputError(
        f"{folder}: required an exported model with {required}; received {received}; {EXPORT_AGAIN}"
    )


def _unusable_network(path: Path, received: str) -> InputError:
    return InputError(
        f"{path}: required an ONNX network with the input {INPUT} and the outputs {CAM} and {PROBABILITY}; "
        f"received {received}; {EXPORT_AGAIN}"
    )
