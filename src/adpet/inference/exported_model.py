"""Open an exported model: its document, its images, its ONNX network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError
from adpet.imaging import registration, slices
from adpet.imaging.nifti import read_volume
from adpet.imaging.normalization import Standard
from adpet.imaging.slices import CoronalGrid

INPUT, CAM, PROBABILITY = "slices", "cam", "probability"
THREADS: Final = 2
# Slices at a time, so that memory does not grow with their number.
BATCH: Final = 64


@dataclass(frozen=True, eq=False)
class Network:
    """A session that answers for slices; the same slices get the same answer, also in several threads."""

    session: Any

    @classmethod
    def read(cls, path: Path) -> "Network":
        """Read a network.

        Raises
        ------
        InputError
            If the file is no ONNX network with our input and outputs.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        # Threads that spin between two operators take time from whoever else computes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise _unusable_network(path, " ".join(str(error).split())[:200]) from error
        names = [one.name for one in session.get_inputs()], sorted(one.name for one in session.get_outputs())
        if names != ([INPUT], [CAM, PROBABILITY]):
            raise _unusable_network(path, f"{names[0]} and {names[1]}")
        return cls(session)

    def __call__(
        self, slices: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Answer for slices.

        Parameters
        ----------
        slices : (n, height, width) uint8 ndarray

        Returns
        -------
        cam : (n, h, w) float32 ndarray
            AD minus CN, in units of the logit.
        probability : (n,) float32 ndarray
            Of AD.
        """
        parts = [
            self.session.run([CAM, PROBABILITY], {INPUT: slices[start : start + BATCH, ..., np.newaxis]})
            for start in range(0, max(len(slices), 1), BATCH)
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _unusable_network(path: Path, received: str) -> InputError:
    return InputError(
        f"{path}: required an ONNX network with the input {INPUT} and the outputs {CAM} and {PROBABILITY}; "
        f"received {received}; export it anew with: dvc repro --force export"
    )


# Of the folder; a reader that knows another one refuses it.
FORMAT: Final = 1

DOCUMENT: Final = "model.json"
NETWORK: Final = "network.onnx"
TEMPLATE: Final = "template.nii.gz"
BRAIN: Final = "brain.nii.gz"
REFERENCE: Final = "reference.nii.gz"
REGIONS: Final = "regions.nii.gz"
TISSUE: Final = "tissue.nii.gz"
FILES: Final = (NETWORK, TEMPLATE, BRAIN, REFERENCE, REGIONS, TISSUE)

SECTIONS: Final = (
    "name",
    "lineage",
    "adpet_version",
    "intended_use",
    "labels",
    "network",
    "files",
    "standard",
    "registration",
    "slices",
    "aggregation",
    "threshold",
    "calibration",
    "performance",
    "leaky",
    "regions",
    "profile",
    "quality",
)
# Of the registration's modules: those that follow from others, or are no constants of it.
_NOT_EXPORTED: Final = ("IDENTITY", "FWHM_PER_SIGMA", "LEVELS")


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """What it takes to answer for a scan.

    Attributes
    ----------
    name : str
        By which answers name it: the folder's name, or ``models:/NAME/VERSION``.
    document : dict
        `model.json`.
    standard : Standard
        What scans are brought to.
    regions : (i, j, k) int16 ndarray
    tissue : (i, j, k) uint8 ndarray
        1 where a voxel is mostly grey matter, 2 where it is mostly white matter.
    grid : CoronalGrid
        The planes that the network is given.
    network : Network
    leaky : bool
        Whether the model's split had subjects on two sides.
    """

    name: str
    document: dict[str, Any]
    standard: Standard
    regions: npt.NDArray[np.int16]
    tissue: npt.NDArray[np.uint8]
    grid: CoronalGrid
    network: Network
    leaky: bool

    @cached_property
    def brain_points_mm(self) -> npt.NDArray[np.float64]:
        """The world coordinates in mm, (n, 3), of the brain's voxels."""
        return registration.brain_points(self.standard.brain, self.standard.template.affine)


def registration_constants() -> dict[str, Any]:
    """Return every constant of the registration, by its name in lower case."""
    return {
        name.lower(): _plain(value)
        for name, value in vars(registration).items()
        if name.isupper() and len(name) > 1 and name not in _NOT_EXPORTED
    }


def open_model(folder: Path, *, name: str | None = None, leaky: bool = False) -> ExportedModel:
    """Open an exported model after a look that it is whole.

    Parameters
    ----------
    folder : Path
    name : str, optional
        By which answers name it (default: the folder's name).
    leaky : bool
        Whether the registry says so of it, whatever the folder says.

    Raises
    ------
    InputError
        If the folder is no exported model, is of another format, has a file that is not as it was written, or
        was made by a registration with other constants than this package's.
    """
    document = _read_document(folder)
    for file, digest in document["files"].items():
        _require_file(folder, file, digest)
    lacking = [file for file in FILES if file not in document["files"]]
    if lacking:
        raise _unusable(folder, f"{DOCUMENT} that lists {', '.join(FILES)}", f"none of {', '.join(lacking)}")
    _require_same_constants(folder, document)
    settings, slices = document["standard"], document["slices"]
    standard = Standard(
        template=read_volume(folder / TEMPLATE),
        brain=_labels(folder / BRAIN) > 0,
        reference=_labels(folder / REFERENCE) > 0,
        align=settings["align"],
        smoothing_mm=settings["smoothing_mm"],
    )
    return ExportedModel(
        name=name or folder.resolve().name,
        document=document,
        standard=standard,
        regions=_labels(folder / REGIONS),
        tissue=_labels(folder / TISSUE).astype(np.uint8),
        grid=CoronalGrid(slices["size"], slices["field_mm"], tuple(slices["y_mm"])),
        network=Network.read(folder / NETWORK),
        leaky=bool(document["leaky"]) or leaky,
    )


def sha256(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / DOCUMENT
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
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
            f"{path}: required format {FORMAT}; received {found}; export the model anew with this version "
            "of adpet, or install the version that has written it"
        )
    lacking = [section for section in SECTIONS if section not in document]
    if lacking:
        raise _unusable(folder, f"all sections in {DOCUMENT}", f"one without {', '.join(lacking)}")
    return dict(document)


def _require_file(folder: Path, file: str, digest: str) -> None:
    path = folder / file
    if Path(file).name != file or not path.is_file():
        raise _unusable(folder, f"the file {file}", "none")
    found = sha256(path)
    if found != digest:
        raise _unusable(folder, f"{file} as it was written ({digest[:12]})", f"another ({found[:12]})")


def _require_same_constants(folder: Path, document: Mapping[str, Any]) -> None:
    """Refuse a model of another registration, with which its answers would not be the tested ones."""
    here = registration_constants() | {"centre_z_mm": slices.CENTRE_Z_MM}
    there = document["registration"] | {"centre_z_mm": document["slices"]["centre_z_mm"]}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise InputError(
                f"{folder / DOCUMENT}: required the registration of this version of adpet ({name} "
                f"{here.get(name)}); received another ({there.get(name)}), of adpet "
                f"{document['adpet_version']}; export the model anew, or install that version"
            )


def _labels(path: Path) -> npt.NDArray[np.int16]:
    return read_volume(path).data.astype(np.int16)


def _plain(value: Any) -> Any:
    """Return a constant as JSON has it."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _unusable(folder: Path, required: str, received: str) -> InputError:
    return InputError(
        f"{folder}: required an exported model with {required}; received {received}; "
        "export it anew with: dvc repro --force export"
    )
