"""External validation: score a model on another labelled collection."""

import argparse
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cluster import clusters
from adpet.cohort.duplicates import coarse_brain, find_duplicates
from adpet.cohort.scans import DIAGNOSES, SCAN_COLUMNS, Collection
from adpet.cohort.splits import read_split
from adpet.commands.doctor import add_collection_arguments, collection_at
from adpet.commands.predict import opened, require_cluster
from adpet.contracts import EvaluationDocument, TrainingRun, ValidationDocument, read_contract
from adpet.errors import AdpetError, InputError, LeakageError
from adpet.evaluation import metrics as scoring
from adpet.evaluation.aggregation import PREDICTION_COLUMNS, Pooling, out_of_fold_quantiles
from adpet.evaluation.aggregation import subject_probabilities as subjects_of
from adpet.evaluation.baselines import LinearModel, image_features
from adpet.evaluation.bootstrap import subject_resamples
from adpet.evaluation.comparison import paired_differences, subgroup_table, subject_facts
from adpet.evaluation.external import FOLDS, decision_table, net_benefit, recalibrated
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import read_header, read_volume
from adpet.inference.exported_model import BASELINES, DOCUMENT, ExportedModel
from adpet.inference.predictor import OLDEST, YOUNGEST, RefusedError, answer
from adpet.inference.quality import refused_by
from adpet.parallel import map_in_processes, progress
from adpet.params import Params, load_params
from adpet.reporting.external import External, external_html, leakage_sentence, prevalence_sentence
from adpet.stages.common.checks import hashed
from adpet.stages.common.tables import write_table
from adpet.storage import atomic_write, read_json, write_json

# The part of external subjects in a predictions table, and the prefix of their metrics.
EXTERNAL = "external"
RECALIBRATED, VALIDATION = "recalibrated", "validation.json"
OUTPUTS = {
    VALIDATION, RECALIBRATED, "predictions.csv", "subjects.csv", "refused.csv", "flagged.csv",
    "subgroups.csv", "decisions.csv", "report.html",
}  # fmt: skip
# MLflow's names of tags hold 250 characters.
LONGEST_NAME = 100


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model", help="an exported model's folder, models:/NAME/VERSION or models:/NAME@ALIAS"
    )
    parser.add_argument(
        "--cohort", type=Path, required=True, metavar="DIR", help="BIDS, ADNI or a flat folder"
    )
    parser.add_argument("--name", help="name of the collection in the results (default: its folder)")
    add_collection_arguments(parser)
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder of the results (default: validation_NAME)"
    )
    parser.add_argument(
        "--score-only",
        default="",
        metavar="DIAGNOSES",
        help="other diagnoses, such as MCI,FTD: scored and shown, but in no metric",
    )
    parser.add_argument(
        "--recalibrate",
        choices=["all", "cn"],
        help="also fit a new intercept, cross-fitted, to all subjects or to the CN alone",
    )
    parser.add_argument(
        "--other-people",
        action="store_true",
        help="the collection numbers its subjects as the training's did, and they are other people",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--cluster", help="where they run: as compute.cluster in params.yaml (docs/cluster.md)"
    )


def main(
    *,
    model: str,
    cohort: Path,
    name: str | None,
    layout: str,
    table: Path | None,
    diagnosis_table: Path | None,
    output: Path | None,
    score_only: str,
    recalibrate: Any,
    other_people: bool,
    workers: int,
    cluster: str | None,
) -> str:
    """Score the collection; write the results, return the summary."""
    require_cluster(workers, cluster)
    params = load_params() if paths.PARAMS.exists() else Params()
    # Part of the names of a folder, a run and a tag.
    name = re.sub(r"[^\w.-]+", "_", name or cohort.resolve().name).strip("._")[:LONGEST_NAME] or "collection"
    exported, output = opened(model), output or Path(f"validation_{name}")
    _require_own_folder(output, exported)
    frames = exported.document["standard"]["frames_minutes"]
    # In this process: joblib takes a worker for leaking if its first call was a small one.
    settings: dict[str, Any] = {"layout": layout, "table": table, "diagnosis_table": diagnosis_table}
    settings |= {"frames_minutes": frames, "each": map}
    collection = collection_at(cohort, params, **settings)
    others = _with_diagnoses(cohort, score_only, params, settings)
    scans, training = pd.concat([collection.scans, others]), _training_data(exported)
    _require_scorable(collection.scans, exported, recalibrate)
    if not other_people:
        _refuse_training_subjects(scans, training)
    answer_one = partial(_answered, model=exported, compared=bool(training.volumes))
    rows = scans.to_dict("records")
    done = map_in_processes(answer_one, rows, workers=workers, cluster=cluster)
    with clusters:
        shown = progress(done, label="validate", unit="scan", total=len(rows))
        answers, maps = _with_mean_maps(shown, collection.scans)
    _refuse_copies(answers, training)
    checks = training.checks(by_id=not other_people)
    found = _scored(name, collection, answers, exported, params, leakage_checks=checks)
    found = _with_others(replace(found, maps=maps), others, answers, exported)
    if recalibrate:
        found = _recalibrate(found, exported, params, reference=recalibrate)
    _write(output, found, exported)
    _log(exported, params, output, found)
    return "\n".join(_summary(found, output))


def _require_own_folder(output: Path, model: ExportedModel) -> None:
    """Refuse to replace other things than an earlier validation."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: required a folder; received a file; name another with --output")
    if output.is_dir() and (others := {path.name for path in output.iterdir()} - OUTPUTS):
        raise InputError(
            f"{output}: required a new folder, or one of an earlier validation; received one with "
            f"{min(others)}; name another with --output"
        )
    if model.folder.is_relative_to(output.resolve()):
        raise InputError(f"{output}: required a folder apart from the model's; name another with --output")


def _with_diagnoses(cohort: Path, named: str, params: Params, settings: dict[str, Any]) -> pd.DataFrame:
    """Return the scans of other diagnoses, in a column `group`."""
    words = {word.casefold() for word in params.cohort.diagnosis_map}
    tables = []
    for word in dict.fromkeys(filter(None, map(str.strip, named.split(",")))):
        # The reader takes diagnoses that the map knows: this one, in the place of CN.
        only: dict[str, Any] = {"diagnosis_map": {word: "CN"}, "diagnosis": "visit"}
        scans = collection_at(cohort, params, **settings, **only).scans
        if word.casefold() in words or scans.empty:
            raise InputError(
                f"--score-only: required diagnoses in {cohort} that cohort.diagnosis_map does not name; "
                f"received {word!r}"
            )
        tables.append(scans.assign(group=word))
    return pd.concat(tables) if tables else pd.DataFrame(columns=[*SCAN_COLUMNS, "group"])


def _require_scorable(scans: pd.DataFrame, model: ExportedModel, recalibrate: str | None) -> None:
    """Refuse, before hours of work, what cannot be scored."""
    counts = scans.groupby("diagnosis")["subject"].nunique().reindex(list(DIAGNOSES), fill_value=0)
    needed = FOLDS if recalibrate else 1
    if counts.min() < needed:
        received = " and ".join(f"{count} {diagnosis}" for diagnosis, count in counts.items())
        raise InputError(
            f"required {needed} subjects or more of each diagnosis; received {received}; see "
            "cohort.diagnosis_map"
        )
    if recalibrate == "cn" and not model.document["out_of_fold"]:
        raise InputError(
            "--recalibrate cn: required a model with out-of-fold predictions; this one has none; use "
            "--recalibrate all"
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
            "numbers other people alike, add --other-people"
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
    seconds = [float(value) for value in row["frame_seconds"].split()] or None
    age = row["age"] if YOUNGEST <= row["age"] <= OLDEST else None
    named = [str(Path(row["path"]).resolve()), row["path"], Path(row["path"]).name]
    try:
        with as_nifti(Path(row["path"])) as image:
            named.insert(0, str(image))
            header = read_header(image)
            volume = read_volume(image, frame_seconds=seconds, steady=True)
        grid: dict[str, Any] = {"shape": header.shape, "affine": header.affine}
        found = answer(volume, model, name=row["scan"], age=age, scanner=row["scanner"], **grid)
    except RefusedError as error:
        return {"scan": row["scan"], "reason": "; ".join(refused_by(error.document["checks"]))}
    except (AdpetError, OSError) as error:
        reason = str(error)
        # A path may hold a subject's id, and the report must not.
        for path in named:
            reason = reason.replace(path, "the scan")
        return {"scan": row["scan"], "reason": reason}
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


def _recalibrate(found: External, model: ExportedModel, params: Params, *, reference: Any) -> External:
    """Add a new intercept, and the model with it."""
    folds = model.document["out_of_fold"]
    usual = folds["quantiles"]["CN"][folds["coverages"].index(0.5)] if reference == "cn" else None
    after, shift = recalibrated(found.subjects, usual_cn=usual, seed=params.seed)
    truth = (after["diagnosis"] == "AD").to_numpy()
    threshold = float(truth.mean()) if reference == "all" else model.document["threshold"]
    scores = scoring.level_intervals(
        truth,
        np.arange(truth.size),
        after["probability"].to_numpy(np.float64),
        threshold=threshold,
        counts=subject_resamples(truth, resamples=params.evaluate.resamples, seed=params.seed),
    )
    table = after.assign(scan=after["subject"], index=0, session="", part=EXTERNAL)
    out_of_fold = out_of_fold_quantiles(table, Pooling("mean_logit"))
    if out_of_fold and folds and reference == "cn":
        out_of_fold["prevalence"] = folds["prevalence"]
    pooling = model.document["aggregation"]
    changed = model.document | {
        "aggregation": pooling | {"intercept": round(pooling["intercept"] + shift, 9)},
        "out_of_fold": out_of_fold,
        "threshold": threshold,
        "calibration": scoring.calibration_bins(after),
        "performance": {"auc": found.document["evaluation"]["subject"]["auc"], "test_subjects": len(after)},
        "leaky": model.leaky,
    }
    confusion = scoring.confusion(after, threshold)
    recalibration: dict[str, Any] = {
        "reference": reference,
        "shift": shift,
        "threshold": threshold,
        "fitted_on": hashed(after["subject"]),
        "subject": {**scores, "confusion": confusion},
    }
    document = ValidationDocument.model_validate(found.document | {"recalibration": recalibration}).document()
    decisions = found.decisions.assign(
        recalibrated=net_benefit(truth, after["probability"].to_numpy(np.float64))
    )
    return replace(found, document=document, decisions=decisions, model_document=changed)


def _write(output: Path, found: External, model: ExportedModel) -> None:
    """Write the results' folder, whole or not at all."""
    with atomic_write(output) as folder:
        folder.mkdir()
        write_json(folder / VALIDATION, found.document)
        write_table(found.predictions, folder / "predictions.csv")
        network = pd.concat([found.subjects, found.others]).assign(baseline="")
        tables = [subjects.assign(baseline=name) for name, subjects in found.baselines.items()]
        write_table(pd.concat([network, *tables]), folder / "subjects.csv")
        unusable = found.unusable.rename(columns={"file": "scan"})[["scan", "reason"]]
        write_table(pd.concat([found.refused, unusable]), folder / "refused.csv")
        write_table(found.flagged, folder / "flagged.csv")
        write_table(found.subgroups, folder / "subgroups.csv")
        write_table(found.decisions, folder / "decisions.csv")
        (folder / "report.html").write_text(external_html(found), encoding="utf-8")
        if found.model_document:
            shutil.copytree(model.folder, folder / RECALIBRATED)
            write_json(folder / RECALIBRATED / DOCUMENT, found.model_document)


def _log(model: ExportedModel, params: Params, output: Path, found: External) -> None:
    """Log a registered version's validation to MLflow."""
    if not model.name.startswith("models:/"):
        return
    from adpet.tracking.validation import log_validation

    log_validation(
        model.name,
        found.document,
        EvaluationDocument.model_validate(found.document["evaluation"]).logged(EXTERNAL),
        files=[output / "report.html", output / VALIDATION, output / "subgroups.csv"],
        experiment=params.tracking.experiment,
    )


def _summary(found: External, output: Path) -> Iterator[str]:
    """Return the figures as lines of text."""
    document, metrics = found.document, found.document["evaluation"]
    subject, counts = metrics["subject"], metrics["counts"]

    def shown(metric: Mapping[str, float]) -> str:
        return f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"

    yield (
        f"cohort     {document['cohort']}: {counts['subjects']} subjects ({counts['subjects_ad']} AD, "
        f"{counts['subjects_cn']} CN), {document['answered']} scans, {document['flagged']} of them flagged; "
        f"{document['refused']} refused, {document['unusable']} unusable, {document['skipped']} skipped"
    )
    if document["leaky"]:
        yield "LEAKY      this model was trained and tested on the same subjects: its own AUC is no result"
    yield f"leakage    {leakage_sentence(document)}"
    yield f"AUC        {shown(subject['auc'])}; on the model's own test subjects {shown(document['own_auc'])}"
    for name, baseline in metrics["baselines"].items():
        lead = metrics["differences"][name]["auc"]
        yield f"           {shown(baseline['auc'])} {name}; network minus it {shown(lead)}"
    yield (
        f"at {metrics['threshold']:.3f}   accuracy {shown(subject['accuracy'])}, sensitivity "
        f"{shown(subject['sensitivity'])}, specificity {shown(subject['specificity'])}"
    )
    yield (
        f"calibrated slope {shown(subject['calibration_slope'])}, intercept "
        f"{shown(subject['calibration_intercept'])}, Brier score {shown(subject['brier'])}"
    )
    if moved := prevalence_sentence(document):
        yield f"           {moved}"
    for diagnosis, group in document["score_only"].items():
        low, middle, high = group["quartiles"]
        yield (
            f"{diagnosis:<10} {group['subjects']} subjects, {group['predicted_ad']:.2f} of them predicted "
            f"AD; probability {middle:.3f} (quartiles {low:.3f} to {high:.3f})"
        )
    if document["recalibration"]:
        after, by = document["recalibration"]["subject"], document["recalibration"]["shift"]
        yield (
            f"shifted    by {by:+.3f}: intercept {shown(after['calibration_intercept'])}, Brier score "
            f"{shown(after['brier'])}, accuracy {shown(after['accuracy'])} at "
            f"{document['recalibration']['threshold']:.3f}; the model: "
            f"{output / RECALIBRATED}"
        )
    yield f"report     {output / 'report.html'}"
