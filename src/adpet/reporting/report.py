"""Report as one self-contained HTML page, without scripts."""

from pathlib import Path

from adpet.reporting.components import Documents
from adpet.reporting.explainability import leakage, saliency
from adpet.reporting.methods import data, limits, lineage, training
from adpet.reporting.performance import baselines, failures, performance, subgroups
from adpet.reporting.summary import PURPOSE, summary

TEMPLATES = Path(__file__).parent / "templates"

# In the order of a reviewer's questions.
SECTIONS = (performance, baselines, leakage, saliency, subgroups, failures, data, training, lineage, limits)


def report_html(documents: Documents) -> str:
    """Return the page: deterministic, with escaped content."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        lineage=documents.lineage["id"],
        purpose=PURPOSE,
        summary=summary(documents),
        sections=[section(documents) for section in SECTIONS],
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )
