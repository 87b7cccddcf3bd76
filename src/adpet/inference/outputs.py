"""Files of an answer: maps, HTML page, JSON and CSV."""

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from adpet.evaluation.aggregation import INTERPRETATION
from adpet.imaging.nifti import Volume, write_volume
from adpet.imaging.normalization import to_uint8
from adpet.imaging.slices import CENTRE_Z_MM, CoronalGrid, coronal_slices, resize_maps
from adpet.inference.exported_model import MAPS, ExportedModel
from adpet.inference.predictor import RESEARCH_ONLY, UNCALIBRATED, Answer, RefusedError, spread
from adpet.inference.quality import refused_by
from adpet.storage import PARTIAL_PREFIX, remove, write_json

Array = npt.NDArray[np.float32]

# Screen pixels along a slice's edge.
SIDE: Final = 192
OPACITY: Final = 0.7
# AD from orange to yellow, CN from blue to cyan: also for the colour-blind.
TOWARDS_AD: Final = ((214, 69, 0), (255, 225, 60))
TOWARDS_CN: Final = ((24, 90, 200), (110, 225, 255))
# What the two ends of a map's scale say: towards AD and towards CN.
COLOURS: Final = {
    "cam": ("speaks for AD", "speaks for CN"),
    "z": ("uptake below healthy people's", "uptake above healthy people's"),
}
# Views of a refused scan: the template's axes along a plane's columns, across it and along its rows; the
# middle of columns and rows, and the planes, in mm; what the left and right edges are.
VIEWS: Final = (
    ("coronal", "xyz", (0, 5), (-80, -52, -24, 4, 32, 60), "LR"),
    ("axial", "xzy", (0, -17), (-40, -20, 0, 20, 40, 60), "LR"),
    ("sagittal", "yxz", (-17, 5), (-50, -30, -10, 10, 30, 50), "PA"),
)
VIEW_MM: Final = 220.0
TEMPLATES = Path(__file__).parent / "templates"
# z score at which a region's bar is full.
FULL_BAR_Z = 4.0

COLUMNS = (
    "scan", "probability_of_ad", "lowest_by_fold", "highest_by_fold", "threshold", *INTERPRETATION,
    "similarity_to_template", "flagged", "refused", "forced", "model", "lineage", "leaky", "error",
)  # fmt: skip


def write_answer(answer: Answer | RefusedError, model: ExportedModel, folder: Path, stem: str) -> None:
    """Write maps, page and JSON of a scan.

    A refused scan has no maps, and those of an earlier answer are removed.
    """
    aside = folder / f"{PARTIAL_PREFIX}{stem}"
    remove(aside)
    try:
        aside.mkdir(parents=True)
        for name in MAPS:
            mni, own = f"{stem}_{name}.nii.gz", f"{stem}_space-scan_{name}.nii.gz"
            if isinstance(answer, Answer):
                write_volume(aside / mni, answer.volumes[name], space="mni")
                write_volume(aside / own, answer.scan_volumes[name])
            else:
                remove(folder / mni)
                remove(folder / own)
        (aside / f"{stem}.html").write_text(answer_html(answer, model), encoding="utf-8")
        write_json(aside / f"{stem}.json", answer.document)
        for file in sorted(aside.iterdir()):
            file.replace(folder / file.name)
    finally:
        remove(aside)


def answers_as_json(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return answers and failures as a JSON list."""
    return json.dumps(list(answers), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def answers_as_csv(answers: Sequence[Mapping[str, Any]]) -> str:
    """Return one CSV row a scan, also for failures."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        checks = answer.get("checks", [])
        names = {
            "flagged": " ".join(check["name"] for check in checks if check["verdict"] != "ok"),
            "refused": " ".join(refused_by(checks, "name")),
        }
        folds = answer.get("probability_by_fold") or [""]
        extremes = {"lowest_by_fold": min(folds), "highest_by_fold": max(folds)}
        writer.writerow({**answer, **extremes, **names})
    return text.getvalue()


def answer_html(answer: Answer | RefusedError, model: ExportedModel) -> str:
    """Return the HTML page of an answer or refusal, escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    document = answer.document
    limits = {limit["name"]: limit for limit in model.document["quality"]}
    return environment.get_template("page.html.jinja").render(
        answer=document,
        answered=isinstance(answer, Answer),
        refused=refused_by(document["checks"]),
        views=_views(answer.suvr, model.standard.brain) if refused_by(document["checks"]) else [],
        checks=[(check, limits[check["name"]]) for check in document["checks"]],
        unlike=[check for check in document["checks"] if check["verdict"] != "ok"],
        performance=model.document["performance"],
        intended_use=model.document["intended_use"],
        research_only=RESEARCH_ONLY,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
        **(_answer_parts(answer, model) if isinstance(answer, Answer) else {}),
    )


def _answer_parts(answer: Answer, model: ExportedModel) -> dict[str, Any]:
    """Return what the page shows of an answer alone."""
    document, scales = answer.document, model.document["maps"]
    z_planes = coronal_slices(answer.volumes["z"].data, answer.volumes["z"].affine, model.grid)
    widest = max(abs(row["contribution"]) for row in document["slices"]) or 1.0
    maps = [
        (name, scale | {"colours": COLOURS[name]}, list(zip(document["slices"], pictures, strict=True)))
        for name, scale, pictures in (
            ("cam", scales["cam"], section_pictures(answer.slices, answer.maps, scales["cam"])),
            # Low uptake has the colours of AD.
            ("z", scales["z"], section_pictures(answer.slices, -z_planes, scales["z"])),
        )
    ]
    regions = sorted(document["regions"], key=lambda region: (not region["ad_pattern"], region["z"]))
    return {
        "percent": round(100 * document["probability_of_ad"], 1),
        "above": document["probability_of_ad"] >= document["threshold"],
        "maps": maps,
        "contributions": [_bar(row, row["contribution"] / widest) for row in document["slices"]],
        "unusual": unusual_text(document),
        "regions": [_bar(region, region["z"] / FULL_BAR_Z) for region in regions],
        "spread": spread(document),
        "uncalibrated": UNCALIBRATED,
        "full_bar_z": FULL_BAR_Z,
        "ramps": {"ad": _gradient(TOWARDS_AD), "cn": _gradient(TOWARDS_CN)},
    }


def _views(suvr: Volume, brain: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Draw planes of a scan with the template's outline."""
    bright = max(float(np.percentile(suvr.data, 99.5)), 1e-3)
    drawn = []
    for name, axes, centre, places_mm, edges in VIEWS:
        # Coronal planes of the turned template, whose rows are centred where `coronal_slices` has them.
        turn = np.zeros((4, 4))
        turn[range(3), ["xyz".index(axis) for axis in axes]] = turn[3, 3] = 1
        turn[:3, 3] = (-centre[0], 0, CENTRE_Z_MM - centre[1])
        grid = CoronalGrid(SIDE, VIEW_MM, tuple(map(float, places_mm)))
        planes, inside = (
            coronal_slices(data, turn @ suvr.affine, grid) for data in (suvr.data, brain.astype(np.float32))
        )
        full = inside > 0.5
        outline = full & ~ndimage.binary_erosion(full, np.ones((1, 3, 3)), iterations=2)
        pictures = section_pictures(
            to_uint8(planes, window=(0, bright)), -outline.astype(np.float32), {"limit": 1, "shown_from": 0.5}
        )
        drawn.append(
            {
                "name": name,
                "axis": axes[1],
                "edges": edges,
                "planes": list(zip(places_mm, pictures, strict=True)),
            }
        )
    return drawn


def unusual_text(document: Mapping[str, Any]) -> str:
    """Return the unusual regions and the age of comparison."""
    at, age = document["compared_at_age"], document["age"]
    compared = "without regard to age" if at is None else f"at age {at:.0f}"
    if at is not None and age is None:
        compared += ", the healthy people's mean, as no age was given"
    elif at != age and at is not None:
        compared += f", the nearest to {age:g} that healthy people have"
    regions = ", ".join(f"{row['name']} ({row['z']:+.1f})" for row in document["unusual"])
    return f"{regions or 'none'}; compared {compared}"


def section_pictures(slices: npt.NDArray[np.uint8], maps: Array, scale: Mapping[str, Any]) -> list[str]:
    """Draw slices with their maps as PNG data addresses."""
    large = resize_maps(maps, SIDE) / scale["limit"]
    least = scale["shown_from"] / scale["limit"]
    return [_png(_section(plane, over, least)) for plane, over in zip(slices, large, strict=True)]


def _bar(row: dict[str, Any], share: float) -> dict[str, Any]:
    """Add a bar from the middle, in percent."""
    width = min(abs(share), 1) * 50
    return row | {"width": round(width, 1), "left": round(50 - width if share < 0 else 50, 1)}


def _gradient(ends: tuple[tuple[int, ...], ...]) -> str:
    low, high = (f"rgb({', '.join(map(str, end))})" for end in ends)
    return f"{low}, {high}"


def _section(plane: npt.NDArray[np.uint8], over: Array, least: float) -> npt.NDArray[np.uint8]:
    """Overlay a map, -1 to 1, from `least` on."""
    from PIL import Image

    grey = np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    strength = np.asarray(np.clip((np.abs(over) - least) / (1 - least), 0, 1)[..., None], dtype=np.float32)
    colours = np.where((over > 0)[..., None], _ramp(TOWARDS_AD, strength), _ramp(TOWARDS_CN, strength))
    opacity = OPACITY * (np.abs(over) >= least)[..., None]
    return np.asarray(np.round(grey[..., None] * (1 - opacity) + colours * opacity), dtype=np.uint8)


def _ramp(ends: tuple[tuple[int, ...], ...], strength: Array) -> Array:
    low, high = (np.array(end, dtype=np.float32) for end in ends)
    return np.asarray(low + (high - low) * strength, dtype=np.float32)


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
