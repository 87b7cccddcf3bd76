"""Answer for a scan: probability, CAM, regions, out-of-distribution checks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from adpet.errors import AdpetError, InputError
from adpet.evaluation.aggregation import Pooling, interpret, pooled_probability, slice_contributions
from adpet.imaging.atlas import regional_means
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import Affine, Volume, read_header, read_volume
from adpet.imaging.normalization import POWERS, Standard, normalize, scaled, to_uint8
from adpet.imaging.normative import smoothed_in_brain
from adpet.imaging.registration import fitting_turn, resample
from adpet.imaging.slices import back_project, network_slices, own_planes
from adpet.inference.exported_model import ExportedModel, Scores
from adpet.inference.quality import judged, measures, profile_distance, refused_by, view_measures
from adpet.inference.regions import region_table, unusual

RESEARCH_ONLY = "Research use only, not for diagnosis."
UNCALIBRATED = "Not calibrated: a model without out-of-fold predictions gives no likelihood ratio or answer."

YOUNGEST, OLDEST = 18, 120
# By how much a turned scan must be more similar to the template, for its header to be doubted.
CLEARLY_BETTER = 0.1
AXES = (("x", "left to right"), ("y", "back to front"), ("z", "bottom to top"))
ENDS = tuple(words.split(" to ") for _, words in AXES)


class RefusedError(InputError):
    """A scan out of distribution: what is known of it.

    `document` has the keys of an answer that do not need the network, among them all `checks`; `suvr` is the
    scan in template space.
    """

    def __init__(self, message: str, document: dict[str, Any], suvr: Volume) -> None:
        super().__init__(message)
        self.document, self.suvr = document, suvr


@dataclass(frozen=True, eq=False)
class Answer:
    """Answer for a scan.

    `document` is as `adpet predict --json` writes it; `volumes` and `scan_volumes` are the maps by name in
    template space and on the scan's own grid: `cam`, AD minus CN in units of the logit, and `z`, SUVR in SD
    from healthy people, 0 outside the brain; `suvr` is the scan in template space. `slices`, (n, size, size),
    and `maps`, (n, h, w), are the network's input and output.
    """

    document: dict[str, Any]
    suvr: Volume
    volumes: dict[str, Volume]
    scan_volumes: dict[str, Volume]
    slices: npt.NDArray[np.uint8]
    maps: npt.NDArray[np.float32]


def answer(
    scan: Volume,
    model: ExportedModel,
    *,
    name: str,
    shape: Sequence[int] | None = None,
    affine: Affine | None = None,
    align: Literal["affine", "none"] | None = None,
    prevalence: float | None = None,
    coverage: float | None = None,
    age: float | None = None,
    scanner: str = "",
    fwhm_mm: float | None = None,
    force: bool = False,
) -> Answer:
    """Answer for one scan.

    A scan out of distribution raises `RefusedError`, whose text names no file; with `force`, the answer has
    `forced` true instead. `shape` and `affine` are of the scan's file, if its voxels are not in RAS+ order;
    `align` is ``none`` for a scan in MNI space (by default as in training). `prevalence` and `coverage` are
    as in `interpret`; `age` is in years; `scanner` and `fwhm_mm` are as in `Standard.of_scanner`.
    """
    require_age(age)
    standard = model.standard.of_scanner(scanner, fwhm_mm)
    found, alignment = normalize(scan, replace(standard, align=align or standard.align))
    grid = tuple(shape or scan.data.shape), scan.affine if affine is None else affine
    checks = _checks(found, model, alignment.matrix, alignment.similarity, grid)
    about: dict[str, Any] = {
        "scan": name,
        "model": model.name,
        "lineage": model.document["lineage"]["id"],
        "leaky": model.leaky,
        "similarity_to_template": round(alignment.similarity, 4),
        "matrix": alignment.matrix.tolist(),
        "checks": checks,
        "forced": force and bool(refused_by(checks)),
    }
    turn = (
        ""
        if "similarity" not in refused_by(checks, "name")
        else _turn(scan, model, standard, alignment.similarity)
    )
    about |= {"turn": turn} if turn else {}
    if refused_by(checks) and not force:
        raise RefusedError(refusal(about, "look at the scan"), about, found)
    planes = network_slices(found.data, found.affine, model.grid)
    low, high = model.document["slices"]["window"]
    slices = to_uint8(planes, window=(low, high))
    scores = model.network(slices)
    i, j, k = found.data.shape
    volumes = {
        "cam": Volume(
            back_project(scores.cam, model.grid, shape=(i, j, k), affine=found.affine), found.affine
        ),
        "z": Volume(_z_map(found.data, model, age), found.affine),
    }
    regions = region_table(
        found.data,
        volumes["cam"].data,
        labels=model.regions,
        brain=model.standard.brain,
        regions=model.document["regions"],
        years=model.norms.years(age),
    )
    document = {
        **about,
        **_probabilities(scores, model, prevalence=prevalence, coverage=coverage),
        "age": age,
        "compared_at_age": model.norms.compared_at(age),
        "unusual": unusual(regions, model.document["maps"]["z"]["shown_from"]),
        "regions": regions,
    }
    inverse = np.asarray(np.linalg.inv(alignment.matrix), dtype=np.float64)
    back = {
        map_name: Volume(resample(volume, shape=grid[0], affine=grid[1], matrix=inverse), grid[1])
        for map_name, volume in volumes.items()
    }
    return Answer(document, found, volumes, back, own_planes(slices), scores.cam)


def answer_row(row: Mapping[str, Any], model: ExportedModel) -> Answer | str:
    """Answer for a scan of a table, or refuse.

    The reason holds no path, which may be a subject's id.
    """
    path, seconds = Path(row["path"]), [float(value) for value in row["frame_seconds"].split()]
    age = row["age"] if YOUNGEST <= row["age"] <= OLDEST else None
    named = [str(path.resolve()), row["path"], path.name]
    try:
        with as_nifti(path) as image:
            named.insert(0, str(image))
            header = read_header(image)
            volume = read_volume(image, frame_seconds=seconds or None, steady=True)
        shape, affine = header.shape, header.affine
        scanner = row["scanner"]
        return answer(volume, model, name=row["scan"], age=age, scanner=scanner, shape=shape, affine=affine)
    except RefusedError as error:
        return "; ".join(refused_by(error.document["checks"]))
    except (AdpetError, OSError) as error:
        reason = str(error)
        for name in named:
            reason = reason.replace(name, "the scan")
        return reason


def refusal(document: Mapping[str, Any], advice: str) -> str:
    """Say that a scan is refused, the remedy, and why."""
    turn = [document["turn"]] if "turn" in document else []
    reasons = "; ".join(refused_by(document["checks"]) + turn)
    return f"refused as unlike FDG-PET of a whole brain; {advice}: {reasons}"


def spread(document: Mapping[str, Any]) -> str:
    """Return the range of the folds' networks in words."""
    found = document["probability_by_fold"]
    if not found:
        return ""
    return (
        f"{min(found):.3f} to {max(found):.3f} by {len(found)} networks, each trained without a different "
        f"{1 / len(found):.0%} of the training subjects"
    )


def _turn(scan: Volume, model: ExportedModel, standard: Standard, similarity: float) -> str:
    """Say which quarter turns make the scan fit, if any."""
    standard = replace(standard, align="affine")
    limits = (row["refuse_below"] for row in model.document["quality"] if row["name"] == "similarity")
    try:
        turn, turned = fitting_turn(scaled(scan), standard.template, standard.brain)
        _, alignment = normalize(turned, standard)
    except InputError:
        return ""
    if turn.magnitude() == 0 or alignment.similarity < max(similarity + CLEARLY_BETTER, *limits):
        return ""
    degrees = np.degrees(turn.as_rotvec()).round()
    if np.count_nonzero(degrees) == 1:
        (axis,) = np.flatnonzero(degrees)
        how = f"turned by {degrees[axis]:.0f} degrees about the {AXES[axis][0]} axis ({AXES[axis][1]})"
    else:
        towards = turn.as_matrix().round().T
        found = [ENDS[axis][int(row[axis] > 0)] for row in towards for axis in np.flatnonzero(row)]
        how = "its right, front and top are taken as {}, {} and {}".format(*found)
    return f"it fits when {how}, similarity {alignment.similarity:.2f}: the header's orientation seems wrong"


def require_age(age: float | None) -> None:
    """Refuse an age that no adult has."""
    if age is not None and not OLDEST >= age >= YOUNGEST:
        raise InputError(
            f"age: required {YOUNGEST} to {OLDEST} years; received {age:g}; correct it or leave it out"
        )


def _z_map(suvr: npt.NDArray[np.float32], model: ExportedModel, age: float | None) -> npt.NDArray[np.float32]:
    brain, affine = model.standard.brain, model.standard.template.affine
    width = model.document["norms"]["smoothing_mm"]
    held = smoothed_in_brain(suvr, brain, fwhm_mm=width, grid_mm=float(affine[0, 0]))
    held[brain] = model.norms.z(np.clip(held[brain], -(2.0**POWERS), 2.0**POWERS), age)
    return np.nan_to_num(held)


def meaning(probability: float, document: Mapping[str, Any]) -> str:
    """Return in one sentence the calibration near this probability."""
    bins = document["calibration"]["bins"]
    here = next((row for row in bins if probability < row["high"]), bins[-1])
    subjects = here["subjects"]
    with_ad = round(here["ad_share"] * subjects)
    low, high = here["ad_share_low"], here["ad_share_high"]
    everyone = document["performance"]["test_subjects"]
    given = f"{here['low']:.2f} to {here['high']:.2f}"
    return (
        f"Of the {subjects} test subjects who were given {given}, {with_ad} had AD, {here['ad_share']:.0%} "
        f"(95 % interval {low:.0%} to {high:.0%}); of all {everyone} test subjects "
        f"{document['calibration']['prevalence']:.0%} had."
    )


def _probabilities(scores: Scores, model: ExportedModel, **asked: float | None) -> dict[str, Any]:
    pooling, probabilities = Pooling.of(model.document["aggregation"]), scores.probability.astype(np.float64)
    pooled = pooled_probability(probabilities, pooling)
    facts = zip(model.grid.y_mm, probabilities, slice_contributions(probabilities, pooling), strict=True)
    return {
        "probability_of_ad": round(pooled, 6),
        "probability_by_fold": [
            round(pooled_probability(fold, pooling), 6) for fold in scores.folds.astype(np.float64).T
        ],
        "threshold": model.document["threshold"],
        "meaning": meaning(pooled, model.document),
        **interpret(pooled, model.document["out_of_fold"], **asked),
        "slices": [
            {
                "y_mm": y_mm,
                "probability_of_ad": round(float(value), 6),
                "contribution": round(float(added), 6),
            }
            for y_mm, value, added in facts
        ],
    }


def _checks(
    found: Volume, model: ExportedModel, matrix: Affine, similarity: float, grid: tuple[Sequence[int], Affine]
) -> list[dict[str, Any]]:
    wanted = [int(region["label"]) for region in model.document["regions"]]
    values = measures(found.data, brain=model.standard.brain, tissue=model.tissue)
    uptake = regional_means(found.data, model.regions, wanted)
    values |= {
        "similarity": similarity,
        "profile_distance": profile_distance(uptake, model.document["profile"]),
    }
    values |= view_measures(grid[0], grid[1], matrix, model.brain_points_mm)
    return judged(values, model.document["quality"])
