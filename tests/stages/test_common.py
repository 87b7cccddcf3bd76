"""Whose slices are trained on, and the guards before training and evaluation."""

import numpy as np
import pandas as pd
import pytest

from adpet.errors import LeakageError
from adpet.params import load_params
from adpet.paths import SLICES
from adpet.stages.common.checks import hashed, may_log_images
from adpet.stages.common.fitting import all_training, fit, training_and_validation

SPLIT = pd.DataFrame(
    [
        ("s1_a", 0, "s1", "AD", "test"),
        ("s2_a", 0, "s2", "AD", "fold-0"),
        ("s3_a", 0, "s3", "CN", "fold-1"),
        ("s4_a", 0, "s4", "AD", "fold-2"),
    ],
    columns=["scan", "index", "subject", "diagnosis", "part"],
)

# Without folds there is nothing to search on.
FIXED = {"train.learning_rate": 1e-3, "augment.flip": True} | {
    f"augment.{key}": 0.0 for key in ("rotation_degrees", "zoom", "shift", "shear", "intensity")
}


@pytest.fixture(scope="module")
def params(project_root):
    return load_params(project_root / "params.yaml")


def subjects(refs):
    return [ref.subject for ref in refs]


def test_the_test_set_is_neither_trained_nor_validated_on(params):
    training, validation = training_and_validation(SPLIT, params, fold=0)
    assert subjects(training) == ["s3", "s4"]
    assert subjects(validation) == ["s2"]
    assert training[0].path.as_posix() == "data/processed/slices/s3_a.npy"


def test_a_subject_on_two_sides_stops_every_training(params):
    leaking = pd.concat([SPLIT, SPLIT[:1].assign(part="fold-1")])
    with pytest.raises(LeakageError, match="received 1 trained on and held out: s1; run: dvc repro"):
        training_and_validation(leaking, params, fold=0)
    with pytest.raises(LeakageError, match="received 1 trained on and held out: s1"):
        all_training(leaking, params)
    leaky = params.with_values({"split.unit": "slice"})
    assert "s1" in subjects(training_and_validation(leaking, leaky, fold=0)[0])


def test_without_folds_validation_is_on_the_test_set_as_in_2019(params):
    protocol = params.with_values({"split.unit": "slice", "split.folds": 0} | FIXED)
    two = SPLIT.assign(part=["test", "train", "train", "train"])
    training, validation = training_and_validation(two, protocol, fold=0)
    assert (subjects(training), subjects(validation)) == (["s2", "s3", "s4"], ["s1"])


def test_all_training_subjects_are_all_but_the_tested(params):
    assert subjects(all_training(SPLIT, params)) == ["s2", "s3", "s4"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_fit_that_ends_early_has_gone_the_way_of_the_whole_one(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SLICES.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for scan in SPLIT["scan"]:
        np.save(SLICES / f"{scan}.npy", rng.integers(0, 255, (1, 32, 32), dtype=np.uint8))
    settings = {"model.input_size": 32, "model.alpha": 0.35, "train.epochs": 3, "train.batch_size": 2}
    small = params.with_values(FIXED | settings)
    refs, seen = all_training(SPLIT, small), {3: [], 2: []}
    for epochs, rows in seen.items():
        fit(
            small,
            refs,
            [],
            epochs=3,
            stop_after=epochs,
            on_epoch=lambda row, _, rows=rows: rows.append((row["loss"], row["learning_rate"])),
        )
    assert seen[2] == seen[3][:2]
    assert seen[2][1][1] < seen[2][0][1]


def test_hashes_do_not_name_subjects():
    assert "s1" not in "".join(hashed(["s1", "s2"]))
    assert hashed(["s2", "s1", "s1"]) == hashed(["s1", "s2"])


def test_images_of_participants_stay_out_of_mlflow_unless_allowed(params):
    participants = params.with_values({"cohort.raw": "data/raw"})
    assert may_log_images(params)
    assert not may_log_images(participants)
    assert may_log_images(participants.with_values({"tracking.log_images": True}))
