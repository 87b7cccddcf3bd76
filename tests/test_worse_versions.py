"""By the default rule a good version becomes the champion, and versions made worse on purpose are refused."""

import shutil
import sys

import pandas as pd
import pytest
from workspace import begin_project, copy_of

pytestmark = pytest.mark.slow

# Just enough subjects for the rule, with a clear deficit, and a leakage test that can be conclusive. Of two AUC of
# 1 on 13 + 13 subjects the difference may still be 0.16, and 40 + 40 would take minutes: the margin to the baseline
# is wider than the default.
GOOD = {
    "simulation.ad_subjects": 26,
    "simulation.cn_subjects": 26,
    "simulation.followup_fraction": 0.0,
    "simulation.ad_severity_mean": 1.8,
    "simulation.ad_severity_sd": 0.1,
    "simulation.preclinical_fraction": 0.0,
    "compute.workers": 1,
    "split.test_fraction": 0.5,
    "split.folds": 2,
    "model.feature_layer": "block_4_expand_relu",
    "augment.rotation_degrees": 5.0,
    "augment.zoom": 0.1,
    "augment.shift": 0.02,
    "augment.shear": 0.0,
    "augment.flip": True,
    "augment.intensity": 0.1,
    "train.learning_rate": 0.003,
    "train.epochs": 12,
    "train.batch_size": 8,
    "leakage.subjects": 24,
    "leakage.test_fraction": 0.5,
    "leakage.step_mm": 6.0,
    "leakage.epochs": 12,
    "promotion.baseline_margin": 0.2,
}
# What a promotion is decided on.
DECIDING = ("train", "evaluate", "export", "external", "leakage", "register")


def run(workspace, *stages):
    code = "import sys\nfrom adpet import cli\nfor stage in sys.argv[1:]: cli.main([stage])"
    workspace.run(sys.executable, "-c", code, *stages)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A project whose version became the champion without force."""
    good = begin_project(tmp_path_factory.mktemp("good") / "project", GOOD, dvc=False)
    card = good.root / "results/report/MODEL_CARD.md"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text("# A model card, which no promotion reads\n")
    run(good, "simulate", "ingest", "normalize", "slice", "split", "tune", *DECIDING)
    assert "NOT MET" not in good.adpet("promote").stdout
    assert "promotion: every condition is met" in good.adpet("history").stdout
    return good


@pytest.fixture
def worse(good, tmp_path):
    return copy_of(good, tmp_path / "worse")


def refused(workspace):
    """Return the conditions that the newest version does not meet, with their reasons."""
    done = workspace.adpet("promote", status=1)
    assert "models:/adpet/2: required every condition; not met: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert "version 2" not in workspace.adpet("history").stdout
    rows = [
        line.removeprefix("NOT MET").split(maxsplit=1)
        for line in done.stdout.splitlines()
        if "NOT MET" in line
    ]
    return dict(rows)


def test_version_that_has_hardly_learned_is_refused_for_its_auc(worse):
    worse.set_params({"train.epochs": 1, "train.learning_rate": 1e-5})
    run(worse, "train", "evaluate", "export", "register")  # the leakage test is of the split, which stays
    assert "required: lower end over 0.8" in refused(worse)["AUC"]


def test_version_of_shuffled_labels_is_refused_for_its_auc(worse):
    shutil.copytree(worse.root / "data/simulated/raw", worse.root / "data/raw")
    table = worse.root / "data/raw/participants.tsv"
    people = pd.read_csv(table, sep="\t", dtype=str)
    people["diagnosis"] = people["diagnosis"].sample(frac=1, random_state=0).to_numpy()
    people.to_csv(table, sep="\t", index=False)
    worse.set_params({"cohort.raw": "data/raw"})
    run(worse, "ingest", "split", *DECIDING)  # volumes and slices follow from the scans alone
    assert "required: lower end over 0.8" in refused(worse)["AUC"]


def test_version_of_a_split_by_slice_is_refused_for_the_leak(worse):
    worse.set_params({"split.unit": "slice"})
    run(worse, "split", *DECIDING)
    assert refused(worse)["new"].startswith("subjects     the split leaked subjects")
