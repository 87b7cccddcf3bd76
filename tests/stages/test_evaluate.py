"""What lies in results/evaluate/ suffices: metrics and figures come out of it again, without the network."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from adpet import paths
from adpet.cohort.splits import read_split
from adpet.evaluation import adjustment
from adpet.params import load_params
from adpet.stages.evaluate import draw, fitted_baselines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def metrics(finished):
    return finished.read_json("results/evaluate/evaluation.json")


def scored(table, weights=None, slope=1.0, intercept=0.0):
    """Weighted mean logits over a scan's slices, then over a subject's scans, calibrated."""
    weight = 1.0 if weights is None else np.array(weights)[table["index"]]
    logit = np.log(table["probability"] / (1 - table["probability"]))
    table = table.assign(logit=logit * weight, weight=weight)
    scans = table.groupby(["subject", "diagnosis", "scan"])[["logit", "weight"]].sum()
    means = (scans["logit"] / scans["weight"]).rename("logit")
    subjects = means.groupby(["subject", "diagnosis"]).mean().reset_index()
    return subjects.assign(probability=1 / (1 + np.exp(-slope * subjects["logit"] - intercept)))


@pytest.fixture(scope="module")
def pooling(finished):
    pooling = finished.read_json("results/evaluate/pooling.json")
    assert pooling.pop("method") == "position_weights"
    return pooling


def agree(found, table, threshold):
    truth, probability = table["diagnosis"] == "AD", table["probability"]
    called = probability >= threshold
    expected = {
        "auc": sk.roc_auc_score(truth, probability),
        "average_precision": sk.average_precision_score(truth, probability),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "sensitivity": sk.recall_score(truth, called),
        "specificity": sk.recall_score(~truth, ~called),
        "brier": sk.brier_score_loss(truth, probability),
        "log_loss": sk.log_loss(truth, probability),
    }
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-6), name


def test_the_metrics_follow_from_predictions_pooling_and_threshold_alone(finished, metrics, pooling):
    predictions = pd.read_csv(finished.root / "results/evaluate/predictions.csv")
    test = predictions[predictions["part"] == "test"]
    agree(metrics["subject"], scored(test, **pooling), metrics["threshold"])
    agree(metrics["slice"], test, metrics["threshold"])


def test_the_threshold_is_the_share_of_ad_among_the_training_subjects(finished, metrics):
    predictions = pd.read_csv(finished.root / "results/evaluate/predictions.csv")
    subjects = predictions[predictions["part"] != "test"].drop_duplicates("subject")
    assert metrics["threshold"] == pytest.approx((subjects["diagnosis"] == "AD").mean())


def test_so_do_the_baselines(finished, metrics, pooling):
    table = pd.read_csv(finished.root / "results/evaluate/baselines.csv")
    test = table[table["part"] == "test"]
    names = {"atlas", "meta_roi", "regions", "voxels", "age_sex", "scanner", "site"}
    assert names == set(metrics["baselines"])
    predictions = pd.read_csv(finished.root / "results/evaluate/predictions.csv").query("part == 'test'")
    network = scored(predictions, **pooling)
    own = sk.roc_auc_score(network["diagnosis"] == "AD", network["probability"])
    for name, found in metrics["baselines"].items():
        subjects = scored(test[test["baseline"] == name])
        agree(found, subjects, found["threshold"])
        other = sk.roc_auc_score(subjects["diagnosis"] == "AD", subjects["probability"])
        assert metrics["differences"][name]["auc"]["value"] == pytest.approx(own - other)
        lead = metrics["subject"]["brier"]["value"] - found["brier"]["value"]
        assert metrics["differences"][name]["brier"]["value"] == pytest.approx(lead)


def test_adjusted_baselines_are_scored_and_stored_as_they_were(finished, metrics, monkeypatch):
    monkeypatch.chdir(finished.root)
    monkeypatch.setattr(adjustment, "FEWEST_HEALTHY", 3)
    params = load_params().with_values({"evaluate.harmonize": "combat", "evaluate.residualise": ["age"]})
    found = fitted_baselines(read_split(paths.SPLIT), params)
    assert found["atlas"].adjusted["harmonized_by"] == "scanner"
    table = pd.read_csv(paths.BASELINE_PREDICTIONS)
    stored = finished.read_json("results/evaluate/baselines.json")
    for name, baseline in found.items():
        plain = table[(table["baseline"] == name) & (table["part"] == "test")]["probability"].to_numpy()
        is_regional = name in {"atlas", "meta_roi", "regions"}
        assert np.allclose(baseline.test["probability"], plain, atol=1e-6) == (not is_regional)
        assert (baseline.adjusted is not None) == is_regional
        assert (baseline.model and baseline.model.document()) == stored.get(name)


def test_the_ceiling_is_the_auc_of_the_true_severity(finished, metrics):
    severity = pd.read_csv(finished.root / "data/simulated/truth/severity.tsv", sep="\t")
    predictions = pd.read_csv(finished.root / "results/evaluate/predictions.csv").query("part == 'test'")
    scans = severity[severity["scan"].isin(predictions["scan"])]
    subjects = scans.groupby(["subject", "diagnosis"])["severity"].mean().reset_index()
    auc = sk.roc_auc_score(subjects["diagnosis"] == "AD", subjects["severity"])
    assert metrics["oracle"]["auc"]["value"] == pytest.approx(auc)


def test_every_tested_subject_stands_in_one_group_of_each_fact(finished, metrics):
    table = pd.read_csv(finished.root / "results/evaluate/subgroups.csv")
    assert (table.groupby("fact")["n"].sum() == metrics["counts"]["subjects"]).all()
    lacking = (table["n_ad"] == 0) | (table["n_cn"] == 0)
    assert table["auc"].isna().tolist() == lacking.tolist()


def test_the_weights_of_positions_are_one_a_slice(finished):
    weights = np.array(finished.read_json("results/evaluate/pooling.json")["weights"])
    slices = pd.read_csv(finished.root / "data/processed/slices.csv")
    assert weights.size == slices["index"].nunique()
    assert weights.sum() == pytest.approx(1)


def test_the_figures_are_drawn_again_from_the_folder_alone(copied, monkeypatch):
    folder = copied.root / "results/evaluate"
    before = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    for path in folder.glob("*.png"):
        path.unlink()
    (copied.root / "data").rename(copied.root / "elsewhere")
    (copied.root / "results/train").rename(copied.root / "elsewhere/train")
    monkeypatch.chdir(copied.root)
    draw()
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")} == before
    assert len(before) == 7


def test_results_of_another_training_are_neither_exported_nor_registered(copied):
    path = copied.root / "results/evaluate/findings.json"
    known = path.read_text()
    lineage = json.loads(known)["lineage"]
    path.write_text(known.replace(lineage, "0" * 16))
    for stage in ("export", "register"):
        said = f"required the evaluation of training {lineage}; received {'0' * 16}; run: dvc repro evaluate"
        assert said in copied.adpet(stage, status=1).stderr
    path.write_text(known)
    path = copied.root / "results/leakage/leakage.json"
    path.write_text(path.read_text().replace('"split": "', '"split": "0'))
    refused = copied.adpet("register", status=1).stderr
    assert "required the leakage test of the split" in refused
    assert "run: dvc repro leakage" in refused


def test_figures_and_tables_lie_where_mlflow_puts_those_of_two_runs_side_by_side(finished):
    client = finished.client()
    run_id = client.get_model_version("adpet", "1").run_id
    at_the_top = {entry.path for entry in client.list_artifacts(run_id) if not entry.is_dir}
    figures = {path.name for path in (finished.root / "results/evaluate").glob("*.png")}
    tables = {f"{name}.json" for name in ("metrics", "baselines", "subgroups")}
    assert at_the_top == figures | tables | {"evaluation.json", "findings.json", "subgroups.csv"}
