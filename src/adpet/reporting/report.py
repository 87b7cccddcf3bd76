"""The report as one page of HTML that holds all it shows: nothing is fetched, and no script is needed."""

from pathlib import Path

from adpet.reporting.components import Documents, Section
from adpet.reporting.explainability import attention, leakage
from adpet.reporting.methods import data, limits, lineage, making
from adpet.reporting.performance import baselines, failures, performance, subgroups
from adpet.reporting.summary import PURPOSE, verdict

TEMPLATES = Path(__file__).parent / "templates"

# In the order of a reviewer's questions: how good, against what, by what, for whom, from what.
CHAPTERS = (
    performance,
    baselines,
    leakage,
    attention,
    subgroups,
    failures,
    data,
    making,
    lineage,
    limits,
)


def sections(documents: Documents) -> list[Section]:
    """Return all chapters, figures drawn."""
    return [chapter(documents) for chapter in CHAPTERS]


def report_html(documents: Documents) -> str:
    """Return the page; equal documents give equal text, and what they hold is escaped.

    Parameters
    ----------
    documents : Documents
        Contents of the stages' files.
    """
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
        verdict=verdict(documents),
        sections=sections(documents),
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )
