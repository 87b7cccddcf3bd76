"""External validation: score the exported model on another labelled collection."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.duplicates import coarse_brain, find_duplicates
from adpet.cohort.scans import DIAGNOSES, SCAN_COLUMNS, Collection
from adpet.cohort.splits import read_split
from adpet.contracts import (
    EvaluationDocument,
    ExternalDocument,
    TrainingRun,
    ValidationDocument,
    read_contract,
    write_contract,
)
from adpet.errors import InputError, LeakageError
from adpet.evaluation import metrics as scoring
from adpet.evaluation.aggregation import PREDICTION_COLUMNS, Pooling
from adpet.evaluation.aggregation import subject_probabilities as subjects_of
from adpet.evaluation.baselines import LinearModel, image_features
from adpet.evaluation.comparison import SUBGROUP_COLUMNS, paired_differences, subgroup_table, subject_facts
from adpet.evaluation.external import decision_table
from adpet.imaging.nifti import read_volume
from adpet.inference.exported_model import BASELINES, ExportedModel, open_model
from adpet.inference.predictor import answer_row
from adpet.parallel import map_in_processes, progress
from adpet.params import Params
from adpet.reporting.external import SUBJECT_COLUMNS, External, empty_html, external_html
from adpet.stages.common.checks import hashed
from adpet.stages.common.tables import write_table
from adpet.stages.ingest import collection_at, require_lab_remote, tables_inside
from adpet.storage import atomic_write, read_json

# The part of external subjects in a predictions table.
EXTERNAL = "external"
# Of `adpet validate`: the folder of a recalibrated model, and the document next to it.
RECALIBRATED, VALIDATION = "recalibrated", "validation.json"
# MLflow's names of tags hold 250 characters.
LONGEST_NAME = 100
REPORT = "report.html"
# The tables, with the columns of empty ones.
TABLES: dict[str, Sequence[str]] = {
    "predictions.csv": PREDICTION_COLUMNS,
    "subjects.csv": (*SUBJECT_COLUMNS, "baseline"),
    "refused.csv": ("scan", "reason"),
    "flagged.csv": ("scan", "flagged"),
    "subgroups.csv": tuple(SUBGROUP_COLUMNS),
    "decisions.csv": ("probability", "network"),
}


class TrainingData(NamedTuple):
    """Training subjects and scans, as far as they are here.

    `subjects` are hashed ids, None if the model does not come with them; `volumes` are normalized training
    scans by name.
    """

    subjects: frozenset[str] | None
    volumes: dict[str, Path]

    def checks(self, *, by_id: bool) -> list[str]:
        """List what the collection is searched for."""
        ids = ["training subjects by id"] if self.subjects is not None and by_id else []
        return ids + ([f"copies of {len(self.volumes)} training scans"] if self.volumes else [])


def run(params: Params) -> None:
    """Write the results, empty without a collection; log them."""
    external, folder, raw = params.external, paths.EXTERNAL.parent, Path(params.external.raw)
    if raw.is_dir() and all(path.name.startswith(".") for path in raw.iterdir()):
        # dvc.yaml has this stage in any case.
        for name, columns in TABLES.items():
            write_table(pd.DataFrame(columns=list(columns)), folder / name)
        _write_page(folder, empty_html())
        write_contract(paths.EXTERNAL, {"validation": None}, ExternalDocument)
        return
    require_lab_remote(raw)
    found = validate(
        raw,
        open_model(paths.EXPORT),
        params,
        name=collection_name(raw.resolve().name),
        settings={"layout": external.layout, **tables_inside(external, params)},
        score_only=external.score_only,
        other_people=external.other_people,
    )
    write_results(folder, found)
    write_contract(paths.EXTERNAL, {"validation": found.document}, ExternalDocument)
    from adpet.tracking.validation import log_validation

    log_validation(found.document, paths.EXTERNAL, experiment=params.tracking.experiment)


def validate(
    cohort: Path,
    model: ExportedModel,
    params: Params,
    *,
    name: str,
    settings: Mapping[str, Any],
    score_only: Iterable[str],
    other_people: bool,
    least: int = 1,
) -> External:
    """Score a collection with a model as it is.

    `settings` say how the collection is read; `least` is the number of subjects that each diagnosis needs.
    LeakageError if a subject or a scan is one of the training.
    """
    # In this process: joblib takes a worker for leaking if its first call was a small one.
    settings = {**settings, "each": map, "frames_minutes": model.document["standard"]["frames_minutes"]}
    settings["score_only"] = ()
    collection = collection_at(cohort, params, **settings)
    others = _with_diagnoses(cohort, score_only, params, settings)
    scans, training = pd.concat([collection.scans, others]), _training_data(model)
    _require_scorable(collection.scans, least)
    if not other_people:
        _refuse_training_subjects(scans, training)
    answer_one = partial(_answered, model=model, compared=bool(training.volumes))
    rows = scans.to_dict("records")
    compute = params.compute
    done = map_in_processes(answer_one, rows, workers=compute.workers, cluster=compute.cluster)
    shown = progress(done, label="validate", unit="scan", total=len(rows))
    answers, maps = _with_mean_maps(shown, collection.scans)
    _refuse_copies(answers, training)
    checks = training.checks(by_id=not other_people)
    found = _scored(name, collection, answers, model, params, leakage_checks=checks)
    return _with_others(replace(found, maps=maps), others, answers, model)


def collection_name(name: str) -> str:
    """Make a name fit folders, runs and tags."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:LONGEST_NAME] or "collection"


def write_results(folder: Path, found: External) -> None:
    """Write the tables and the page."""
    network = pd.concat([found.subjects, found.others]).assign(baseline="")
    baselines = [subjects.assign(baseline=name) for name, subjects in found.baselines.items()]
    unusable = found.unusable.rename(columns={"file": "scan"})[["scan", "reason"]]
    tables = (
        found.predictions,
        pd.concat([network, *baselines]),
        pd.concat([found.refused, unusable]),
        found.flagged,
        found.subgroups,
        found.decisions,
    )
    for name, table in zip(TABLES, tables, strict=True):
        write_table(table, folder / name)
    _write_page(folder, external_html(found))


def _write_page(folder: Path, text: str) -> None:
    with atomic_write(folder / REPORT) as aside:
        aside.write_text(text, encoding="utf-8")


def _with_diagnoses(
    cohort: Path, named: Iterable[str], params: Params, settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the scans of other diagnoses, in a column `group`."""
    words = {word.casefold() for word in params.cohort.diagnosis_map}
    tables = []
    for word in dict.fromkeys(named):
        # The reader takes diagnoses that the map knows: this one, in the place of CN.
        only: dict[str, Any] = {"diagnosis_map": {word: "CN"}, "diagnosis": "visit"}
        scans = collection_at(cohort, params, **settings, **only).scans
        if word.casefold() in words or scans.empty:
            raise InputError(
                f"--score-only, external.score_only: required diagnoses in {cohort} that "
                f"cohort.diagnosis_map does not name; received {word!r}"
            )
        tables.append(scans.assign(group=word))
    return pd.concat(tables) if tables else pd.DataFrame(columns=[*SCAN_COLUMNS, "group"])


def _require_scorable(scans: pd.DataFrame, least: int) -> None:
    """Refuse, before hours of work, what cannot be scored."""
    counts = scans.groupby("diagnosis")["subject"].nunique().reindex(list(DIAGNOSES), fill_value=0)
    if counts.min() < least:
        received = " and ".join(f"{count} {diagnosis}" for diagnosis, count in counts.items())
        raise InputError(
            f"required {least} subjects or more of each diagnosis; received {received}; see "
            "cohort.diagnosis_map"
        )


def _training_data(model: ExportedModel) -> TrainingData:
    """Find the model's training subjects and scans."""
    subjects, volumes = None, {}
    if model.name.startswith("models:/"):
        from adpet.tracking.registry import evidence_of, version_of

        subjects = evidence_of(version_of(model.name)).known
    if paths.RUN.exists():
        trained = read_contract(paths.RUN, TrainingRun)
        if trained.lineage.id == model.document["lineage"]["id"]:
            subjects = frozenset([*trained.trained_on, *trained.validated_on])
            split = read_split(paths.SPLIT)
            scans = split.loc[split["part"] != "test", "scan"].unique()
            volumes = {scan: paths.VOLUMES / f"{scan}.nii" for scan in scans}
            if missing := [path for path in volumes.values() if not path.exists()]:
                raise InputError(
                    f"{missing[0]}: required the scans of the model's training, to look for copies; received "
                    f"none of {len(missing)}; run: dvc checkout"
                )
    validation = model.folder.parent / VALIDATION
    if model.folder.name == RECALIBRATED and validation.exists():
        recalibration = read_contract(validation, ValidationDocument).recalibration
        subjects = frozenset([*(subjects or []), *(recalibration.fitted_on if recalibration else [])])
    return TrainingData(subjects, volumes)


def _refuse_training_subjects(scans: pd.DataFrame, training: TrainingData) -> None:
    """Refuse subjects with an id of the training."""
    trained_on = training.subjects or frozenset()
    shared = [subject for subject in sorted(set(scans["subject"])) if hashed([subject])[0] in trained_on]
    if shared:
        raise LeakageError(
            f"required subjects that the model has not seen; {len(shared)} of {scans['subject'].nunique()} "
            f"have ids of its training, the first is {shared[0]}; leave them out, or, if the collection "
            "numbers other people alike, add --other-people (the stage: external.other_people: true)"
        )


def _refuse_copies(answers: Sequence[Mapping[str, Any]], training: TrainingData) -> None:
    """Refuse images of the training under any name."""
    asked = [row for row in answers if "brain" in row]
    if not asked or not training.volumes:
        return
    brains = [coarse_brain(read_volume(path)) for path in training.volumes.values()]
    brains += [row["brain"] for row in asked]
    names = [*training.volumes, *(row["scan"] for row in asked)]
    # Copies within one side are no leak.
    sides = ["training"] * len(training.volumes) + [EXTERNAL] * len(asked)
    if pairs := find_duplicates(np.stack(brains), sides):
        first = pairs[0]
        raise LeakageError(
            f"required scans that the model has not seen; {len({pair.second for pair in pairs})} are images "
            f"of its training, the first is {names[first.second]}, the same as {names[first.first]} "
            f"(correlation {first.correlation:.2f}); leave them out"
        )


def _answered(row: Mapping[str, Any], *, model: ExportedModel, compared: bool) -> dict[str, Any]:
    """Answer one scan, or say why it is refused."""
    found = answer_row(row, model)
    if isinstance(found, str):
        return {"scan": row["scan"], "reason": found}
    baselines = _baselines(model.folder)
    features = image_features(found.suvr.data, model.document["standard"]["grid_mm"]) if baselines else {}
    checks = found.document["checks"]
    return {
        "scan": row["scan"],
        "probability": [plane["probability_of_ad"] for plane in found.document["slices"]],
        "flagged": "; ".join(check["finding"] for check in checks if check["verdict"] == "flagged"),
        "baselines": {
            name: float(baseline.probability(features[name][None])[0]) for name, baseline in baselines.items()
        },
        "maps": {name: volume.data for name, volume in found.volumes.items()},
        **({"brain": coarse_brain(found.suvr)} if compared else {}),
    }


@lru_cache(maxsize=1)
def _baselines(folder: Path) -> dict[str, LinearModel]:
    """Read the baselines that the model comes with, if any."""
    path = folder / BASELINES
    return {name: LinearModel.of(saved) for name, saved in read_json(path).items()} if path.exists() else {}


def _with_mean_maps(
    answers: Iterable[dict[str, Any]], scans: pd.DataFrame
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the answers, and their maps' means by group.

    One scan's maps are in memory at a time.
    """
    group, kept = scans.set_index("scan")["diagnosis"].str.lower(), []
    sums: dict[str, Any] = {}
    for row in answers:
        for name, values in row.pop("maps", {}).items():
            if row["scan"] not in group:
                continue
            key = f"{name}_{group[row['scan']]}"
            sums[key] = sums.get(key, 0) + np.append(values.astype(np.float64).ravel(), 1.0)
        kept.append(row)
    return kept, {key: total[:-1] / total[-1] for key, total in sums.items()}


def _scored(
    name: str,
    collection: Collection,
    answers: Iterable[dict[str, Any]],
    model: ExportedModel,
    params: Params,
    *,
    leakage_checks: list[str],
) -> External:
    """Score the answers with the model's own threshold."""
    scans, rejected = collection.scans, collection.rejected
    facts = scans.set_index("scan")
    refused = pd.DataFrame([row for row in answers if "reason" in row], columns=["scan", "reason"])
    given = [row for row in answers if "reason" not in row and row["scan"] in facts.index]
    groups = {facts["diagnosis"][row["scan"]] for row in given}
    if len(groups) < 2:
        raise InputError(
            f"required answered scans of AD and of CN; received {' and '.join(sorted(groups)) or 'none'}, "
            f"{len(refused)} scans refused, the first: {refused['reason'].iloc[0] if len(refused) else '-'}"
        )
    predictions = _table(facts, [(row["scan"], row["probability"]) for row in given])
    pooling, threshold = Pooling.of(model.document["aggregation"]), model.document["threshold"]
    options: dict[str, Any] = {"seed": params.seed, "resamples": params.evaluate.resamples}
    # The threshold is the model's own: no validation subject chooses one.
    no_validation = predictions.head(0)
    metrics = scoring.evaluation(predictions, no_validation, pooling=pooling, threshold=threshold, **options)
    metrics |= {"baselines": {}, "differences": {}, "leakage": {"leaky": int(model.leaky)}}
    subjects = subjects_of(predictions, pooling)
    strategies = {"network": subjects["probability"].to_numpy(np.float64)}
    baselines = {}
    for baseline, linear in _baselines(model.folder).items():
        table = _table(facts, [(row["scan"], [row["baselines"][baseline]]) for row in given])
        scored = scoring.evaluation(
            table, no_validation, pooling=Pooling(), threshold=linear.threshold, **options
        )
        metrics["baselines"][baseline] = {**scored["subject"], "threshold": linear.threshold}
        baselines[baseline] = subjects_of(table, Pooling())
        metrics["differences"][baseline] = paired_differences(subjects, baselines[baseline], **options)
        strategies[baseline] = baselines[baseline]["probability"].to_numpy(np.float64)
    truth = (subjects["diagnosis"] == "AD").to_numpy()
    document = {
        "model": model.name,
        "lineage": model.document["lineage"]["id"],
        "cohort": name,
        "answered": len(given),
        "refused": len(refused),
        "flagged": sum(bool(row["flagged"]) for row in given),
        "unusable": int((rejected["kind"] == "unusable").sum()),
        "skipped": int((rejected["kind"] != "unusable").sum()),
        "leaky": model.leaky,
        "leakage_checks": leakage_checks,
        "own_auc": model.document["performance"]["auc"],
        "training_prevalence": (model.document["out_of_fold"] or {}).get("prevalence"),
        "evaluation": EvaluationDocument.model_validate(metrics).document(),
        "recalibration": None,
        "score_only": {},
    }
    answered = scans[scans["scan"].isin([row["scan"] for row in given])]
    return External(
        document=ValidationDocument.model_validate(document).document(),
        predictions=predictions,
        subjects=subjects,
        baselines=baselines,
        refused=refused,
        unusable=rejected[rejected["kind"] == "unusable"],
        flagged=pd.DataFrame(given, columns=["scan", "flagged"]).query("flagged != ''"),
        subgroups=subgroup_table(subjects, subject_facts(answered), threshold=threshold),
        decisions=decision_table(truth, strategies),
        affine=model.standard.template.affine,
        underlay=model.standard.template.data,
        seed=params.seed,
        resamples=params.evaluate.resamples,
    )


def _with_others(
    found: External, others: pd.DataFrame, answers: Iterable[dict[str, Any]], model: ExportedModel
) -> External:
    """Add the scores of people with other diagnoses."""
    given = {row["scan"]: row["probability"] for row in answers if "reason" not in row}
    pooling, tables, groups = Pooling.of(model.document["aggregation"]), [found.others], {}
    for diagnosis, scans in others[others["scan"].isin(list(given))].groupby("group", sort=False):
        table = _table(scans.set_index("scan"), [(scan, given[scan]) for scan in scans["scan"]])
        subjects = subjects_of(table, pooling).assign(diagnosis=diagnosis)
        groups[diagnosis] = {
            "subjects": len(subjects),
            "predicted_ad": float((subjects["probability"] >= model.document["threshold"]).mean()),
            "quartiles": subjects["probability"].quantile([0.25, 0.5, 0.75]).tolist(),
        }
        tables.append(subjects)
    # The reader skipped them, as of neither AD nor CN.
    changed = {"score_only": groups, "skipped": found.document["skipped"] - len(others)}
    document = ValidationDocument.model_validate(found.document | changed).document()
    return replace(found, document=document, others=pd.concat(tables))


def _table(facts: pd.DataFrame, given: Sequence[tuple[str, Sequence[float]]]) -> pd.DataFrame:
    """Return a predictions table of each scan's values."""
    rows = [
        (scan, index, *facts.loc[scan, ["subject", "session", "diagnosis"]], EXTERNAL, value)
        for scan, values in given
        for index, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
