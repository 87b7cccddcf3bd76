"""Score the held-out test subjects, with intervals, baselines and figures."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from adpet import paths
from adpet.cohort.scans import read_scans, read_typed
from adpet.cohort.splits import fold_name, read_split
from adpet.contracts import EvaluationDocument, TrainingRun, read_contract
from adpet.evaluation import baselines
from adpet.evaluation import metrics as scoring
from adpet.evaluation.aggregation import PREDICTION_COLUMNS, Pooling, fit_pooling, subject_probabilities
from adpet.evaluation.baselines import LinearModel
from adpet.evaluation.comparison import findings, paired_differences, subgroup_table, subject_facts
from adpet.imaging.nifti import read_volume
from adpet.learning import limit_threads
from adpet.learning.checkpoint import load_model
from adpet.learning.training import predict
from adpet.parallel import progress
from adpet.params import Params
from adpet.reporting import performance_figures as plots
from adpet.reporting.performance import result_tables
from adpet.reporting.style import save_figure
from adpet.stages.common.checks import hashed, reads_simulated, refuse_trained_on
from adpet.stages.common.fitting import slice_refs
from adpet.stages.common.tables import VALIDATION_COLUMNS, read_results, write_table
from adpet.stages.common.tracking import log_to_training
from adpet.storage import write_json


class Baseline(NamedTuple):
    """Predictions of a baseline; its model if of images.

    The model is of values as they are, since no effects of another cohort's scanners are known; `adjusted`
    says how those of the predictions differ.
    """

    test: pd.DataFrame
    out_of_fold: pd.DataFrame
    model: LinearModel | None
    adjusted: dict[str, Any] | None = None


def fitted_baselines(split: pd.DataFrame, params: Params) -> dict[str, Baseline]:
    """Fit every baseline on training subjects; predict the test subjects.

    A fact that no scan has, such as the site of a single hospital's cohort, gives no baseline.
    """
    grid_mm = params.normalize.grid_mm
    facts = read_scans(paths.SCANS)[["scan", "session", "age", "sex", "site", "scanner"]]
    scans = split.drop_duplicates("scan")[["scan", "subject", "diagnosis", "part"]]
    scans = scans.merge(facts, on="scan", how="left", validate="one_to_one")
    training = (scans["part"] != "test").to_numpy()
    shown = progress(scans["scan"], label="baselines", unit="scan", total=len(scans))
    images = [
        baselines.image_features(read_volume(paths.VOLUMES / f"{scan}.nii").data, grid_mm) for scan in shown
    ]
    found = {}
    for name in list(images[0]):
        features = np.array([image.pop(name) for image in images])  # freed before the fit
        model = baselines.voxel_model() if name == "voxels" else baselines.region_model()
        tables = baselines.baseline_predictions(features, scans, training=training, model=model)
        threshold = scoring.choose_threshold(subject_probabilities(tables[1], Pooling()))
        linear = baselines.linear_model(model, features[training], threshold=threshold)
        found[name] = Baseline(*tables, linear)
        if name != "voxels" and (params.evaluate.harmonize != "none" or params.evaluate.residualise):
            found[name] = _adjusted(linear, features, scans, params)
    for name, columns in baselines.FACTS.items():
        if baselines.is_known(scans, columns):
            model = baselines.fact_model(columns)
            tables = baselines.baseline_predictions(
                scans[list(columns)], scans, training=training, model=model
            )
            found[name] = Baseline(*tables, None)
    return found


def _adjusted(
    plain: LinearModel, features: baselines.FeatureArray, scans: pd.DataFrame, params: Params
) -> Baseline:
    """Return a regional baseline's predictions from adjusted values."""
    from adpet.evaluation.adjustment import BATCH, Adjustment

    training = (scans["part"] != "test").to_numpy()
    batch = "scanner" if baselines.is_known(scans, ["scanner"]) else "site"
    harmonize, residualise = params.evaluate.harmonize == "combat", params.evaluate.residualise
    adjustment = Adjustment(harmonize=harmonize, residualise=residualise)
    table = pd.DataFrame(features).assign(**{BATCH: scans[batch], "age": scans["age"], "sex": scans["sex"]})
    model = baselines.region_model(adjustment)
    tables = baselines.baseline_predictions(table, scans, training=training, model=model)
    how = {"harmonized_by": batch if harmonize else None, "residualised": list(residualise)}
    return Baseline(*tables, plain, how | adjustment.left(table[~training]))


def draw() -> None:
    """Draw all figures from the written tables."""
    metrics = read_contract(paths.EVALUATION, EvaluationDocument).document()
    figures = {
        "roc": plots.roc_figure(read_results(paths.ROC), read_results(paths.ROC_BAND), metrics=metrics),
        "precision_recall": plots.precision_recall_figure(
            read_results(paths.PRECISION_RECALL), metrics=metrics
        ),
        "calibration": plots.calibration_figure(read_results(paths.CALIBRATION), metrics=metrics),
        "confusion": plots.confusion_figure(metrics),
        "probabilities": plots.probability_figure(
            read_results(paths.SUBJECTS), threshold=metrics["threshold"]
        ),
        "baselines": plots.baselines_figure(metrics),
        "subgroups": plots.subgroups_figure(read_results(paths.SUBGROUPS)),
    }
    for name, figure in figures.items():
        save_figure(figure, paths.EVALUATE / f"{name}.png")


def run(params: Params) -> None:
    """Write predictions, metrics, tables and figures; log to MLflow."""
    trained = read_contract(paths.RUN, TrainingRun)
    split = read_split(paths.SPLIT)
    leaky = trained.leaky
    tested = split[split["part"] == "test"]
    # Without folds only tested subjects could choose a threshold: it stays 0.5, as in 2019.
    validation = read_typed(paths.VALIDATION, VALIDATION_COLUMNS)
    if not leaky:
        refuse_trained_on(trained.trained_on, hashed(tested["subject"]))
        for number, fold in enumerate(trained.folds):
            own = validation.loc[validation["part"] == fold_name(number), "subject"]
            refuse_trained_on(fold.trained_on, hashed(own))
    limit_threads(params.compute.threads)
    probability = predict(load_model(paths.MODEL), slice_refs(tested), batch_size=params.train.batch_size)
    tested = tested.assign(probability=probability.astype("float64"))
    predictions = pd.concat([tested, validation], ignore_index=True)
    sessions = read_scans(paths.SCANS).set_index("scan")["session"]
    predictions = predictions.assign(session=predictions["scan"].map(sessions))[list(PREDICTION_COLUMNS)]
    is_test = predictions["part"] == "test"
    test, validation = predictions[is_test], predictions[~is_test]
    positions = int(split["index"].max()) + 1
    pooling = fit_pooling(validation, params.evaluate.aggregation, positions=positions)
    metrics = scoring.evaluation(
        test,
        validation,
        seed=params.seed,
        resamples=params.evaluate.resamples,
        allow_shared_subjects=leaky,
        pooling=pooling,
        threshold=scoring.even_threshold(validation),
    )
    subjects = subject_probabilities(test, pooling)
    compared = {} if leaky else fitted_baselines(split, params)
    metrics |= {**_compared(subjects, compared, params), "leakage": {"leaky": int(leaky)}}
    if compared and (adjusted := compared["atlas"].adjusted):
        metrics["adjusted"] = adjusted
    metrics |= _oracle(subjects, test, params)
    write_table(predictions, paths.PREDICTIONS)
    write_json(paths.POOLING, pooling.document())
    _write_baselines(compared)
    _write_tables(subjects, test, metrics, params)
    write_json(paths.FINDINGS, {"lineage": trained.lineage.id, **findings(metrics)})
    found = EvaluationDocument.model_validate(metrics)
    write_json(paths.EVALUATION, found.document())
    write_json(paths.METRICS, found.headline())
    draw()
    # In no folder: of two runs, MLflow's comparison shows side by side only the files at the top.
    files = [paths.EVALUATION, paths.FINDINGS, paths.SUBGROUPS]
    files += sorted(paths.EVALUATE.glob("*.png"))
    tables = result_tables(found.document(), read_results(paths.SUBGROUPS))
    log_to_training(params, {None: files}, found.logged(), tables)


def _compared(subjects: pd.DataFrame, compared: dict[str, Baseline], params: Params) -> dict[str, Any]:
    """Return each baseline's metrics, and its paired differences."""
    options: dict[str, Any] = {"seed": params.seed, "resamples": params.evaluate.resamples}
    document: dict[str, Any] = {"baselines": {}, "differences": {}}
    for name, baseline in compared.items():
        # One row a scan: what is averaged is a subject's visits.
        scored = scoring.evaluation(baseline.test, baseline.out_of_fold, pooling=Pooling(), **options)
        document["baselines"][name] = {**scored["subject"], "threshold": scored["threshold"]}
        other = subject_probabilities(baseline.test, Pooling())
        document["differences"][name] = paired_differences(subjects, other, **options)
    return document


def _oracle(subjects: pd.DataFrame, test: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Return the simulated severity's AUC, if there is one."""
    path = paths.SIMULATED_TRUTH / "severity.tsv"
    if not reads_simulated(params) or not path.exists():
        return {}
    severity = pd.read_csv(path, sep="\t", dtype={"scan": "str"}).set_index("scan")["severity"]
    scans = test.drop_duplicates("scan").assign(severity=lambda table: table["scan"].map(severity))
    of_subject = scans.groupby("subject")["severity"].mean().reindex(subjects["subject"]).to_numpy(np.float64)
    if np.isnan(of_subject).any():
        return {}
    options: dict[str, Any] = {"seed": params.seed, "resamples": params.evaluate.resamples}
    return {"oracle": {"auc": scoring.oracle_auc(subjects, of_subject, **options)}}


def _write_baselines(compared: dict[str, Baseline]) -> None:
    tables = [table.assign(baseline=name) for name, each in compared.items() for table in each[:2]]
    columns = ["baseline", "scan", "index", "subject", "session", "diagnosis", "part", "probability"]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
    write_table(table[columns], paths.BASELINE_PREDICTIONS)
    models = {name: each.model.document() for name, each in compared.items() if each.model}
    write_json(paths.BASELINE_MODELS, models)


def _write_tables(
    subjects: pd.DataFrame, test: pd.DataFrame, metrics: dict[str, Any], params: Params
) -> None:
    """Write all that the figures are drawn from."""
    threshold, scans = metrics["threshold"], read_scans(paths.SCANS)
    facts = subject_facts(scans[scans["scan"].isin(test["scan"])])
    called = (subjects["probability"] >= threshold).map({True: "AD", False: "CN"})
    tables = {
        paths.SUBJECTS: subjects.assign(called=called),
        paths.SUBGROUPS: subgroup_table(subjects, facts, threshold=threshold),
        paths.ROC: scoring.roc_curves(subjects, test),
        paths.ROC_BAND: scoring.roc_band(subjects, seed=params.seed, resamples=params.evaluate.resamples),
        paths.PRECISION_RECALL: scoring.precision_recall_curves(subjects, test),
        paths.CALIBRATION: scoring.calibration_points(subjects, test),
    }
    for path, table in tables.items():
        write_table(table, path)
