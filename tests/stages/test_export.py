"""The exported model is the trained one, whole, and knows what its training scans were like."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from workspace import SMALL

from adpet.errors import InputError
from adpet.evaluation.metrics import calibration_bins
from adpet.imaging.atlas import regional_means
from adpet.imaging.nifti import read_volume
from adpet.imaging.normative import smoothed
from adpet.inference.exported_model import Network, open_model, registration_constants, sha256
from adpet.inference.quality import CHECKS, judged
from adpet.learning.checkpoint import load_model
from adpet.learning.model import members_of, probability_of_ad
from adpet.learning.onnx_export import write_onnx
from adpet.stages import export
from adpet.stages.export import APART, furthest_apart, require_same
from adpet.storage import read_json, write_json

EXPORT = "results/export"


@pytest.fixture(scope="module")
def model(finished):
    return open_model(finished.root / EXPORT)


@pytest.fixture(scope="module")
def slices(finished):
    files = sorted((finished.root / "data/processed/slices").glob("*.npy"))
    return np.concatenate([np.load(file) for file in files])


@pytest.fixture(scope="module")
def trained(finished):
    return load_model(finished.root / "results/train/model.keras")


class TestNetwork:
    def test_it_answers_for_all_slices_as_keras_does(self, finished, trained, slices):
        network = Network.read(finished.root / EXPORT / "network.onnx")
        cam, probability, *_ = network(slices)
        assert np.ptp(probability) > 0.01, "answers that are all the same show nothing"
        assert np.ptp(cam) > 0.1
        apart = furthest_apart(trained, network, [slices])
        assert max(apart.values()) <= APART

    def test_it_was_scored_with_these_very_probabilities(self, finished, model):
        predictions = pd.read_csv(finished.root / "results/evaluate/predictions.csv")
        name = predictions["scan"].iloc[0]
        rows = predictions[predictions["scan"] == name].sort_values("index")
        _, probability, *_ = model.network(np.load(finished.root / f"data/processed/slices/{name}.npy"))
        np.testing.assert_allclose(probability, rows["probability"], atol=APART)

    def test_folds_answer_as_their_networks_do(self, finished, model, trained, slices):
        found = model.network(slices[:8]).folds
        scaled = trained.get_layer("scale")(slices[:8])
        logits = [np.asarray(member(scaled)[1]) for member in members_of(trained)]
        wanted = np.stack([probability_of_ad(softmax(each, axis=-1)) for each in logits], axis=-1)
        assert wanted.shape == (8, SMALL["split.folds"])
        np.testing.assert_allclose(found, wanted, atol=APART)
        assert np.ptp(found, axis=1).max() > 0.001, "networks that are all the same show nothing"

    @pytest.mark.slow
    def test_one_that_answers_otherwise_is_not_written(self, trained, slices, finished, tmp_path):
        other = trained.__class__.from_config(trained.get_config())
        write_onnx(other, tmp_path / "other.onnx")
        apart = furthest_apart(trained, Network.read(tmp_path / "other.onnx"), [slices[:8]])
        with pytest.raises(InputError, match=r"other\.onnx: required the probability .* nothing was written"):
            require_same(tmp_path / "other.onnx", apart)

    @pytest.mark.parametrize("broken", ["probability", "cam"])
    def test_one_that_answers_nan_for_a_slice_is_not_written(self, monkeypatch, tmp_path, broken):
        answers = {"cam": np.ones((2, 4, 4), np.float32), "probability": np.full(2, 0.5)}
        monkeypatch.setattr(export, "class_activation_maps", lambda *_: (answers["cam"], np.zeros(2)))
        damaged = {name: values.copy() for name, values in answers.items()}
        damaged[broken][0] = np.nan
        batches = iter([damaged, answers])
        batch = np.zeros((2, 8, 8, 1), np.uint8)
        apart = furthest_apart(None, lambda _: next(batches).values(), [batch, batch])
        with pytest.raises(InputError, match=f"required the {broken} of the trained network .* nan off"):
            require_same(tmp_path / "network.onnx", apart)

    @pytest.mark.slow
    def test_the_same_network_gives_the_same_bytes(self, trained, finished, tmp_path):
        write_onnx(trained, tmp_path / "again.onnx")
        assert sha256(tmp_path / "again.onnx") == sha256(finished.root / EXPORT / "network.onnx")


class TestDocument:
    def test_it_holds_every_constant_of_the_registration(self, model):
        written = model.document["registration"]
        assert written == json.loads(json.dumps(registration_constants()))
        assert {"blur_fwhm_mm", "guess_degrees", "affine_levels", "most_steps", "stretch"} <= set(written)

    def test_it_says_the_same_as_the_results(self, finished, model):
        metrics = finished.read_json("results/evaluate/evaluation.json")
        assert model.document["threshold"] == metrics["threshold"]
        assert model.document["performance"]["auc"]["value"] == metrics["subject"]["auc"]["value"]
        trained = finished.read_json("results/train/run.json")
        assert model.document["lineage"]["id"] == trained["lineage"]["id"]

    def test_every_training_scan_passes_every_check(self, model):
        for end in ("low", "median", "high"):
            values = {limit["name"]: limit[end] for limit in model.document["quality"]}
            assert set(values) == set(CHECKS)
            assert {row["verdict"] for row in judged(values, model.document["quality"])} == {"ok"}

    def test_regions_have_the_uptake_of_the_healthy_training_subjects(self, finished, model):
        split = pd.read_csv(finished.root / "data/processed/split.csv").drop_duplicates("subject")
        healthy = split[(split["part"] != "test") & (split["diagnosis"] == "CN")]
        labels = [region["label"] for region in model.document["regions"]]
        folder = finished.root / "data/interim/volumes"
        volumes = [read_volume(folder / f"{scan}.nii").data for scan in healthy["scan"]]
        uptake = [regional_means(volume, model.regions, labels) for volume in volumes]
        found = [region["cn_mean"] for region in model.document["regions"]]
        np.testing.assert_allclose(found, np.mean(uptake, axis=0), atol=1e-5)

    def test_normative_images_are_fitted_to_the_healthy_training_scans(self, finished, model):
        norms = model.document["norms"]
        split = pd.read_csv(finished.root / "data/processed/split.csv").drop_duplicates("subject")
        healthy = split[(split["part"] != "test") & (split["diagnosis"] == "CN")]
        assert norms["scans"] == len(healthy)
        brain, width = model.standard.brain, {"fwhm_mm": norms["smoothing_mm"], "grid_mm": 3.0}
        folder = finished.root / "data/interim/volumes"
        uptake = [
            smoothed(read_volume(folder / f"{scan}.nii").data, **width, inside=brain)[brain]
            for scan in healthy["scan"]
        ]
        z = np.stack([model.norms.z(values) for values in uptake])
        assert abs(z.mean()) < 0.01
        assert 0.7 < z.std() <= 1

    def test_no_subject_is_named(self, finished):
        subjects = set(pd.read_csv(finished.root / "data/processed/split.csv")["subject"])
        text = (finished.root / EXPORT / "model.json").read_text()
        assert not [subject for subject in subjects if subject in text]


class TestCalibration:
    def test_its_bins_meet_and_hold_every_subject(self):
        probability = np.linspace(0.05, 0.95, 40)
        subjects = pd.DataFrame(
            {"probability": probability, "diagnosis": np.where(probability > 0.4, "AD", "CN")}
        )
        found = calibration_bins(subjects)
        lows, highs = ([one[end] for one in found["bins"]] for end in ("low", "high"))
        assert (lows[0], highs[-1]) == (0.0, 1.0)
        assert lows[1:] == highs[:-1]
        assert sum(one["subjects"] for one in found["bins"]) == 40
        assert found["bins"][0]["ad_share"] == 0.0
        assert found["bins"][-1]["ad_share"] == 1.0
        assert found["prevalence"] == pytest.approx((probability > 0.4).mean())


class TestOpening:
    @pytest.fixture
    def folder(self, small_export, tmp_path):
        return shutil.copytree(small_export, tmp_path / "export")

    def test_a_file_that_was_changed_is_refused_in_one_line(self, folder):
        (folder / "brain.nii.gz").write_bytes((folder / "brain.nii.gz").read_bytes()[:-1] + b"x")
        with pytest.raises(InputError, match=r"^.*an exported model with brain\.nii\.gz as it was.*$"):
            open_model(folder)

    def test_another_registration_is_refused(self, folder):
        document = read_json(folder / "model.json")
        document["registration"]["blur_fwhm_mm"] = 5.0
        write_json(folder / "model.json", document)
        with pytest.raises(InputError, match=r"blur_fwhm_mm 6\.0.*received another \(5\.0\)"):
            open_model(folder)

    def test_a_folder_that_is_none_and_another_format_say_what_to_do(self, tmp_path):
        with pytest.raises(InputError, match="run: dvc repro export"):
            open_model(tmp_path)
        (tmp_path / "model.json").write_text('{"format": 9}')
        with pytest.raises(InputError, match="required format 3; received 9"):
            open_model(tmp_path)
