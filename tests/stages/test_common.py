"""Whose slices are trained on, and the guards before training and evaluation."""

import pandas as pd
import pytest

from adpet.errors import LeakageError
from adpet.params import load_params
from adpet.stages.common.checks import hashed, may_log_images
from adpet.stages.common.fitting import training_and_validation

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
    leaky = params.with_values({"split.unit": "slice"})
    assert "s1" in subjects(training_and_validation(leaking, leaky, fold=0)[0])


def test_without_folds_validation_is_on_the_test_set_as_in_2019(params):
    protocol = params.with_values({"split.unit": "slice", "split.folds": 0} | FIXED)
    two = SPLIT.assign(part=["test", "train", "train", "train"])
    training, validation = training_and_validation(two, protocol, fold=0)
    assert (subjects(training), subjects(validation)) == (["s2", "s3", "s4"], ["s1"])


def test_hashes_do_not_name_subjects():
    assert "s1" not in "".join(hashed(["s1", "s2"]))
    assert hashed(["s2", "s1", "s1"]) == hashed(["s1", "s2"])


def test_images_of_participants_stay_out_of_mlflow_unless_allowed(params):
    participants = params.with_values({"cohort.raw": "data/raw"})
    assert may_log_images(params)
    assert not may_log_images(participants)
    assert may_log_images(participants.with_values({"tracking.log_images": True}))
