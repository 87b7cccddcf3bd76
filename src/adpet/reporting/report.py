"""Report as one self-contained HTML page, without scripts."""

from pathlib import Path

from adpet.reporting.components import Documents
from adpet.reporting.explainability import leakage, saliency
from adpet.reporting.methods import data, limits, lineage, training
from adpet.reporting.performance import baselines, failures, performance, subgroups
from adpet.reporting.summary import PURPOSE, summary

TEMPLATES = Path(__file__).parent / "templates"

# Anchor, title and content, in the order of a reviewer's questions.
SECTIONS = (
    ("performance", "Performance on held-out subjects", performance),
    ("baselines", "Comparison with baselines", baselines),
    ("leakage", "Leakage test", leakage),
    ("maps", "Explainability", saliency),
    ("subgroups", "Subgroups", subgroups),
    ("failures", "Misclassified subjects", failures),
    ("data", "Data and split", data),
    ("training", "Search and training", training),
    ("lineage", "Lineage, versions and parameters", lineage),
    ("limits", "Limitations", limits),
)


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
        sections=[(anchor, title, blocks(documents)) for anchor, title, blocks in SECTIONS],
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )
