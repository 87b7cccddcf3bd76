"""Report as one self-contained HTML page, and its summary.

The summary has evidence against the model first. The page has no scripts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adpet.evaluation.comparison import CHANCE, comparison_sentence
from adpet.evaluation.leakage import CLEAN, INVALID
from adpet.reporting.components import Block, Documents, interval, number, percent, plural, points, typeset
from adpet.reporting.explainability import leakage, saliency
from adpet.reporting.methods import data, limits, lineage, training
from adpet.reporting.performance import baselines, external, failures, other_diagnoses, performance, subgroups

TEMPLATES = Path(__file__).parent / "templates"

# Anchor, title and content, in the order of a reviewer's questions; one without content is left out.
SECTIONS = (
    ("performance", "Performance on held-out subjects", performance),
    ("baselines", "Comparison with baselines", baselines),
    ("external", "External validation", external),
    ("leakage", "Leakage test", leakage),
    ("maps", "Explainability", saliency),
    ("subgroups", "Subgroups", subgroups),
    ("failures", "Misclassified subjects", failures),
    ("others", "Other diagnoses", other_diagnoses),
    ("data", "Data and split", data),
    ("training", "Search and training", training),
    ("lineage", "Lineage, versions and parameters", lineage),
    ("limits", "Limitations", limits),
)

Tone = Literal["bad", "doubt", "good", "plain"]

# A model that does not beat these adds nothing to a classical one.
TO_BEAT = ("atlas", "regions", "voxels")
PURPOSE = "Research use only, not for diagnosis."


@dataclass(frozen=True)
class Line:
    """One line of the summary and its tone."""

    tone: Tone
    label: str
    text: str


def report_html(documents: Documents) -> str:
    """Return the report on a training."""
    sections = [(anchor, title, blocks(documents)) for anchor, title, blocks in SECTIONS]
    shown = [section for section in sections if section[2]]
    return page(f"Report on model {documents.lineage['id']}", summary(documents), shown)


def page(title: str, lines: Sequence[Line], sections: Sequence[tuple[str, str, Sequence[Block]]]) -> str:
    """Return a page: deterministic, with escaped content.

    `sections` have an anchor, a title and their content.
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
        title=title,
        purpose=PURPOSE,
        summary=lines,
        sections=sections,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def summary(documents: Documents) -> list[Line]:
    """Return the lines: what invalidates results first, then unbeaten baselines."""
    scored, compared = _performance(documents), _baseline(documents)
    leak, maps = _leakage(documents), _maps(documents)
    first = [compared, scored] if compared.tone == "doubt" else [scored, compared]
    lines = [*first, *_external(documents), leak, maps]
    return [*sorted(lines, key=lambda line: line.tone != "bad"), _data(documents)]


def _performance(documents: Documents) -> Line:
    auc, counts = documents.metrics["subject"]["auc"], documents.metrics["counts"]
    text = (
        f"AUC per subject {interval(auc)} on {plural(counts['subjects'], 'held-out subject')} "
        f"({counts['subjects_ad']} AD, {counts['subjects_cn']} CN)"
    )
    folds = documents.cross_validation
    if folds and folds["folds"]:
        text += (
            f"; {interval(folds['pooled']['auc'])} over all {folds['counts']['subjects']} subjects in "
            f"{folds['folds']} folds"
        )
    if documents.leaky:
        reason = "LEAKY: subjects are on both sides of this split, so these numbers are not a valid result. "
        return Line("bad", "Performance", f"{reason}{text}.")
    if auc["low"] <= CHANCE:
        return Line("doubt", "Performance", f"{text}: not better than chance.")
    return Line("plain", "Performance", f"{text}.")


def _baseline(documents: Documents) -> Line:
    differences, found = documents.metrics["differences"], documents.findings
    compared = [name for name in TO_BEAT if name in differences]
    if not compared:
        why = ", since a leaky split allows no fair comparison" if documents.leaky else ""
        return Line("doubt", "Baselines", f"The network was not compared with any baseline{why}.")
    behind = [name for name in compared if differences[name]["auc"]["low"] <= 0]
    sentences = [
        *map(typeset, found["warnings"]),
        *(typeset(comparison_sentence(name, differences[name])) for name in compared),
    ]
    tone: Tone = "doubt" if behind or found["warnings"] else "good"
    return Line(tone, "Baselines", " ".join(sentences))


def _external(documents: Documents) -> list[Line]:
    found = documents.external
    if found is None:
        return []
    auc, counts = found["evaluation"]["subject"]["auc"], found["evaluation"]["counts"]
    below = auc["high"] < documents.metrics["subject"]["auc"]["low"]
    text = (
        f"AUC per subject {interval(auc)} on {plural(counts['subjects'], 'subject')} of another collection, "
        f"{found['cohort']}{', less than on the own test subjects' if below else ''}."
    )
    return [Line("doubt" if below else "plain", "External validation", text)]


def _leakage(documents: Documents) -> Line:
    test = documents.leakage
    if test is None:
        return Line("doubt", "Leakage", "The leakage test was not run; run: dvc repro leakage.")
    size = (
        f"On these scans a slice split would raise the accuracy per slice by "
        f"{points(test['gap']['true_labels'])}; with labels shuffled among subjects, where only recognising "
        f"subjects is left to learn, by {points(test['gap']['shuffled_labels'])}."
    )
    result = f"Leakage test {test['verdict']}: {test['reason']}."
    if test["verdict"] == CLEAN:
        return Line("good", "Leakage", f"{size} {result}")
    return Line("bad" if test["verdict"] == INVALID else "doubt", "Leakage", f"{result} {size}")


def _maps(documents: Documents) -> Line:
    cam = documents.cam
    if cam is None:
        return Line("doubt", "Explainability", "No saliency maps were made; run: dvc repro explain.")
    alarms = len(cam["alarms"])
    warning = f" {plural(alarms, 'alarm')}: see Explainability." if alarms else ""
    truth = cam["truth"]
    found, tone = _found(truth) if truth["scans"] else _pattern(cam["referenced"]["ad"])
    return Line("doubt" if alarms else tone, "Explainability", f"{found}{warning}")


def _found(truth: dict[str, Any]) -> tuple[str, Tone]:
    """Return how well the maps find the simulated deficit."""
    scores = truth["scores"]
    ours, blank = scores["referenced"]["auroc"], scores["untrained referenced"]["auroc"]
    text = (
        f"In {plural(truth['scans'], 'correctly classified AD scan')} the z-scored attribution maps find the "
        f"simulated deficit with an AUROC per voxel of {interval(ours)}; maps of untrained networks reach "
        f"{number(blank['value'])}. {typeset(truth['verdict']['referenced'])}"
    )
    lead = truth["differences"]["referenced"]["group mean"]["auroc"]
    is_good = ours["low"] > max(CHANCE, blank["value"]) and lead["low"] > 0
    return text, "good" if is_good else "doubt"


def _pattern(facts: dict[str, Any]) -> tuple[str, Tone]:
    """Return the AD map's share in the AD pattern."""
    pattern = facts["ad_pattern"]
    text = (
        f"{percent(pattern['mass'])} of the AD group's z-scored attribution map lies in the regions where "
        f"Alzheimer's disease begins, {number(pattern['over_volume'], 1)} times their share of the brain "
        f"({plural(facts['scans'], 'scan')})."
    )
    return text, "plain" if pattern["over_volume"] > 1 else "doubt"


def _data(documents: Documents) -> Line:
    ingest = documents.ingest
    groups = ingest["diagnosis"]
    kind = " simulated" if documents.is_simulated else ""
    text = (
        f"{ingest['scans']}{kind} scans of {plural(ingest['subjects'], 'subject')} "
        f"({groups['AD']['subjects']} AD, {groups['CN']['subjects']} CN) from {origins(ingest)}; AD and CN "
        f"only, without MCI or other dementias{'' if documents.external else '; no external test set'}. "
    )
    return Line("plain", "Data and use", f"{text}{PURPOSE}")


def origins(ingest: Mapping[str, Any]) -> str:
    """Return the number of known sites and scanner models."""
    known = {
        name: sum(place not in ("", "unknown") for place in ingest[key])
        for name, key in (("site", "sites"), ("scanner model", "scanners"))
    }
    return " and ".join(plural(count, name) if count else f"unknown {name}s" for name, count in known.items())
