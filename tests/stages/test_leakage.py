"""The leakage test as a stage: the subjects it uses, the same bytes after a kill, and what register makes of it."""

import os
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from made_up import scan_row

from adpet.cohort.scans import scans_table, write_table
from adpet.imaging.template import fdg_template
from adpet.params import load_params
from adpet.stages import leakage, split
from adpet.stages.common.tables import ALIGNMENT_COLUMNS
from adpet.storage import read_json, read_yaml, set_by_key

SMALL = {
    "compute.threads": 1,
    "split.folds": 2,
    "leakage.subjects": 12,
    "leakage.step_mm": 15.0,
    "leakage.alpha": 0.35,
    "leakage.feature_layer": "block_4_expand_relu",
    "leakage.epochs": 3,
    "leakage.batch_size": 8,
}
OUTPUTS = ("leakage.json", "predictions.csv", "leak.png")


def row(number, visit):
    usual = {"age": 60.0 + number, "sex": "FM"[number // 2 % 2]}
    return scan_row(f"{number:02d}", str(visit), ("AD", "CN")[number % 2], **usual)


@pytest.fixture
def workspace(project_root, tmp_path, monkeypatch):
    """Sixteen subjects of noise, the first of whom came twice, split as in the pipeline."""
    from ruamel.yaml import YAML

    monkeypatch.chdir(tmp_path)
    document = read_yaml(project_root / "params.yaml")
    for key, value in SMALL.items():
        set_by_key(document, key, value)
    YAML().dump(document, tmp_path / "params.yaml")
    (tmp_path / "data/interim/volumes").mkdir(parents=True)
    (tmp_path / "data/processed").mkdir()
    template, rng = fdg_template(3.0), np.random.default_rng(0)
    rows = [row(number, visit) for number in range(16) for visit in (1, 2) if visit == 1 or number == 0]
    for scan in rows:
        noisy = template.data * rng.uniform(0.8, 1.2, template.data.shape)
        image = nib.Nifti1Image(noisy.astype(np.float32), template.affine)
        nib.save(image, tmp_path / "data/interim/volumes" / f"{scan['scan']}.nii")
    scans = scans_table(rows)
    write_table(tmp_path / "data/interim/scans.csv", scans)
    alignment = pd.DataFrame({"scan": scans["scan"], "passed": True, "reason": ""})
    alignment = alignment.reindex(columns=list(ALIGNMENT_COLUMNS)).fillna(0.5)
    alignment.to_csv(tmp_path / "data/interim/alignment.csv", index=False)
    slices = pd.DataFrame([(scan, 0, 0.0) for scan in scans["scan"]], columns=["scan", "index", "y_mm"])
    slices.to_csv(tmp_path / "data/processed/slices.csv", index=False)
    split.run(load_params())
    return tmp_path


def test_no_subject_of_the_test_set_is_in_it_and_each_comes_with_one_scan(workspace):
    rows = pd.read_csv("data/processed/split.csv", dtype=str)
    held_out = set(rows.loc[rows["part"] == "test", "subject"])
    subjects, scans = leakage._untested(load_params(), leaky=False)
    assert len(held_out) == 6
    assert not held_out & set(subjects["subject"])
    assert list(subjects["subject"]) == sorted(scans["subject"])
    assert dict(subjects["diagnosis"].value_counts()) == {"AD": 5, "CN": 5}


def test_it_follows_from_its_own_settings_and_not_from_the_training(project_root):
    params = load_params(project_root / "params.yaml")

    def settings(values):
        return params.with_values(values).model_dump(include=leakage.SETTINGS, mode="json")

    assert settings({}) == settings({"train.epochs": 3, "model.alpha": 1.0})
    assert settings({}) != settings({"leakage.epochs": 3})
    assert settings({}) != settings({"slice.window": (0.0, 3.0)})


@pytest.mark.slow
def test_one_killed_between_two_epochs_ends_with_the_bytes_of_an_undisturbed_one(workspace, project_root):
    def start():
        environment = os.environ | {"PYTHONPATH": str(project_root / "src")}
        return subprocess.Popen(
            [sys.executable, "-m", "adpet", "leakage"], env=environment, text=True, stderr=subprocess.PIPE
        )

    def finish(process):
        _, errors = process.communicate()
        assert process.returncode == 0, errors

    def wait_for(name, process):
        while not list((workspace / ".adpet").glob(f"leakage/*/{name}")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)

    def content():
        return {name: (workspace / "results/leakage" / name).read_bytes() for name in OUTPUTS}

    finish(start())
    expected = content()
    shutil.rmtree(workspace / "results")

    killed = start()
    wait_for("subject_split_shuffled.npz", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finished = list((workspace / ".adpet").glob("leakage/*/s*_split.npy"))
    assert finished
    written = [arm.stat().st_mtime_ns for arm in finished]
    assert not (workspace / "results").exists()

    resumed = start()
    wait_for("slice_split_shuffled.npz", resumed)
    assert [arm.stat().st_mtime_ns for arm in finished] == written
    finish(resumed)
    assert content() == expected
    assert not [path for path in (workspace / ".adpet").rglob("*") if path.is_file()]

    document = read_json(workspace / "results/leakage/leakage.json")["leakage"]
    assert document["verdict"] == "inconclusive"
    assert document["cohort"] == {"subjects": 10, "planes": 4, "step_mm": 15.0}
