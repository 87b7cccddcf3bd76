"""The whole pipeline on sixteen simulated subjects, every stage in one process, and what it leaves."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from workspace import SMALL, copy_of, runs_of

from adpet.imaging.nifti import read_volume


@pytest.fixture(scope="module")
def client(finished):
    return finished.client()


@pytest.fixture(scope="module")
def training(finished):
    """The training runs of the finished project."""
    return runs_of(finished, "train")[1]


@pytest.fixture(scope="module")
def champion(finished, tmp_path_factory):
    """A copy whose version was promoted by force: 3 epochs on 4 test subjects prove nothing."""
    champion = copy_of(finished, tmp_path_factory.mktemp("champion") / "project")
    refused = champion.adpet("promote", status=1)
    assert "NOT MET" in refused.stdout
    assert refused.stderr.count("\n") == 1
    champion.adpet("promote", "--force", "--reason", "to try it out")
    assert "promotion by force (not met: " in champion.adpet("history").stdout
    return champion


class TestTheRun:
    def test_every_stage_leaves_what_it_promises(self, finished):
        stages = YAML(typ="safe").load(finished.root / "dvc.yaml")["stages"].values()
        for stage in stages:
            for out in stage.get("outs", []):
                path = out if isinstance(out, str) else next(iter(out))
                assert (finished.root / path).exists(), path

    def test_nothing_half_written_stays(self, finished):
        assert list(finished.root.rglob(".partial-*")) == []
        left = [path.name for path in (finished.root / ".adpet").rglob("*") if path.is_file()]
        assert sorted(left) == ["ingest.tsv", "optuna.db"]

    def test_standard_volumes_are_ratios_on_the_mni_grid(self, finished):
        for path in (finished.root / "data/interim/volumes").iterdir():
            image = nib.load(path)
            assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
            np.testing.assert_allclose(image.header.get_zooms(), 3)
        volume = read_volume(path)
        assert 0.5 < volume.data[volume.data > 0.3].mean() < 1.5

    def test_no_subject_stands_on_two_sides(self, finished):
        split = pd.read_csv(finished.root / "data/processed/split.csv")
        assert split.groupby("subject")["part"].nunique().max() == 1
        trained = finished.read_json("results/train/run.json")
        for fold in trained["folds"]:
            assert not set(fold["trained_on"]) & set(fold["validated_on"])

    def test_the_leakage_test_leaves_the_test_subjects_alone(self, finished):
        split = pd.read_csv(finished.root / "data/processed/split.csv")
        drawn = pd.read_csv(finished.root / "results/leakage/predictions.csv")
        assert not set(drawn["subject"]) & set(split.loc[split["part"] == "test", "subject"])
        assert drawn["arm"].nunique() == 4

    def test_so_small_a_leakage_test_says_that_it_proves_nothing(self, finished):
        found = finished.read_json("results/leakage/leakage.json")["leakage"]
        assert (found["verdict"], found["valid"], found["conclusive"]) == ("inconclusive", 1, 0)
        assert finished.read_json("results/register/version.json")["leakage"] == "inconclusive"

    def test_cam_volumes_lie_on_the_standard_grid(self, finished):
        standard = nib.load(next((finished.root / "data/interim/volumes").iterdir()))
        maps = list((finished.root / "results/explain/volumes").glob("*_cam.nii.gz"))
        split = pd.read_csv(finished.root / "data/processed/split.csv")
        assert len(maps) == split.loc[split["part"] == "test", "scan"].nunique()
        cam = nib.load(maps[0])
        np.testing.assert_allclose(cam.affine, standard.affine)
        assert np.abs(cam.get_fdata()).max() > 0


class TestTheStore:
    """What a person finds in MLflow after the run."""

    def test_one_run_a_training_with_parameters_curves_and_test_metrics(self, finished, client, training):
        (run,) = training
        assert run.info.status == "FINISHED"
        assert run.data.params["model.alpha"] == "0.35"
        assert run.data.params["train.learning_rate"] != "tuned"
        found = finished.read_json("results/metrics.json")
        assert {f"test_{name}": value for name, value in found.items()}.items() <= run.data.metrics.items()
        assert len(found) <= 12
        assert len(run.data.metrics) <= 30
        assert len(client.get_metric_history(run.info.run_id, "val_loss")) == SMALL["train.epochs"]

    def test_the_cam_artifacts_are_there(self, finished, client, training):
        (run,) = training
        names = {entry.path for entry in client.list_artifacts(run.info.run_id, "explain/groups")}
        assert "explain/groups/groups.png" in names
        assert len(client.list_artifacts(run.info.run_id, "explain/montages")) == SMALL["explain.montages"]

    def test_the_leakage_test_is_on_the_training_and_on_the_version(self, finished, client, training):
        (run,) = training
        test = finished.read_json("results/leakage/leakage.json")["leakage"]
        assert run.data.metrics["leakage_gap"] == test["gap"]["true_labels"]["value"]
        names = {entry.path for entry in client.list_artifacts(run.info.run_id, "leakage")}
        assert names == {"leakage/leakage.json", "leakage/leak.png"}
        assert client.get_model_version("adpet", "1").tags["adpet.leakage"] == "inconclusive"

    def test_every_trial_is_a_nested_run_with_a_montage(self, finished, client, training):
        experiment = training[0].info.experiment_id
        (search,) = client.search_runs([experiment], "tags.`adpet.kind` = 'tune'")
        trials = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{search.info.run_id}'")
        assert len(trials) == SMALL["tune.trials"]
        for trial in trials:
            assert client.list_artifacts(trial.info.run_id, "cam")[0].path == "cam/montage.png"

    def test_the_version_is_the_challenger_with_signature_export_and_metrics(self, finished, client):
        from mlflow.models import Model
        from mlflow.types import DataType

        version = client.get_model_version_by_alias("adpet", "challenger")
        assert int(version.version) == finished.read_json("results/register/version.json")["version"]
        assert float(version.tags["metric.test_auc"]) >= 0
        model_id = version.source.removeprefix("models:/")
        location = client.get_logged_model(model_id).artifact_location
        folder = Path(location.removeprefix("file://"))
        info = Model.load(folder)
        assert [(one.name, one.type) for one in info.signature.inputs.inputs] == [("scan", DataType.string)]
        (exported,) = folder.rglob("model.json")
        assert exported.read_bytes() == (finished.root / "results/export/model.json").read_bytes()


class TestPredict:
    def test_without_a_champion_it_says_what_to_do(self, finished, client):
        scan = next((finished.root / "data/simulated/raw").rglob("*_pet.nii.gz"))
        assert "champion" not in client.get_registered_model("adpet").aliases
        done = finished.adpet("predict", str(scan), status=1)
        assert "run: adpet promote" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_the_champion_answers_as_in_the_evaluation_for_a_scan_that_needs_registration(
        self, champion, tmp_path
    ):
        predictions = pd.read_csv(champion.root / "results/evaluate/predictions.csv")
        name = predictions["scan"].iloc[0]
        scans = pd.read_csv(champion.root / "data/interim/scans.csv").set_index("scan")
        done = champion.adpet("predict", scans.loc[name, "path"], "--output", str(tmp_path))
        assert "probability of AD" in done.stdout
        answer = json.loads(next(tmp_path.glob("*.json")).read_text())
        assert 0 <= answer["probability_of_ad"] <= 1
        per_slice = [row["probability_of_ad"] for row in answer["slices"]]
        rows = predictions[predictions["scan"] == name].sort_values("index")
        np.testing.assert_allclose(per_slice, rows["probability"], atol=2e-5)
        cam = nib.load(next(path for path in tmp_path.glob("*_cam.nii.gz") if "space-scan" not in path.name))
        assert cam.shape == nib.load(next((champion.root / "data/interim/volumes").iterdir())).shape

    def test_the_real_mean_image_gets_an_answer(self, champion, real_mean_image, tmp_path):
        done = champion.adpet("predict", str(real_mean_image), "--output", str(tmp_path))
        assert "similarity after alignment  0." in done.stdout

    def test_a_file_that_is_no_scan_is_one_line_and_leaves_nothing(self, finished, tmp_path):
        (tmp_path / "scan.nii.gz").write_bytes(b"no scan")
        done = finished.adpet(
            "predict", str(tmp_path / "scan.nii.gz"), "--output", str(tmp_path / "answer"), status=1
        )
        assert done.stderr.count("\n") == 1
        assert "scan.nii.gz" in done.stderr
        assert not (tmp_path / "answer").exists()


class TestBadParameters:
    def test_a_typing_error_is_one_line_without_a_traceback(self, copied):
        text = (copied.root / "params.yaml").read_text()
        (copied.root / "params.yaml").write_text(text.replace("align: affine", "align: afine"))
        done = copied.adpet("normalize", status=1)
        assert done.stderr == (
            "adpet normalize: params.yaml: normalize.align: required 'affine' or 'none'; received 'afine'\n"
        )

    def test_a_leak_put_in_by_hand_stops_the_training(self, copied):
        path = copied.root / "data/processed/split.csv"
        split = pd.read_csv(path)
        tested = split.index[split["part"] == "test"][0]
        split.loc[tested, "part"] = "fold-1"
        split.to_csv(path, index=False)
        done = copied.adpet("train", status=1)
        assert "trained on and held out" in done.stderr

    def test_a_model_is_not_evaluated_on_whom_it_was_trained_on(self, copied):
        split = pd.read_csv(copied.root / "data/processed/split.csv")
        parts = {"test": "fold-1", "fold-1": "test"}
        split["part"] = split["part"].replace(parts)
        split.to_csv(copied.root / "data/processed/split.csv", index=False)
        done = copied.adpet("evaluate", status=1)
        assert "to be evaluated, but trained on" in done.stderr
