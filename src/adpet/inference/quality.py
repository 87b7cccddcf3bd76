"""Out-of-distribution checks of scans: measures, limits, verdicts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine, voxel_sizes
from scipy import ndimage
from scipy.stats import median_abs_deviation

from adpet.errors import told_apart
from adpet.imaging.template import GREY_LABEL, WHITE_LABEL

# Distance from the range of the training scans, in spreads, that the limits leave: room for what some hundred
# scans have not shown. Where scans of other people and scanners lie, `quality` in params.yaml says.
FLAGGED, REFUSED = 1.0, 2.0
LIMITS: Final = ("refuse_below", "flag_below", "flag_above", "refuse_above")
# Standard deviations from a cohort's median at which `normalize` flags a scan: severe simulated disease stays
# below 5. Spreads are taken for this share of the median at least.
UNLIKE: Final = 6.0
LEAST_SPREAD: Final = 0.02
# Grid that the limits of people are for.
USUAL_GRID_MM: Final = 3.0
# Width of the middle 95 % of a normal distribution, in standard deviations.
MIDDLE_SDS: Final = 2 * 1.96
# Shrinkage of the regions' covariance: with some hundred scans and thirty regions, the smallest variances
# are underestimated, and the distance of every new subject is overestimated.
SHRINKAGE: Final = 0.2
FOLDS: Final = 10

Vector = npt.NDArray[np.float64]
Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Verdict = Literal["ok", "flagged", "refused"]


@dataclass(frozen=True)
class Check:
    """Measure, and what values outside its limits may mean."""

    text: str
    low: str = ""
    high: str = ""


CHECKS: Final[dict[str, Check]] = {
    "similarity": Check(
        "correlation with a mean FDG image, in what the scan shows of the brain",
        low="not FDG-PET of a brain, or registration failed",
        high="more alike than one person's scan: a mean image or a template",
    ),
    "brain_in_view": Check(
        "share of the brain that lies in the scanner's field of view",
        low="part of the head is not in the image",
    ),
    "field_of_view_mm": Check(
        "shortest side of the field of view, in mm",
        low="a field of view too small for a human head: part of a head, or an animal",
    ),
    "profile_distance": Check(
        "distance of the regions' uptake from the training scans, in standard deviations",
        high="a regional uptake unlike all training scans: another tracer or another disease",
    ),
    "grey_white_contrast": Check(
        "uptake of grey matter over that of white matter",
        low="too little contrast for FDG: another tracer (amyloid binds white matter), an MRI, or a map",
        high="too much contrast for FDG: a tissue map, or not PET",
    ),
    "outside_share": Check(
        "share of the uptake that lies outside the brain",
        low="nothing outside the brain: a stripped or simulated image",
        high="much uptake outside the brain: another tracer, an MRI, or a failed registration",
    ),
    "asymmetry": Check(
        "mean difference of left and right, relative to the mean uptake",
        low="more symmetric than one person's scan: a mean image or a template",
        high="one side differs: a cut image, a focal disease, or a failed registration",
    ),
    "roughness": Check(
        "difference of neighbouring voxels, relative to the mean uptake",
        low="smoother than one person's scan: a mean image or a template",
        high="noise, or edges sharper than PET resolves",
    ),
    "stripes": Check(
        "difference of neighbouring axial planes, relative to that within a plane",
        high="stripes, or planes that are missing",
    ),
    "negative_share": Check(
        "share of negative values in the image",
        high="negative values, which uptake does not have: a difference or statistical map",
    ),
}


def measures(ratio: Array, *, brain: Mask, tissue: npt.NDArray[np.uint8]) -> dict[str, float]:
    """Measure a normalized scan for `CHECKS`.

    `ratio`, (i, j, k), is SUVR in template space, whose middle plane of i is x = 0; what is exactly 0, the
    scan does not show, and it counts for `asymmetry` alone.
    """
    data = ratio.astype(np.float64)
    shown = data != 0
    positive = np.clip(data, 0, None)
    steps = _steps(data, brain, shown)
    grey, white = (_mean(data[shown & (tissue == label)]) for label in (GREY_LABEL, WHITE_LABEL))
    both = brain & brain[::-1]
    return {
        "grey_white_contrast": _over(grey, white),
        "outside_share": _over(float(positive[~brain].sum()), float(positive.sum())),
        "asymmetry": _over(float(np.abs(data - data[::-1])[both].mean()), float(data[brain].mean())),
        "roughness": _over(_rms(steps.mean(axis=0)), _mean(data[brain & shown])),
        "stripes": _over(_rms(steps[2]), _rms(steps[:2])),
        "negative_share": _over(float((positive - data).sum()), float(np.abs(data).sum())),
    }


def view_measures(
    shape: Sequence[int], affine: Vector, matrix: Vector, points_mm: Vector
) -> dict[str, float]:
    """Measure the field of view and the brain within it.

    Shape and affine are of the scan's own grid; `matrix`, (4, 4), maps standard to scan world mm; the brain's
    voxels are `points_mm`, (n, 3), in standard world mm.
    """
    index = apply_affine(np.linalg.inv(affine) @ matrix, points_mm)
    inside = ((index >= -0.5) & (index <= np.array(shape) - 0.5)).all(axis=1)
    return {
        "brain_in_view": float(inside.mean()),
        "field_of_view_mm": float((voxel_sizes(affine) * shape).min()),
    }


def profile_distance(uptake: Vector, profile: Mapping[str, Any]) -> float:
    """Return the Mahalanobis distance over the root of its length.

    `uptake` is as `regional_means` gives it; `profile` has `mean` and `precision` of the training scans.
    """
    # A region that the scan does not show is taken for an average one.
    away = np.nan_to_num(uptake - np.asarray(profile["mean"], dtype=np.float64))
    squared = float(np.einsum("p,pq,q->", away, np.asarray(profile["precision"], dtype=np.float64), away))
    return float(np.sqrt(max(squared, 0.0) / len(away)))


def judged(values: Mapping[str, float], limits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Judge measures by a model's limits.

    A row's `finding` is its measure, value and limit; `reason` adds the training scans' range and the cause.
    """
    return [_judged(limit["name"], values[limit["name"]], limit) for limit in limits]


def refused_by(checks: Sequence[Mapping[str, Any]], what: str = "finding") -> list[str]:
    """Return the findings, or names, of checks that refuse."""
    return [check[what] for check in checks if check["verdict"] == "refused"]


def profile_of(uptakes: Vector) -> dict[str, Any]:
    """Return mean and regularised precision of profiles, (scans, regions).

    The covariance is shrunk towards its diagonal (Friedman 1989, doi:10.1080/01621459.1989.10478752). NaN, of
    a region that a scan does not show, counts as the mean of the others.
    """
    shown = np.isfinite(uptakes)
    means = np.nan_to_num(uptakes).sum(axis=0) / np.maximum(shown.sum(axis=0), 1)
    uptakes = np.where(shown, uptakes, means)
    covariance = np.cov(uptakes, rowvar=False).reshape(uptakes.shape[1], -1)
    variances = np.diag(covariance)
    floor = np.where(variances > 0, variances, max(float(variances.max()), 1e-6))
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(floor)
    return {"mean": means.tolist(), "precision": np.linalg.inv(shrunk).tolist()}


def profile_distances(uptakes: Vector, subjects: npt.NDArray[Any]) -> Vector:
    """Return each scan's distance to other subjects' profiles, (scans,)."""
    _, codes = np.unique(subjects, return_inverse=True)
    folds = codes % FOLDS
    distances = np.empty(len(uptakes))
    for fold in np.unique(folds):
        profile = profile_of(uptakes[folds != fold]) if (folds != fold).sum() > 1 else profile_of(uptakes)
        distances[folds == fold] = [profile_distance(row, profile) for row in uptakes[folds == fold]]
    return distances


def people_limits(
    people: Mapping[str, Sequence[float | None]], *, min_similarity: float, grid_mm: float = USUAL_GRID_MM
) -> list[dict[str, Any]]:
    """Return the limits of people's scans, without a training cohort.

    `people` is `quality` in params.yaml: refused below, flagged below, flagged above, refused above, None for
    none. `min_similarity` and `grid_mm` are those of the stage `normalize`: roughness, a second difference,
    grows with the square of the grid's step.
    """
    scale = {"roughness": (grid_mm / USUAL_GRID_MM) ** 2}
    rows: list[dict[str, Any]] = []
    for name, check in CHECKS.items():
        causes = {"text": check.text, "low_means": check.low, "high_means": check.high}
        limits = (None if limit is None else limit * scale.get(name, 1.0) for limit in people[name])
        rows.append({"name": name, **causes, **dict(zip(LIMITS, limits, strict=True))})
        if name == "similarity":
            rows[-1]["refuse_below"] = min_similarity
    return rows


def limits_of(
    measured: Mapping[str, Vector],
    people: Mapping[str, Sequence[float | None]],
    *,
    min_similarity: float,
    grid_mm: float = USUAL_GRID_MM,
) -> list[dict[str, Any]]:
    """Return out-of-distribution limits: the training scans' or people's.

    `measured` has (scans,) by the names of `CHECKS`; the others are as in `people_limits`. The wider limit
    counts.
    """
    rows = []
    for usual in people_limits(people, min_similarity=min_similarity, grid_mm=grid_mm):
        values = measured[usual["name"]]
        low, high = float(values.min()), float(values.max())
        spread = float(np.ptp(np.quantile(values, [0.025, 0.975]))) / MIDDLE_SDS
        own = {
            "refuse_below": low - REFUSED * spread,
            "flag_below": low - FLAGGED * spread,
            "flag_above": high + FLAGGED * spread,
            "refuse_above": high + REFUSED * spread,
        }
        if usual["name"] == "similarity":
            del own["refuse_below"]
        wider = {
            key: (min if key.endswith("below") else max)(usual[key], value)
            for key, value in own.items()
            if usual[key] is not None
        }
        row = usual | wider | {"median": float(np.median(values)), "low": low, "high": high}
        rows.append(
            {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
        )
    return rows


def unlike_cohort(values: Vector) -> npt.NDArray[np.bool_]:
    """Return which scans lie far from the cohort's median, (scans,).

    Further than `UNLIKE` standard deviations, which the median absolute deviation gives: outliers do not
    widen it. A value that most scans share tells nothing.
    """
    median = float(np.nanmedian(values))
    spread = float(median_abs_deviation(values, scale="normal", nan_policy="omit"))
    furthest = UNLIKE * max(spread, LEAST_SPREAD * abs(median))
    return np.asarray((spread > 0) & (np.abs(values - median) > furthest))


def _judged(name: str, value: float, limit: Mapping[str, Any]) -> dict[str, Any]:
    verdict, crossed, side = _verdict(value, limit)
    # Four decimals, or more if the rounded value would pass.
    shown = next(
        (close for digits in range(4, 18) if _verdict(close := round(value, digits), limit)[0] == verdict),
        value,
    )
    row = {"name": name, "value": shown if math.isfinite(value) else None, "verdict": verdict}
    if crossed is None:
        return row | {"finding": "", "reason": ""}
    written, required = told_apart(value, crossed)
    words, unit = name.removesuffix("_mm").replace("_", " "), " mm" if name.endswith("_mm") else ""
    what = f"required {required}{unit} or {'more' if side == 'low' else 'less'}"
    seen = f" (training scans have {limit['low']:.3g} to {limit['high']:.3g})" if "low" in limit else ""
    return row | {
        "finding": f"{words} {written}{unit}, {what}",
        "reason": f"{limit['text']}: {written}, {what}{seen}; {limit[f'{side}_means']}",
    }


def _verdict(value: float, limit: Mapping[str, Any]) -> tuple[Verdict, float | None, Literal["low", "high"]]:
    """Return the verdict, the limit that decided, and its side."""
    verdicts: tuple[tuple[Verdict, str], ...] = (("refused", "refuse"), ("flagged", "flag"))
    for verdict, word in verdicts:
        below, above = limit[f"{word}_below"], limit[f"{word}_above"]
        # Negated, so that NaN is beyond every limit.
        if below is not None and not value >= below:
            return verdict, below, "low"
        if above is not None and not value <= above:
            return verdict, above, "high"
    return "ok", None, "low"


def _mean(values: Vector) -> float:
    """Return the mean; NaN, which no limit allows, of nothing."""
    return float(values.mean()) if values.size else math.nan


def _rms(values: Vector) -> float:
    return math.sqrt(_mean(values**2))


def _steps(data: Vector, brain: Mask, shown: Mask) -> Vector:
    """Return differences from both neighbours, all shown, by axis."""
    inner = (slice(1, -1),) * 3
    compared = (brain & ndimage.binary_erosion(shown, border_value=1))[inner]
    halves = (ndimage.correlate1d(data, [-0.5, 1.0, -0.5], axis=axis)[inner] for axis in range(3))
    return np.stack([half[compared] for half in halves])


def _over(part: float, whole: float) -> float:
    """Divide; the ratio to nothing is infinite."""
    return part / whole if whole > 0 else float("inf")
