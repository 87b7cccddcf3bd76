"""Export the model as ONNX with constants for inference."""

import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from adpet import paths
from adpet.cohort.scans import read_typed
from adpet.cohort.splits import read_split
from adpet.contracts import EvaluationDocument, TrainingRun, read_contract
from adpet.errors import InputError
from adpet.evaluation.aggregation import Pooling, out_of_fold_quantiles
from adpet.evaluation.metrics import calibration_bins
from adpet.imaging.atlas import AD_PATTERN, Atlas, load_atlas, regional_means
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.normalization import Standard, load_standard
from adpet.imaging.normative import Norms, fit_norms
from adpet.imaging.slices import CENTRE_Z_MM
from adpet.imaging.template import tissue_labels
from adpet.inference.exported_model import (
    BASELINES,
    BATCH,
    BRAIN,
    DOCUMENT,
    EXPECTED,
    FILES,
    FORMAT,
    MAPS,
    NETWORK,
    NORMS,
    REFERENCE,
    REGIONS,
    TEMPLATE,
    TISSUE,
    UNITS,
    Network,
    registration_constants,
    sha256,
)
from adpet.inference.quality import limits_of, profile_distances, profile_of
from adpet.learning import limit_threads
from adpet.learning.checkpoint import load_model
from adpet.learning.data import SliceReader
from adpet.learning.model import CLASSES, POOL_NAME
from adpet.learning.onnx_export import write_onnx
from adpet.learning.saliency import class_activation_maps
from adpet.params import Params
from adpet.stages.common import tables
from adpet.stages.common.checks import require_evaluation_of
from adpet.stages.common.fitting import slice_refs
from adpet.stages.slice import coronal_grid
from adpet.storage import atomic_write, read_json, write_json

if TYPE_CHECKING:
    import keras

# (i, j, k): 1 where a voxel is mostly grey matter, 2 where it is mostly white matter.
Tissue = npt.NDArray[np.uint8]

# The SD of two equal subjects is 0, which no z-score can be divided by.
SMALLEST_SD = 0.01
REGION_NORMS = ("cn_mean", "cn_slope", "cn_sd")

# The colours of every scan's z-map. Of those of the CAM, all but a hundredth of the values in slices of
# training scans, at most `MOST_SCALED`, are within the limit.
Z_LIMIT, Z_SHOWN_FROM = 5.0, 2.0
CAM_QUANTILE, CAM_SHOWN_FROM = 0.99, 0.2


def _cohort(split: pd.DataFrame, atlas: Atlas, params: Params) -> dict[str, Any]:
    """Describe the training scans: regional uptake, profile, quality limits."""
    training = split.loc[split["part"] != "test", ["scan", "subject", "diagnosis"]].drop_duplicates("scan")
    scans = training.merge(tables.read_alignment(), on="scan")
    volumes = (read_volume(paths.VOLUMES / f"{scan}.nii").data for scan in scans["scan"])
    uptake = np.stack([regional_means(volume, atlas.labels, list(atlas.names)) for volume in volumes])
    measured = {name: scans[name].to_numpy(np.float64) for name in tables.MEASURE_COLUMNS}
    measured["profile_distance"] = profile_distances(uptake, scans["subject"].to_numpy())
    normal = scans["scan"].isin(tables.healthy_scans(split)).to_numpy()
    norms = fit_norms(uptake[normal], tables.read_ages()[scans.loc[normal, "scan"]].to_numpy(np.float64))
    facts = zip(norms.mean, norms.slope, np.maximum(norms.sd, SMALLEST_SD), strict=True)
    return {
        "regions": [
            {"label": label, "name": name, "ad_pattern": name in AD_PATTERN}
            | {key: round(float(value), 6) for key, value in zip(REGION_NORMS, values, strict=True)}
            for (label, name), values in zip(atlas.names.items(), facts, strict=True)
        ],
        "profile": profile_of(uptake),
        "quality": limits_of(
            measured,
            params.quality.model_dump(),
            **params.normalize.model_dump(include={"min_similarity", "grid_mm"}),
        ),
    }


INTENDED_USE = (
    "Tells AD dementia from cognitively normal people in FDG-PET of the brain; research use only, not for "
    "diagnosis."
)
# How far the two networks' outputs may lie apart: probabilities, and maps relative to the largest value. Both
# sum in float32, in another order: some 1e-5 after fourteen blocks.
APART = 1e-4
# Test scans that the networks are compared on, and training scans that the CAM's scale is of, at the most.
MOST_COMPARED, MOST_SCALED = 50, 1000


def run(params: Params) -> None:
    """Write ``results/export``, whole or not at all."""
    split = read_split(paths.SPLIT)
    standard = load_standard(**params.normalize.model_dump(exclude={"min_similarity"}))
    atlas = load_atlas(params.explain.atlas, params.normalize.grid_mm)
    tissue = tissue_labels(params.normalize.grid_mm)
    healthy = tables.healthy_scans(split)
    cohort = _cohort(split, atlas, params)
    norms = tables.read_norms(healthy, standard.brain, params)
    with atomic_write(paths.EXPORT) as folder:
        folder.mkdir()
        _write_volumes(folder, standard, atlas, tissue)
        _write_norms(folder, norms, standard)
        map_size = _write_network(folder / NETWORK, split[split["part"] == "test"], params)
        document = _document(params, standard) | cohort
        document["network"]["map_size"] = map_size
        document["norms"] = {
            "scans": len(healthy),
            "ages": norms.ages and [round(age, 3) for age in norms.ages],
            "smoothing_mm": params.explain.smooth_mm,
        }
        document["maps"] = _maps(Network.read(folder / NETWORK), split[split["part"] != "test"])
        shutil.copyfile(paths.BASELINE_MODELS, folder / BASELINES)
        document["files"] = {name: sha256(folder / name) for name in (*FILES, BASELINES)}
        write_json(folder / DOCUMENT, document)


def furthest_apart(
    model: "keras.Model", network: Network, slices: Iterable[npt.NDArray[np.uint8]]
) -> dict[str, float]:
    """Return the largest difference between two networks' outputs.

    Of batches of slices, (n, height, width, channels) uint8: `probability`, and `cam` relative to the largest
    value of all maps, or to 1 where that is larger.
    """
    apart, largest = {"probability": 0.0, "cam": 0.0}, 1.0
    for batch in slices:
        maps, log_odds = class_activation_maps(model, batch)
        probability = expit(log_odds)  # the network's softmax of two classes
        cam, found, *_ = network(batch)
        for name, distances in (("probability", probability - found), ("cam", maps - cam)):
            # Not Python's max, which drops NaN.
            apart[name] = float(np.maximum(apart[name], np.abs(distances).max()))
        largest = max(largest, float(np.abs(maps).max()))
    return apart | {"cam": apart["cam"] / largest}


def require_same(path: Path, apart: Mapping[str, float]) -> None:
    """Require that the exported network answers as the trained one."""
    for name, distance in apart.items():
        if not distance <= APART:
            raise InputError(
                f"{path}: required the {name} of the trained network within {APART:g}; received "
                f"{distance:.2g} off on test slices; nothing was written; install the versions in "
                "requirements.lock"
            )


def _write_network(path: Path, tested: pd.DataFrame, params: Params) -> list[int]:
    """Write the network as ONNX; return its map's size."""
    limit_threads(params.compute.threads)
    model = load_model(paths.MODEL)
    write_onnx(model, path)
    tested = tested[tested["scan"].isin(tables.evenly(tested["scan"].unique().tolist(), MOST_COMPARED))]
    reader = SliceReader(slice_refs(tested))
    batches = (
        reader.read(range(first, min(first + BATCH, len(tested)))) for first in range(0, len(tested), BATCH)
    )
    require_same(paths.EXPORT / NETWORK, furthest_apart(model, Network.read(path), batches))
    return [int(side) for side in model.get_layer(POOL_NAME).input.shape[1:3]]


def _write_volumes(folder: Path, standard: Standard, atlas: Atlas, tissue: Tissue) -> None:
    affine = standard.template.affine
    for name, data, dtype in (
        (TEMPLATE, standard.template.data, np.float32),
        (EXPECTED, standard.expected.data, np.float32),
        (BRAIN, standard.brain, np.uint8),
        (REFERENCE, standard.reference, np.uint8),
        (REGIONS, atlas.labels, np.int16),
        (TISSUE, tissue, np.uint8),
    ):
        volume = Volume(np.asarray(data, dtype=np.float32), affine)
        write_volume(folder / name, volume, dtype=dtype, space="mni")


def _write_norms(folder: Path, norms: Norms, standard: Standard) -> None:
    for name, values in zip(NORMS, (norms.mean, norms.slope, norms.sd), strict=True):
        data = np.zeros(standard.brain.shape, dtype=np.float32)
        data[standard.brain] = values
        write_volume(folder / name, Volume(data, standard.template.affine), dtype=np.float32, space="mni")


def _maps(network: Network, training: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Name the maps, and fix the scales of their colours."""
    scans = tables.evenly(training["scan"].unique().tolist(), MOST_SCALED)
    cams = np.concatenate([network(np.load(paths.SLICES / f"{scan}.npy"))[0] for scan in scans])
    limit = float(f"{max(float(np.quantile(np.abs(cams), CAM_QUANTILE)), 1e-6):.2g}")
    scales = {"cam": (limit, CAM_SHOWN_FROM * limit), "z": (Z_LIMIT, Z_SHOWN_FROM)}
    return {
        name: {"title": MAPS[name], "unit": UNITS[name], "limit": limit, "shown_from": float(f"{least:.4g}")}
        for name, (limit, least) in scales.items()
    }


def _document(params: Params, standard: Standard) -> dict[str, Any]:
    """Return ``model.json`` without what is of files and cohort."""
    trained = read_contract(paths.RUN, TrainingRun)
    metrics = read_contract(paths.EVALUATION, EvaluationDocument)
    require_evaluation_of(trained.lineage.id)
    grid, pooling = coronal_grid(params), read_json(paths.POOLING)
    validation = read_typed(paths.VALIDATION, tables.VALIDATION_COLUMNS).assign(session="")
    return {
        "format": FORMAT,
        "name": params.tracking.model_name,
        # Without the parameters, which name folders: a page that is shown to others carries this document.
        "lineage": trained.lineage.model_dump(exclude={"params"}),
        "adpet_version": version("adpet"),
        "intended_use": INTENDED_USE,
        "labels": list(CLASSES),
        "network": {"file": NETWORK, "input_size": params.model.input_size},
        "files": {},
        "standard": {
            "grid_mm": params.normalize.grid_mm,
            "shape": list(standard.template.data.shape),
            "affine": standard.template.affine.tolist(),
            **params.normalize.model_dump(include={"align", "smoothing_mm", "reference", "min_similarity"}),
            **params.normalize.model_dump(
                include={"target_fwhm_mm", "native_fwhm_mm"}, exclude_defaults=True
            ),
            "frames_minutes": list(params.cohort.frames_minutes),
        },
        "registration": registration_constants(),
        "slices": {
            "y_mm": list(grid.y_mm),
            "size": grid.size,
            "field_mm": grid.field_mm,
            "centre_z_mm": CENTRE_Z_MM,
            "neighbours_mm": grid.neighbours_mm,
            "window": list(params.slice.window),
        },
        "aggregation": pooling,
        "out_of_fold": out_of_fold_quantiles(validation, Pooling.of(pooling)),
        "threshold": metrics.threshold,
        "calibration": calibration_bins(tables.read_results(paths.SUBJECTS)),
        "performance": {"auc": metrics.subject.auc.document(), "test_subjects": metrics.counts.subjects},
        "leaky": trained.leaky,
    }
