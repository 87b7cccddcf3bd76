"""The pipeline as a user runs it with DVC: nothing to do, odd places, a messy download, the 2019 protocol."""

import json
import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from workspace import PROJECT, SIMULATE_STAGE, SMALL, begin_project, runs_of

from adpet.storage import flatten, read_yaml
from adpet.tracking.lineage import GENERATED

pytestmark = [pytest.mark.slow, pytest.mark.dvc]

# The smallest cohort that there may be, and no more work than all stages need.
SIX = dict.fromkeys(("simulation.ad_subjects", "simulation.cn_subjects"), 3)
SIX |= {"compute.workers": 1, "split.folds": 2, "split.test_fraction": 0.33, "slice.range_mm": [-76.0, -48.0]}
SIX |= {"model.feature_layer": "block_4_expand_relu"}  # quickly compiled
SIX |= {"tune.trials": 1, "train.epochs": 2, "explain.sanity_scans": 0, "leakage.epochs": 1}
# To root nothing is read-only: its processes run without the right to what others own.
RESTRICTED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


class TestDvc:
    def test_a_second_repro_has_nothing_to_do(self, finished_by_dvc):
        assert "Data and pipelines are up to date" in finished_by_dvc.run("dvc", "repro").stdout

    def test_a_file_next_to_the_scans_runs_ingest_alone(self, copied_from_dvc):
        (copied_from_dvc.root / "data/simulated/raw/README").write_text("Where the scans come from.\n")
        copied_from_dvc.run("dvc", "commit", "--force", SIMULATE_STAGE)
        done = copied_from_dvc.run("dvc", "repro")
        assert re.findall(r"Running stage '(\w+)'", done.stdout) == ["ingest"]

    def test_a_changed_scan_is_normalized_again(self, copied_from_dvc):
        scan = nib.load(next((copied_from_dvc.root / "data/simulated/raw").rglob("*_pet.nii.gz")))
        nib.save(nib.Nifti1Image(scan.get_fdata() * 2, scan.affine), scan.get_filename())
        copied_from_dvc.run("dvc", "commit", "--force", SIMULATE_STAGE)
        done = copied_from_dvc.run("dvc", "repro", "normalize")
        assert re.findall(r"Running stage '(\w+)'", done.stdout) == ["ingest", "normalize"]

    def test_metrics_are_one_table_that_fits_a_terminal(self, finished_by_dvc):
        shown = json.loads(finished_by_dvc.run("dvc", "metrics", "show", "--json").stdout)
        (file,) = shown[""]["data"].values()
        metrics = file["data"]
        assert 0 <= metrics["auc_ci_low"] <= metrics["auc"] <= metrics["auc_ci_high"] <= 1
        assert metrics["leaky"] == 0
        for command in (["metrics", "show"], ["metrics", "diff", "HEAD"]):
            assert max(map(len, finished_by_dvc.run("dvc", *command).stdout.splitlines())) <= 140

    def test_a_run_changes_nothing_in_git_but_what_it_generates(self, finished_by_dvc):
        changes = finished_by_dvc.run("git", "status", "--porcelain").stdout.splitlines()
        assert {line[3:] for line in changes} == set(GENERATED)

    def test_the_plots_are_shown_without_a_network(self, finished_by_dvc):
        finished_by_dvc.run("dvc", "plots", "show", "--out", "plots")
        page = (finished_by_dvc.root / "plots" / "index.html").read_text()
        assert page.count("<img") >= 5

    def test_training_run_names_data_hash_and_commit(self, finished_by_dvc):
        _, (run,) = runs_of(finished_by_dvc, "train")
        (used,) = run.inputs.dataset_inputs
        lock = YAML(typ="safe").load(finished_by_dvc.root / "dvc.lock")
        dependencies = lock["stages"]["ingest"]["deps"]
        md5 = next(item["md5"] for item in dependencies if item["path"] == "data/simulated/raw")
        assert used.dataset.digest == md5
        head = finished_by_dvc.run("git", "rev-parse", "HEAD").stdout.strip()
        assert run.data.tags["mlflow.source.git.commit"] == head
        assert run.data.tags["adpet.seed"] == "2019"


class TestPlaces:
    def test_make_in_a_zip_without_git_says_in_one_line_what_to_do(self, tmp_path):
        shutil.copy(PROJECT / "Makefile", tmp_path)
        # Without what a `make` that runs the tests hands down.
        alone = {"PATH": os.environ["PATH"]}
        done = subprocess.run(
            ["make", "repro"], cwd=tmp_path, env=alone, capture_output=True, text=True, check=False
        )
        first, *rest = done.stderr.splitlines()
        assert first.startswith("adpet: this folder is no git repository")
        assert "git init && git add . && git commit" in first
        assert all(line.startswith("make: ") for line in rest)

    def test_smallest_cohort_runs_to_an_answer_in_any_place_with_few_rights(self, tmp_path):
        place = tmp_path / "Prüf ordner"
        project = begin_project(place / "ad pet", SIX | {"cohort.raw": "../die Scans", "split.folds": 4})
        project.run("dvc", "config", "cache.type", "hardlink")  # outputs are read-only
        project.adpet("simulate")
        raw = shutil.move(project.root / "data/simulated/raw", place / "die Scans")
        for path in (scans := [raw, *raw.rglob("*")]):
            path.chmod(0o555 if path.is_dir() else 0o444)
            if RESTRICTED:
                shutil.chown(path, "nobody")
        before = [(path, path.stat().st_mtime_ns) for path in scans]
        refused = project.run(*RESTRICTED, "dvc", "repro", status=255)
        assert "set split.folds to 2 and split.test_fraction to 0.3333, or add subjects" in refused.stderr
        assert "normalize" not in refused.stdout
        project.set_params({"split.folds": 2, "split.test_fraction": 0.33})
        project.run(*RESTRICTED, "dvc", "repro")
        project.run(*RESTRICTED, "dvc", "repro", "--force", "--single-item", "register")
        ask = (sys.executable, "-m", "adpet", "predict", str(raw), "--output", "gut", "--csv", "-")
        told = project.run(*RESTRICTED, *ask, "--model", "models:/adpet@challenger").stdout
        assert pd.read_csv(StringIO(told))["probability_of_ad"].nunique() == 6
        assert [(path, path.stat().st_mtime_ns) for path in [raw, *raw.rglob("*")]] == before

    def test_experiments_in_temporary_workspaces_log_to_the_project_itself(self, tmp_path):
        project = begin_project(tmp_path / "two words", SIX)
        project.run("dvc", "exp", "run", "--temp", "train", "-S", "train.epochs=1")
        project.run("dvc", "exp", "run", "--queue", "train", "-S", "train.epochs=3")
        project.run("dvc", "exp", "run", "--run-all")
        _, runs = runs_of(project, "train")
        assert [run.data.params["train.epochs"] for run in runs] == ["1", "3"]
        head = project.run("git", "rev-parse", "HEAD").stdout.strip()
        for run in runs:
            assert run.info.status == "FINISHED"
            assert run.info.artifact_uri.startswith((project.root / "mlartifacts").as_uri())
            assert run.data.tags["mlflow.source.git.commit"] == f"{head}-dirty"
        shown = project.run("dvc", "exp", "show", "--csv").stdout
        assert {"1", "2", "3"} <= set(shown.replace("\n", ",").split(","))


def test_lopsided_cohort_with_a_subject_of_20_visits_gives_answers_that_differ(tmp_path):
    groups = {"simulation.ad_subjects": 4, "simulation.cn_subjects": 24, "simulation.followup_fraction": 0.0}
    project = begin_project(tmp_path / "lopsided", groups, dvc=False)
    project.adpet("simulate")
    first = nib.load(next((project.root / "data/simulated/raw").rglob("*_pet.nii.gz")))
    for visit in range(2, 21):
        path = Path(first.get_filename().replace("ses-01", f"ses-{visit:02d}"))
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(first.get_fdata() * visit, first.affine), path)
    project.run_pipeline()
    text = " ".join(project.output)
    for said in ("only 4 AD subjects", "24 CN and 4 AD: training", "one subject has 20 of 47 scans"):
        assert said in text
    subjects = pd.read_csv(project.root / "results/evaluate/subjects.csv")
    assert subjects["probability"].nunique() == len(subjects)
    evaluation = project.read_json("results/evaluate/evaluation.json")
    called = np.where(subjects["probability"] >= evaluation["threshold"], "AD", "CN")
    assert subjects["called"].tolist() == called.tolist()
    told = evaluation["subject"]["balanced_accuracy"]
    assert 0 <= told["low"] <= told["value"] <= told["high"] <= 1
    assert "sensitivity" in project.adpet("summary").stdout


def test_a_messy_adni_cohort_runs_through(messy):
    """As the archive delivers it, with all that is wrong in it, from a folder of one's own."""
    truth = pd.read_csv(messy.root.with_name("messy-truth") / "severity.tsv", sep="\t")
    pitfalls = pd.read_csv(messy.root.with_name("messy-truth") / "planted.csv").set_index("file")
    planted, changed = pitfalls["verdict"], pitfalls["pitfall"] == "a diagnosis that changed between visits"
    scans = pd.read_csv(messy.root / "data/interim/scans.csv")
    rejected = pd.read_csv(messy.root / "data/interim/rejected.csv")
    # So small a cohort bears one fault that costs a file, and that is of nobody; a visit with MCI is skipped.
    assert set(scans["scan"]) < set(truth["scan"])
    assert len(truth) - len(scans) == changed.sum() == 1
    assert dict(zip(rejected["file"].str.removeprefix("data/raw/"), rejected["kind"], strict=True)) == {
        file: verdict for file, verdict in planted.items() if verdict in ("skipped", "unusable")
    }
    assert any((messy.root / path).is_dir() for path in scans["path"]), "a scan of six files"
    assert {"read", "skipped", "unusable"} <= set(planted)
    assert messy.read_json("results/register/version.json")["version"] == 1
    assert pd.read_csv(messy.root / "data/interim/alignment.csv")["passed"].all()
    assert "Data and pipelines are up to date" in messy.run("dvc", "repro").stdout
    assert not (messy.root / "data/simulated/raw").exists()


def test_the_2019_protocol_in_small_is_marked_as_leaky_for_ever(copied_from_dvc):
    preset = flatten(read_yaml(PROJECT / "presets/protocol-2019-small.yaml"))
    smaller = ("slice.step_mm", "model.input_size", "model.alpha", "train.epochs")
    copied_from_dvc.set_params(preset | {key: SMALL[key] for key in smaller} | {"explain.sanity_scans": 0})
    copied_from_dvc.run("dvc", "repro")
    assert copied_from_dvc.adpet("summary").stdout.strip().startswith("LEAKY")
    version = copied_from_dvc.read_json("results/register/version.json")
    assert version["leaky"] is True
    refused = copied_from_dvc.adpet("promote", str(version["version"]), status=1)
    assert "NOT MET  new subjects     the split leaked subjects" in refused.stdout
    copied_from_dvc.adpet("promote", str(version["version"]), "--force", "--reason", "to show the leak")
    scan = next((copied_from_dvc.root / "data/simulated/raw").rglob("*_pet.nii.gz"))
    assert "LEAKY" in copied_from_dvc.adpet("predict", str(scan), "--output", "answer").stdout
