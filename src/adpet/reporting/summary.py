"""The verdict in five lines, what speaks against the model first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adpet.evaluation.comparison import BASELINES, CHANCE
from adpet.evaluation.leakage import CLEAN, INVALID
from adpet.reporting.components import Documents, interval, number, percent, plural, points, typeset
from adpet.reporting.components import difference as gap

Tone = Literal["bad", "doubt", "good", "plain"]

# A model that does not beat these has learned nothing that a plain model does not see.
TO_BEAT = ("regions", "voxels")
PURPOSE = "Research use only, not for diagnosis."


@dataclass(frozen=True)
class Line:
    """One line of the verdict: what it is about, whether it speaks for the model, and what was found."""

    tone: Tone
    label: str
    text: str


def verdict(documents: Documents) -> list[Line]:
    """Return the lines: what makes the figures void first, then a baseline that is as good, then the rest."""
    performance, compared = _performance(documents), _baseline(documents)
    leak, maps = _leak(documents), _maps(documents)
    first = [compared, performance] if compared.tone == "doubt" else [performance, compared]
    lines = [*first, leak, maps]
    return [
        *(line for line in lines if line.tone == "bad"),
        *(line for line in lines if line.tone != "bad"),
        _whom(documents),
    ]


def _summary(documents: Documents) -> str:
    """Return how well the model tells AD from CN, in one sentence."""
    subject, counts = documents.metrics["subject"], documents.metrics["counts"]
    return (
        f"AUC per subject {interval(subject['auc'])} on {plural(counts['subjects'], 'held-out subject')} "
        f"({counts['subjects_ad']} AD, {counts['subjects_cn']} CN)"
    )


def _performance(documents: Documents) -> Line:
    text = _summary(documents)
    folds = documents.cross_validation
    if folds and folds["folds"]:
        text += (
            f"; {interval(folds['pooled']['auc'])} over all {folds['counts']['subjects']} subjects in "
            f"{folds['folds']} folds"
        )
    if documents.leaky:
        said = "LEAKY: subjects stand on both sides of this split, so these figures are no result. "
        return Line("bad", "Performance", f"{said}{text}.")
    if documents.metrics["subject"]["auc"]["low"] <= CHANCE:
        return Line("doubt", "Performance", f"{text}: not told from chance.")
    return Line("plain", "Performance", f"{text}.")


def _baseline(documents: Documents) -> Line:
    differences, found = documents.metrics["differences"], documents.findings
    compared = [name for name in TO_BEAT if name in differences]
    if not compared:
        why = " since a leaky split gives no honest comparison" if documents.leaky else ""
        return Line("doubt", "Baselines", f"The network was compared with no baseline{why}.")
    behind = [name for name in compared if differences[name]["low"] <= 0]
    sentences = [*map(typeset, found["warnings"]), *(_lead(name, differences[name]) for name in compared)]
    tone: Tone = "doubt" if behind or found["warnings"] else "good"
    return Line(tone, "Baselines", " ".join(sentences))


def _lead(name: str, difference: dict[str, float]) -> str:
    verb = "does not beat" if difference["low"] <= 0 else "beats"
    if difference["high"] < 0:
        verb = "is worse than"
    return f"The network {verb} the {BASELINES[name]} baseline (AUC difference {gap(difference)})."


def _leak(documents: Documents) -> Line:
    audit = documents.audit
    if audit is None:
        return Line("doubt", "Leakage", "No leakage audit was made; run: dvc repro leakage.")
    size = (
        f"On these scans a slice split would add {points(audit['gap']['true_labels'])} of accuracy per "
        "slice; with labels shuffled among subjects, where only recognising people is left to learn, "
        f"{points(audit['gap']['shuffled_labels'])}."
    )
    said = f"Audit {audit['verdict']}: {audit['reason']}."
    if audit["verdict"] == INVALID:
        return Line("bad", "Leakage", f"{said} {size}")
    if audit["verdict"] != CLEAN:
        return Line("doubt", "Leakage", f"{said} {size}")
    return Line("good", "Leakage", f"{size} {said}")


def _maps(documents: Documents) -> Line:
    cam = documents.cam
    if cam is None:
        return Line(
            "doubt", "What it looks at", "No class activation maps were made; run: dvc repro explain."
        )
    alarms = len(cam["alarms"])
    warned = f" {plural(alarms, 'alarm')}: see what the network looks at." if alarms else ""
    if cam["truth"]["scans"]:
        found, tone = _found(cam["truth"])
    else:
        found, tone = _pattern(cam["referenced"]["ad"])
    return Line("doubt" if alarms else tone, "What it looks at", f"{found}{warned}")


def _found(truth: dict[str, Any]) -> tuple[str, Tone]:
    """Return how well the maps find what was planted, beside a network that has learned nothing."""
    scores = truth["scores"]
    ours, blank = scores["referenced"]["auroc"], scores["untrained referenced"]["auroc"]
    text = (
        f"In {plural(truth['scans'], 'rightly called AD scan')} the referenced maps find the simulated "
        f"deficit with an area under the ROC curve of {interval(ours)} per voxel; untrained networks' "
        f"maps with {number(blank['value'])}."
    )
    return text, "good" if ours["low"] > max(CHANCE, blank["value"]) else "doubt"


def _pattern(facts: dict[str, Any]) -> tuple[str, Tone]:
    """Return how much of the patients' map lies where the disease begins."""
    pattern = facts["ad_pattern"]
    text = (
        f"{percent(pattern['mass'])} of the AD group's referenced map lies in the regions that Alzheimer's "
        f"disease begins in, {number(pattern['over_volume'], 1)} times their share of the brain "
        f"({plural(facts['scans'], 'scan')})."
    )
    return text, "plain" if pattern["over_volume"] > 1 else "doubt"


def _whom(documents: Documents) -> Line:
    ingest = documents.ingest
    groups = ingest["diagnosis"]
    what = " simulated" if documents.is_simulated else ""
    text = (
        f"{ingest['scans']}{what} scans of {plural(ingest['subjects'], 'subject')} "
        f"({groups['AD']['subjects']} AD, {groups['CN']['subjects']} CN) from {origins(ingest)}; AD against "
        "CN alone, no MCI and no other dementia; not tested on another collection. "
    )
    return Line("plain", "For whom", f"{text}{PURPOSE}")


def origins(ingest: Mapping[str, Any]) -> str:
    """Return how many sites and scanner models the scans are from, as far as it is known."""
    known = {
        name: sum(place not in ("", "unknown") for place in ingest[key])
        for name, key in (("site", "sites"), ("scanner model", "scanners"))
    }
    return " and ".join(plural(count, name) if count else f"unknown {name}s" for name, count in known.items())
