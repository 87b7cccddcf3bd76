"""Ask a registered model about one scan: the probability of AD, per slice, and where it looks."""

import json
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from adpet.artifacts import write_json
from adpet.errors import InputError, TrackingError
from adpet.evidence.aggregation import Aggregation, pooled_probability
from adpet.evidence.brain_figures import cam_montage
from adpet.evidence.drawing import save_figure
from adpet.imaging.align import Alignment
from adpet.imaging.coronal import CoronalGrid, back_project, coronal_slices, resize_maps
from adpet.imaging.intensity import to_uint8
from adpet.imaging.standard import load_standard, standardize
from adpet.imaging.volume import Volume, read_volume, write_volume
from adpet.learning.cam import class_activation_maps
from adpet.params import load_params
from adpet.tracking.registry import Version, load_model, version_of
from adpet.tracking.store import connect

# What `register` leaves with a version, and a model from elsewhere lacks.
METADATA = ("standardize", "slice", "input_size", "lineage")
TAGS = ("adpet.aggregation", "adpet.threshold")
# Beside them where the aggregation is position_weights.
WEIGHTS_TAG = "adpet.position_weights"

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", ".img.gz")


def run(
    scan: Path, *, model: str | None, output: Path | None, align: Literal["affine", "none"] | None
) -> str:
    """Write the answer, the CAM volume (MNI space) and a montage to a folder; return the answer in words.

    Raises
    ------
    InputError
        Where the scan cannot be read, or is not like the template after registration.
    TrackingError
        Where there is no such model, or it was not registered by this pipeline.
    """
    # Read first: a wrong path should not wait for the model to load.
    volume = read_volume(scan)
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    uri = model or f"models:/{tracking.model_name}@champion"
    version = version_of(uri)
    network, metadata = load_model(uri)
    _require_ours(uri, metadata, version)
    standard_volume, alignment = _standardize(volume, scan, metadata["standardize"], align)
    cut = metadata["slice"]
    grid = CoronalGrid.spanning(
        range_mm=tuple(cut["range_mm"]),
        step_mm=cut["step_mm"],
        size=metadata["input_size"],
        field_mm=cut["field_mm"],
    )
    planes = coronal_slices(standard_volume.data, standard_volume.affine, grid)
    slices = to_uint8(planes, window=tuple(cut["window"]))
    maps, logits = class_activation_maps(network, slices)
    answer = {
        "scan": scan.name,
        "model": f"models:/{version.name}/{version.number}",
        "lineage": metadata["lineage"],
        "leaky": version.leaky,
        **_probabilities(
            logits,
            grid,
            aggregation=cast("Aggregation", version.tags["adpet.aggregation"]),
            weights=position_weights(version),
        ),
        "threshold": float(version.tags["adpet.threshold"]),
        "similarity_to_template": round(alignment.similarity, 4),
    }
    folder = output or Path(f"{_stem(scan)}_adpet")
    volumes = {
        "cam": Volume(
            back_project(maps, grid, shape=standard_volume.data.shape, affine=standard_volume.affine),
            standard_volume.affine,
        ),
        "standard": standard_volume,
    }
    for name, one in volumes.items():
        write_volume(folder / f"{_stem(scan)}_{name}.nii.gz", one, space="mni")
    figure = cam_montage(
        slices,
        resize_maps(maps, grid.size),
        y_mm=np.array(grid.y_mm),
        title=f"{scan.name}: probability of AD {answer['probability_of_ad']:.3f}",
    )
    save_figure(figure, folder / f"{_stem(scan)}_cam.png")
    write_json(folder / f"{_stem(scan)}.json", answer)
    return _in_words(answer, folder)


def position_weights(version: Version) -> npt.NDArray[np.float64] | None:
    """Return how much each slice counts, where the version's aggregation was learned."""
    if WEIGHTS_TAG not in version.tags:
        return None
    return np.array(json.loads(version.tags[WEIGHTS_TAG]), dtype=np.float64)


def _require_ours(uri: str, metadata: dict[str, Any], version: Version) -> None:
    """Refuse a model that does not say how its input is made and its output read."""
    weighted = version.tags.get("adpet.aggregation") == "position_weights"
    tags = (*TAGS, WEIGHTS_TAG) if weighted else TAGS
    lacking = [
        *(key for key in METADATA if key not in metadata),
        *(tag for tag in tags if tag not in version.tags),
    ]
    if lacking:
        raise TrackingError(
            f"{uri}: required a model that this pipeline has registered; received one without "
            f"{', '.join(lacking)}; name another version"
        )


def _standardize(
    volume: Volume, scan: Path, settings: dict[str, Any], align: Literal["affine", "none"] | None
) -> tuple[Volume, Alignment]:
    """Bring the scan to where the model's training scans were; refuse what is not like the template there."""
    standard = load_standard(
        grid_mm=settings["grid_mm"],
        reference=settings["reference"],
        template=settings["template"],
        align=align or settings["align"],
        smoothing_mm=settings["smoothing_mm"],
    )
    try:
        found, alignment = standardize(volume, standard)
    except InputError as error:
        raise InputError(f"{scan}: {error}") from error
    if alignment.similarity < settings["min_similarity"]:
        raise InputError(
            f"{scan}: required FDG-PET of a whole brain (correlation with the template "
            f"{settings['min_similarity']} or more after registration); received {alignment.similarity:.2f}; "
            "look at the scan, or try --align none if it is in MNI space already"
        )
    return found, alignment


def _probabilities(
    logits: npt.NDArray[np.float32],
    grid: CoronalGrid,
    *,
    aggregation: Aggregation,
    weights: npt.NDArray[np.float64] | None,
) -> dict[str, Any]:
    """Return the probability of AD of the scan and of each slice."""
    per_slice = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return {
        "probability_of_ad": round(
            pooled_probability(per_slice, aggregation=aggregation, weights=weights), 6
        ),
        "slices": [
            {"y_mm": y_mm, "probability_of_ad": round(float(probability), 6)}
            for y_mm, probability in zip(grid.y_mm, per_slice, strict=True)
        ],
    }


def _in_words(answer: dict[str, Any], folder: Path) -> str:
    lines = [
        f"probability of AD  {answer['probability_of_ad']:.3f}",
        f"threshold          {answer['threshold']:.3f} ({answer['model']})",
        f"similarity to the template after alignment  {answer['similarity_to_template']:.2f}",
        "y in mm   probability of AD of the slice",
        *(f"{row['y_mm']:7.1f}   {row['probability_of_ad']:.3f}" for row in answer["slices"]),
        f"CAM volume, montage and values: {folder}/",
    ]
    if answer["leaky"]:
        lines.append("LEAKY: this model was trained and tested on the same subjects")
    return "\n".join([*lines, "Research use only, not a medical device."])


def _stem(scan: Path) -> str:
    for suffix in SUFFIXES:
        if scan.name.endswith(suffix):
            return scan.name.removesuffix(suffix)
    return scan.name
