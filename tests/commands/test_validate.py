"""Validate: a model on another collection, with everything that it comes with."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from workspace import copy_of, runs_of

from adpet.commands import validate
from adpet.errors import InputError, LeakageError
from adpet.evaluation.baselines import LinearModel, image_features
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.template import fdg_template
from adpet.inference.exported_model import BASELINES, open_model
from adpet.inference.predictor import answer
from adpet.params import Params
from adpet.paths import EXTERNAL
from adpet.stages import external

SUBJECTS = 20


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A flat folder of scans in MNI space, of which AD are the brighter ones, and one picture of noise."""
    folder, rng = tmp_path_factory.mktemp("clinic"), np.random.default_rng(0)
    template, rows = fdg_template(6.0), ["path,subject,session,diagnosis,age,sex"]
    for number in range(SUBJECTS + 1):
        is_ad = number % 2 == 1
        data = template.data * (1 + 0.05 * rng.normal(size=template.data.shape).astype(np.float32))
        data[:, 15:] *= np.float32(0.75 + 0.2 * is_ad + 0.05 * rng.normal())
        if number == SUBJECTS:
            data = rng.random(template.data.shape, dtype=np.float32)
        write_volume(folder / f"{number:02d}.nii.gz", Volume(data, template.affine))
        rows.append(f"{number:02d}.nii.gz,person-{number:02d},1,{'AD' if is_ad else 'CN'},{60 + number},F")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(small_export, tmp_path_factory):
    """The small model with baselines: the mean of all voxels, and the opposite of that of the regions."""
    folder = tmp_path_factory.mktemp("model") / "export"
    shutil.copytree(small_export, folder)
    sizes = {name: values.size for name, values in image_features(fdg_template(6.0).data, 6.0).items()}
    models = {
        name: LinearModel(np.ones(size), np.full(size, sign * 10 / size), -sign * 9.0, 0.5)
        for name, size, sign in (("voxels", sizes["voxels"], 1), ("atlas", sizes["atlas"], -1))
    }
    documents = {name: one.document() for name, one in models.items()}
    (folder / BASELINES).write_text(json.dumps(documents))
    return folder


@pytest.fixture
def say(model, collection, tmp_path, monkeypatch):
    """Validate in a folder with few settings of its own."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("evaluate: {resamples: 100}")

    def say(**changed):
        options = {
            "model": str(model), "cohort": collection, "name": None, "layout": "auto", "table": None, "diagnosis_table": None,
            "output": None, "score_only": "", "recalibrate": None, "other_people": False, "workers": 1, "cluster": None,
        }  # fmt: skip
        return validate.main(**options | changed)

    return say


def test_results_are_those_of_the_model_and_of_its_baselines(say, model, collection):
    text = say(name="clinic")
    assert "20 subjects (10 AD, 10 CN), 20 scans, 1 of them flagged; 1 refused, 0 unusable, 0 skipped" in text
    assert "leakage    not checked: the training is not here" in text
    folder = Path("validation_clinic")
    found = json.loads((folder / "validation.json").read_text())
    assert found["evaluation"]["subject"]["auc"]["value"] > 0.95
    assert found["evaluation"]["baselines"]["atlas"]["auc"]["value"] < 0.5
    subjects = pd.read_csv(folder / "subjects.csv", keep_default_na=False).set_index("baseline")
    scan = read_volume(collection / "03.nii.gz")
    alone = answer(scan, open_model(model), name="one")
    (row,) = subjects.loc[""].query("subject == 'person-03'").to_dict("records")
    assert row["probability"] == pytest.approx(alone.document["probability_of_ad"], abs=1e-4)
    linear = LinearModel.of(json.loads((model / BASELINES).read_text())["voxels"])
    (row,) = subjects.loc["voxels"].query("subject == 'person-03'").to_dict("records")
    features = image_features(alone.suvr.data, 6.0)["voxels"]
    assert row["probability"] == pytest.approx(linear.probability(features[None])[0], abs=1e-6)


def test_report_names_nobody_and_nothing_outside_of_itself(say):
    say(name="clinic", recalibrate="all")
    page = Path("validation_clinic/report.html").read_text()
    assert "person" not in page
    assert re.findall(r"(?:src|href)=\"(?!data:|#)", page) == []
    for part in ("Decision curves", "What recalibration changes", "Where these brains are unusual"):
        assert part in page


def test_what_cannot_be_read_is_counted_and_named_in_the_table_alone(say, collection, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(collection, mixed)
    template = fdg_template(6.0)
    write_volume(mixed / "flat.nii.gz", Volume(np.ones_like(template.data), template.affine))
    (mixed / "cut.nii.gz").write_bytes(b"no scan")
    rows = "flat.nii.gz,person-flat,1,AD,70,M\ncut.nii.gz,person-cut,1,AD,70,M\n"
    (mixed / "scans.csv").write_text((collection / "scans.csv").read_text() + rows)
    assert "2 refused, 1 unusable" in say(cohort=mixed)
    page = Path("validation_mixed/report.html").read_text()
    assert "the scan" in page
    assert "person" not in page
    assert str(mixed) not in page
    refused = (tmp_path / "validation_mixed/refused.csv").read_text()
    assert "personflat" in refused
    assert "cut.nii.gz" in refused


def test_leaky_model_stays_leaky(say, model, tmp_path):
    leaky = tmp_path / "leaky"
    shutil.copytree(model, leaky)
    document = json.loads((leaky / "model.json").read_text()) | {"leaky": True}
    (leaky / "model.json").write_text(json.dumps(document))
    assert "LEAKY" in say(model=str(leaky), name="clinic", recalibrate="all")
    assert open_model(Path("validation_clinic/recalibrated")).leaky
    assert "LEAKY" in Path("validation_clinic/report.html").read_text()


def test_recalibrated_model_has_seen_the_collection_that_it_was_fitted_to(say):
    say(name="clinic", recalibrate="all")
    with pytest.raises(LeakageError, match="20 of 21 have ids of its training"):
        say(model="validation_clinic/recalibrated", name="again")


@pytest.mark.parametrize("reference", ["all", "cn"])
def test_recalibrated_model_answers_with_the_shift(say, model, collection, reference):
    say(name="clinic", recalibrate=reference)
    folder = Path("validation_clinic")
    found = json.loads((folder / "validation.json").read_text())["recalibration"]
    scan = read_volume(collection / "03.nii.gz")
    before, after = (
        answer(scan, open_model(each), name="one").document["probability_of_ad"]
        for each in (model, folder / "recalibrated")
    )
    assert logit(after) - logit(before) == pytest.approx(found["shift"], abs=1e-3)


def test_other_diagnoses_are_scored_and_judge_nothing(say, collection, tmp_path):
    say(name="clinic")
    without = json.loads(Path("validation_clinic/validation.json").read_text())
    shutil.copytree(collection, tmp_path / "mixed")
    table = (collection / "scans.csv").read_text()
    for number in (20, 18, 16):
        shutil.copy(collection / f"{number - 1:02d}.nii.gz", tmp_path / f"mixed/other-{number}.nii.gz")
        table += f"other-{number}.nii.gz,other-{number},1,MCI,70,M\n"
    (tmp_path / "mixed/scans.csv").write_text(table)
    # Not copies: those of one image under two names are set aside.
    for number in (20, 18, 16):
        scan = read_volume(tmp_path / f"mixed/other-{number}.nii.gz")
        write_volume(tmp_path / f"mixed/other-{number}.nii.gz", Volume(scan.data * 2, scan.affine))
    text = say(cohort=tmp_path / "mixed", score_only=" MCI,MCI,", recalibrate="all")
    assert "0 unusable, 0 skipped" in text
    assert re.search(r"MCI +3 subjects, \d\.\d\d of them predicted AD", text)
    found = json.loads(Path("validation_mixed/validation.json").read_text())
    assert found["evaluation"] == without["evaluation"]
    assert found["score_only"]["MCI"]["subjects"] == 3
    assert "Other diagnoses" in Path("validation_mixed/report.html").read_text()


def test_a_second_validation_takes_the_place_of_the_first(say, tmp_path):
    say(name="clinic")
    say(name="clinic", recalibrate="all")
    assert (tmp_path / "validation_clinic/recalibrated").is_dir()


class TestBadInput:
    """One line that says what to do, and nothing half-written."""

    def test_folder_with_other_things_is_not_replaced(self, say, tmp_path):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis/chapter.txt").write_text("mine")
        with pytest.raises(InputError, match="thesis: required a new folder"):
            say(output=Path("thesis"))
        assert (tmp_path / "thesis/chapter.txt").exists()

    def test_collection_of_one_diagnosis_is_refused(self, say, collection, tmp_path):
        shutil.copytree(collection, tmp_path / "healthy")
        table = (collection / "scans.csv").read_text().replace(",AD,", ",CN,")
        (tmp_path / "healthy/scans.csv").write_text(table)
        with pytest.raises(
            InputError, match="required 1 subjects or more of each diagnosis; received 0 AD and 21 CN"
        ):
            say(cohort=tmp_path / "healthy")
        assert not (tmp_path / "validation_healthy").exists()

    def test_diagnosis_that_nobody_has_is_named(self, say):
        with pytest.raises(InputError, match=r"--score-only, .*: required diagnoses in .*; received 'MIC'"):
            say(score_only="MIC")
        with pytest.raises(InputError, match=r"--score-only, .*; received 'cn'"):
            say(score_only="cn")

    def test_folder_of_the_model_or_with_notes_is_not_replaced(self, say, tmp_path):
        say(name="clinic", recalibrate="all")
        folder = tmp_path / "validation_clinic"
        with pytest.raises(InputError, match="required a folder apart from the model's"):
            say(model=str(folder / "recalibrated"), name="clinic", other_people=True)
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match=r"received one with notes\.txt"):
            say(name="clinic")

    def test_workers_and_names_that_cannot_be(self, say, tmp_path):
        with pytest.raises(InputError, match="--workers: required 1 or more; received 0"):
            say(workers=0)
        say(name="../a b/c")
        assert (tmp_path / "validation_a_b_c/report.html").exists()

    def test_missing_folder_is_named_also_without_a_project(self, say):
        Path("params.yaml").unlink()
        with pytest.raises(InputError, match="nowhere: required a folder of scans"):
            say(cohort=Path("nowhere"))


@pytest.fixture(scope="module")
def validated(finished, tmp_path_factory):
    """The version on its own test subjects, who are new to it."""
    project = copy_of(finished, tmp_path_factory.mktemp("validated") / "project")
    tested = project.root.with_name("tested")
    project.copy_test_subjects(tested)
    done = project.adpet("validate", "models:/adpet/1", "--cohort", str(tested))
    return project, done.stdout


def test_stage_without_a_collection_ends_at_once_with_empty_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/external").mkdir(parents=True)
    (tmp_path / "data/external/.gitkeep").touch()
    external.run(Params())
    assert (tmp_path / EXTERNAL).read_text() == '{\n  "validation": null\n}\n'
    assert pd.read_csv(tmp_path / "results/external/predictions.csv").empty
    assert "There is no other collection" in (tmp_path / "results/external/report.html").read_text()


@pytest.mark.slow
class TestInAProject:
    """Against the training that is there: its people and images are refused, its test subjects are not."""

    def test_own_test_subjects_get_the_evaluated_figures(self, validated):
        project, said = validated
        found = project.read_json("validation_tested/validation.json")["evaluation"]
        wanted = project.read_json("results/evaluate/evaluation.json")
        assert "looked for training subjects by id and copies of" in said
        for name in ("auc", "brier", "calibration_slope"):
            for end in ("value", "low", "high"):
                assert found["subject"][name][end] == pytest.approx(
                    wanted["subject"][name][end], rel=2e-3, abs=2e-3
                )
        for name, scores in found["baselines"].items():
            assert scores["brier"]["value"] == pytest.approx(
                wanted["baselines"][name]["brier"]["value"], abs=1e-3
            )
            assert scores["threshold"] == pytest.approx(wanted["baselines"][name]["threshold"], abs=1e-6)
        assert set(found["baselines"]) == {"atlas", "meta_roi", "regions", "voxels"}

    def test_result_is_a_run_in_mlflow_and_a_tag_of_the_version(self, validated):
        project, _ = validated
        client, (run,) = runs_of(project, "validate")
        found = project.read_json("validation_tested/validation.json")["evaluation"]["subject"]["auc"]
        assert run.data.metrics["external_auc"] == pytest.approx(found["value"])
        assert run.data.tags["adpet.version"] == "models:/adpet/1"
        assert {"report.html", "validation.json"} <= {
            one.path for one in client.list_artifacts(run.info.run_id)
        }
        tag = json.loads(client.get_model_version("adpet", "1").tags["adpet.external.tested"])
        assert tag["auc"] == pytest.approx(found, abs=1e-6)

    def test_stage_gives_the_same_figures_to_report_registry_and_promotion(self, validated):
        project, _ = validated
        tested, rule = str(project.root.with_name("tested")), {"external": 0.5, "min_subjects": 2}
        project.set_params({"external.raw": tested, **{f"promotion.{key}": rule[key] for key in rule}})
        code = "import sys; from adpet.cli import main; main(['external']); assert 'keras' not in sys.modules"
        project.run(sys.executable, "-c", code)
        found = project.read_json("results/external/external.json")["validation"]
        assert found | {"model": ""} == project.read_json("validation_tested/validation.json") | {"model": ""}
        for stage in ("report", "register"):
            project.adpet(stage)
        for name in ("MODEL_CARD.md", "report.html"):
            assert "another collection, tested (" in (project.root / "results/report" / name).read_text()
        said = project.adpet("promote", "--dry-run", status=1).stdout
        auc = found["evaluation"]["subject"]["auc"]
        verdict = "met" if auc["low"] > rule["external"] else "NOT MET"
        assert f"{verdict:<9}external         {auc['value']:.3f} (95 % interval {auc['low']:.3f} to" in said

    def test_training_subjects_are_refused_by_id_and_under_other_names(self, finished):
        raw = "data/simulated/raw"
        done = finished.adpet("validate", "results/export", "--cohort", raw, status=1)
        assert re.search(r"\d+ of \d+ have ids of its training", done.stderr)
        done = finished.adpet("validate", "results/export", "--cohort", raw, "--other-people", status=1)
        assert "are images of its training" in done.stderr
        assert done.stderr.count("\n") == 1
        assert not list(finished.root.glob("validation_*"))
