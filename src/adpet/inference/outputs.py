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

from adpet.evaluation.aggregation import INTERPRETATION
from adpet.imaging.nifti import write_volume
from adpet.imaging.slices import resize_maps
from adpet.inference.exported_model import ExportedModel
from adpet.inference.predictor import RESEARCH_ONLY, UNCALIBRATED, Answer, spread
from adpet.storage import PARTIAL_PREFIX, remove, write_json

Array = npt.NDArray[np.float32]

# Screen pixels along a slice's edge.
SIDE: Final = 192
# Share of the largest value of all slices below which the map is transparent.
HIDE_BELOW: Final = 0.2
OPACITY: Final = 0.7
# AD from orange to yellow, CN from blue to cyan: also for the colour-blind.
TOWARDS_AD: Final = ((214, 69, 0), (255, 225, 60))
TOWARDS_CN: Final = ((24, 90, 200), (110, 225, 255))
TEMPLATES = Path(__file__).parent / "templates"
# z score at which a region's bar is full.
FULL_BAR_Z = 4.0

COLUMNS = (
    "scan",
    "probability_of_ad",
    "lowest_by_fold",
    "highest_by_fold",
    "threshold",
    *INTERPRETATION,
    "similarity_to_template",
    "flagged",
    "model",
    "lineage",
    "leaky",
    "error",
)


def write_answer(answer: Answer, model: ExportedModel, folder: Path, stem: str) -> None:
    """Write maps, page and JSON of a scan."""
    aside = folder / f"{PARTIAL_PREFIX}{stem}"
    remove(aside)
    try:
        aside.mkdir(parents=True)
        write_volume(aside / f"{stem}_cam.nii.gz", answer.cam, space="mni")
        write_volume(aside / f"{stem}_space-scan_cam.nii.gz", answer.scan_cam)
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
        flagged = [check["name"] for check in answer.get("checks", []) if check["verdict"] != "ok"]
        folds = answer.get("probability_by_fold") or [""]
        extremes = {"lowest_by_fold": min(folds), "highest_by_fold": max(folds)}
        writer.writerow({**answer, **extremes, "flagged": " ".join(flagged)})
    return text.getvalue()


def answer_html(answer: Answer, model: ExportedModel) -> str:
    """Return the HTML page of an answer, escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    document = answer.document
    pictures = section_pictures(answer.slices, answer.maps)
    limits = {limit["name"]: limit for limit in model.document["quality"]}
    regions = sorted(document["regions"], key=lambda region: (not region["ad_pattern"], region["z"]))
    return environment.get_template("page.html.jinja").render(
        answer=document,
        percent=round(100 * document["probability_of_ad"], 1),
        above=document["probability_of_ad"] >= document["threshold"],
        sections=list(zip(document["slices"], pictures, strict=True)),
        regions=[_row(region) for region in regions],
        checks=[(check, limits[check["name"]]) for check in document["checks"]],
        flagged=[check for check in document["checks"] if check["verdict"] != "ok"],
        performance=model.document["performance"],
        intended_use=model.document["intended_use"],
        spread=spread(document),
        research_only=RESEARCH_ONLY,
        uncalibrated=UNCALIBRATED,
        hide_below=HIDE_BELOW,
        full_bar_z=FULL_BAR_Z,
        ramps={"ad": _gradient(TOWARDS_AD), "cn": _gradient(TOWARDS_CN)},
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def section_pictures(slices: npt.NDArray[np.uint8], maps: Array) -> list[str]:
    """Draw slices with their maps as PNG data addresses."""
    scale = float(np.abs(maps).max()) or 1.0
    large = resize_maps(maps, SIDE) / scale
    return [_png(_section(plane, over)) for plane, over in zip(slices, large, strict=True)]


def _row(region: dict[str, Any]) -> dict[str, Any]:
    width = min(abs(region["z"]) / FULL_BAR_Z, 1) * 50
    return region | {"width": round(width, 1), "left": round(50 - width if region["z"] < 0 else 50, 1)}


def _gradient(ends: tuple[tuple[int, ...], ...]) -> str:
    low, high = (f"rgb({', '.join(map(str, end))})" for end in ends)
    return f"{low}, {high}"


def _section(plane: npt.NDArray[np.uint8], over: Array) -> npt.NDArray[np.uint8]:
    """Overlay a map, -1 to 1, on a slice."""
    from PIL import Image

    grey = np.asarray(Image.fromarray(plane).resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    strength = np.asarray(
        np.clip((np.abs(over) - HIDE_BELOW) / (1 - HIDE_BELOW), 0, 1)[..., None], dtype=np.float32
    )
    colours = np.where((over > 0)[..., None], _ramp(TOWARDS_AD, strength), _ramp(TOWARDS_CN, strength))
    opacity = OPACITY * np.minimum(1, 3 * strength)
    return np.asarray(np.round(grey[..., None] * (1 - opacity) + colours * opacity), dtype=np.uint8)


def _ramp(ends: tuple[tuple[int, ...], ...], strength: Array) -> Array:
    low, high = (np.array(end, dtype=np.float32) for end in ends)
    return np.asarray(low + (high - low) * strength, dtype=np.float32)


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    from PIL import Image

    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
