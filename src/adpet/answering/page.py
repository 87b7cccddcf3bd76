"""An answer as one page of HTML that holds all it shows: nothing is fetched, and no script is needed."""

from pathlib import Path
from typing import Any

from adpet.answering.answer import RESEARCH_ONLY, Answer
from adpet.answering.model import ExportedModel
from adpet.answering.pictures import HIDE_BELOW, TOWARDS_AD, TOWARDS_CN, section_pictures

TEMPLATES = Path(__file__).parent
# A region's bar is full at so many standard deviations.
FULL_BAR_Z = 4.0


def answer_html(answer: Answer, model: ExportedModel) -> str:
    """Return the page; equal answers give equal text, and what they hold is escaped."""
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
    return environment.get_template("page.html.jinja").render(
        answer=document,
        percent=round(100 * document["probability_of_ad"], 1),
        above=document["probability_of_ad"] >= document["threshold"],
        sections=list(zip(document["slices"], pictures, strict=True)),
        regions=[_row(region) for region in _by_pattern(document["regions"])],
        checks=[(check, limits[check["name"]]) for check in document["checks"]],
        flagged=[check for check in document["checks"] if check["verdict"] != "ok"],
        performance=model.document["performance"],
        intended_use=model.document["intended_use"],
        research_only=RESEARCH_ONLY,
        hide_below=HIDE_BELOW,
        full_bar_z=FULL_BAR_Z,
        ramps={"ad": _gradient(TOWARDS_AD), "cn": _gradient(TOWARDS_CN)},
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def _by_pattern(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that Alzheimer's disease takes first before the others, the lowest first."""
    return sorted(regions, key=lambda region: (not region["ad_pattern"], region["z"]))


def _row(region: dict[str, Any]) -> dict[str, Any]:
    width = min(abs(region["z"]) / FULL_BAR_Z, 1) * 50
    return region | {"width": round(width, 1), "left": round(50 - width if region["z"] < 0 else 50, 1)}


def _gradient(ends: tuple[tuple[int, ...], ...]) -> str:
    low, high = (f"rgb({', '.join(map(str, end))})" for end in ends)
    return f"{low}, {high}"
