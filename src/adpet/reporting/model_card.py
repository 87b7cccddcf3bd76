"""Model card in Markdown, after TRIPOD+AI and CLAIM.

TRIPOD+AI: Collins et al. 2024, BMJ 385:e078378. CLAIM: Tejani et al. 2024, Radiology: AI 6:e240300.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from adpet.cohort.scans import DIAGNOSES
from adpet.reporting import performance
from adpet.reporting.components import Documents, Table, humanize, interval, number, percent, plural, points
from adpet.reporting.methods import limit_sentences, set_aside, split_sentence, split_table
from adpet.reporting.report import PURPOSE, origins, summary

# Characters with a meaning in Markdown or HTML.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")
INTENDED = (
    f"Classification of AD and CN from one FDG-PET scan of the head, for research on methods. {PURPOSE} "
    "Not for MCI, other dementias, screening, or scans unlike those below."
)
OUTCOME = (
    "The collection's clinical diagnosis, AD or CN, without pathology. The model gives a probability of AD; "
    "{} and above is predicted AD."
)
ELSEWHERE = "\n\n_The full card is in the training run's artifacts: report/MODEL_CARD.md._\n"


def model_card(documents: Documents) -> str:
    """Return the card; the collection's texts are escaped."""
    parts = [f"# Model card: adpet {documents.lineage['id']}"]
    for title, content in _chapters(documents):
        parts += [f"## {title}", *content]
    return "\n\n".join(parts) + "\n"


def shortened(card: str, *, most: int) -> str:
    """Return the first whole chapters that `most` characters hold.

    A longer first chapter is cut at the end of a line.
    """
    if len(card) <= most:
        return card
    room = most - len(ELSEWHERE)
    end = card.rfind("\n\n## ", 0, room + 1)
    if end <= card.find("\n\n## "):
        end = max(card.rfind("\n", 0, room + 1), 0)
    return card[:end].rstrip() + ELSEWHERE


def _chapters(documents: Documents) -> Iterator[tuple[str, list[str]]]:
    """Yield title and paragraphs of each chapter."""
    metrics, params = documents.metrics, documents.lineage["params"]
    subjects = documents.evaluation.subjects
    yield "Summary", [_listed(f"**{line.label}.** {_plain(line.text)}" for line in summary(documents))]
    yield "Intended use", [INTENDED]
    yield "Source of data and eligibility", _source(documents.ingest, is_simulated=documents.is_simulated)
    yield "Preprocessing", [_preprocessing(params)]
    yield "Predictors and model", [_model(params, documents.aggregation)]
    yield "Outcome", [OUTCOME.format(number(metrics["threshold"]))]
    yield "Sample size", [_size(documents.ingest["subjects"], metrics["counts"])]
    yield "Missing data", [_missing(documents.ingest)]
    yield "Training and tuning", [_training(documents)]
    split = documents.split
    yield "Partitions and validation", [_plain(split_sentence(split)), _table(split_table(split))]
    yield "Performance", _performance(documents)
    if blocks := performance.external(documents):
        text, table, sentences = blocks
        yield "External validation", [_plain(text.text), _table(table), _listed(map(_plain, sentences.items))]
    yield "Subgroups and fairness", [_table(performance.subgroups_table(documents.evaluation.subgroups))]
    yield "Leakage test", [_leakage(documents.leakage)]
    yield "Explainability", [_explained(documents.cam)]
    yield "Failure analysis", [_listed(map(_plain, performance.wrong_calls(subjects, metrics["threshold"])))]
    yield "Limitations", [_listed(map(_plain, limit_sentences(documents)))]
    yield "Reproducibility", [_reproducible(documents.lineage)]


def _size(subjects: int, counts: Mapping[str, int]) -> str:
    return (
        f"{plural(subjects, 'subject')} in all, {counts['subjects']} of them held out "
        f"({counts['subjects_ad']} AD, {counts['subjects_cn']} CN); all available subjects, no sample size "
        "calculation."
    )


def _source(ingest: Mapping[str, Any], *, is_simulated: bool) -> list[str]:
    what = "Simulated cohort" if is_simulated else "The collection given to the pipeline"
    groups = []
    for name in DIAGNOSES:
        group = ingest["diagnosis"][name]
        age = group["age"]
        years = f", age {number(age['mean'], 1)} (SD {number(age['sd'], 1)})" if age["known"] else ""
        groups.append(
            f"{plural(group['subjects'], f'{name} subject')}, {plural(group['scans'], 'scan')}{years}"
        )
    return [
        (
            f"{what}: {'; '.join(groups)}; from {origins(ingest)}. Eligible: readable FDG "
            f"scans of subjects with AD or CN. {set_aside(ingest)}"
        ),
        *(_plain(f"Warning: {warning}.") for warning in ingest["warnings"]),
    ]


def _preprocessing(params: Mapping[str, Any]) -> str:
    standard, cut = params["normalize"], params["slice"]
    blur = (
        f", smoothed by {number(standard['smoothing_mm'], 0)} mm FWHM" if standard.get("smoothing_mm") else ""
    )
    if target := standard.get("target_fwhm_mm"):
        blur = f", smoothed to {target:g} mm FWHM by the scanner's own resolution"
    neighbours = cut.get("neighbours_mm")
    sides = f", each with those {neighbours:g} mm behind and in front of it" if neighbours else ""
    return (
        f"Frames averaged; registered to the template ({_plain(standard['align'])}), "
        f"{standard['grid_mm']:g} mm MNI grid{blur}; SUVR with the {_plain(standard['reference'])} "
        f"reference region; coronal planes from y = {number(cut['range_mm'][0], 0)} to "
        f"{number(cut['range_mm'][1], 0)} mm every {cut['step_mm']:g} mm{sides}. The same for every scan, "
        "without parameters learned from the data."
    )


def _model(params: Mapping[str, Any], aggregation: str) -> str:
    model = params["model"]
    return (
        f"A coronal slice of {model['input_size']} x {model['input_size']} pixels into MobileNetV2 (width "
        f"{model['alpha']:g}, features of {_plain(model['feature_layer'])}, initial weights: "
        f"{_plain(str(model['weights']))}), global average pooling and one dense layer. Slices are "
        f"aggregated by {aggregation.replace('_', ' ')}. Age, sex and site are not used."
    )


def _missing(ingest: Mapping[str, Any]) -> str:
    unknown = sum(
        ingest["diagnosis"][name]["subjects"] - ingest["diagnosis"][name]["age"]["known"]
        for name in DIAGNOSES
    )
    return (
        f"Age is unknown for {plural(unknown, 'subject')}; it is used for subgroups and baselines only. "
        "Scans without a diagnosis are excluded; the model needs no imputation."
    )


def _training(documents: Documents) -> str:
    params, search = documents.lineage["params"]["train"], documents.search
    folds = len(documents.trained["folds"])
    ensemble = (
        f" (the median). The model is the ensemble of {plural(folds, 'network')}; position weights, "
        "calibration and threshold are from their out-of-fold predictions."
    )
    searched = (
        f"{plural(len(search.trials), 'trial')} of a TPE search on validation folds of the training "
        f"subjects, by {humanize(search.monitor).lower()}"
        if search is not None and len(search.trials)
        else "no search"
    )
    return (
        f"Tuning: {searched}. Training: {params['optimizer']}, {params['epochs']} epochs, batches of "
        f"{params['batch_size']}; epoch {documents.trained['best_epoch']} was kept"
        f"{ensemble if folds else '.'}"
    )


def _performance(documents: Documents) -> list[str]:
    metrics = documents.metrics
    parts = [_table(performance.measures_table(metrics)), _table(performance.confusion_table(metrics))]
    if metrics["baselines"]:
        parts.append(_table(performance.baselines_table(metrics)))
    folds = documents.cross_validation
    if folds and folds["folds"]:
        parts.append(
            f"Cross-validation of all {folds['counts']['subjects']} subjects: AUC "
            f"{interval(folds['pooled']['auc'])}, and {performance.fold_spread(folds)}."
        )
    return parts


def _leakage(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "Not run."
    gap = test["gap"]
    return _plain(
        f"{test['verdict']}: {test['reason']}. A slice split would gain {points(gap['true_labels'])} with "
        f"true labels and {points(gap['shuffled_labels'])} with shuffled ones."
    )


def _explained(cam: Mapping[str, Any] | None) -> str:
    if cam is None:
        return "No maps were made."
    pattern = cam["referenced"]["ad"]["ad_pattern"]
    found = (
        "Against the simulated deficit: AUROC of the z-scored attribution maps "
        f"{interval(cam['truth']['scores']['referenced']['auroc'])}."
        if cam["truth"]["scans"]
        else "There is no known deficit to score them against."
    )
    alarms = (
        f" {plural(len(cam['alarms']), 'alarm')}: log-odds from outside the brain." if cam["alarms"] else ""
    )
    return (
        f"Class activation maps (CAM) and z-scored attribution maps of every test scan. "
        f"{percent(pattern['mass'])} of the AD group's z-scored map lies where Alzheimer's disease begins, "
        f"{number(pattern['over_volume'], 1)} times its share of the brain. {found}{alarms}"
    )


def _reproducible(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"Lineage {facts['id']}: data {facts['data']}, split {facts['split'][:16]}, commit "
        f"{facts['commit']}, code {facts['code']}, seed {facts['seed']}, {_plain(facts['backend'])}; "
        f"{versions}. `dvc repro` reproduces the weights with the same number of threads."
    )


def _plain(text: str) -> str:
    """Escape Markdown."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(table: Table) -> str:
    """Return a table as Markdown, its caption above it."""
    lines = [table.columns, ["---"] + ["---:" if table.numeric else "---"] * (len(table.columns) - 1)]
    body = [tuple(map(_plain, row)) for row in table.rows]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *body])
    return f"{_plain(table.caption)}:\n\n{rows}"
