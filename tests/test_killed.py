"""Stages that are killed under DVC, or interrupted, and what ``dvc repro`` makes of them."""

import os
import signal
import sys
import time

import pandas as pd
import pytest
from ruamel.yaml import YAML
from workspace import SMALL, runs_of

from adpet.paths import STUDIES

pytestmark = [pytest.mark.slow, pytest.mark.dvc]

# What a killed and an undisturbed run must agree in, byte by byte.
OUTPUTS = {
    "normalize": ["data/interim/volumes", "data/interim/alignment.csv"],
    "tune": ["results/tune/best.json", "results/tune/trials.csv", "results/tune/search.png"],
    "train": ["results/train/model.keras", "results/train/history.csv", "results/train/run.json"],
}


class TestKilled:
    """``kill -9`` of DVC and the stage in the middle of its work, then ``dvc repro``."""

    def kill_when(self, workspace, stage, ready):
        # As in a first run: else DVC would bring the outputs back from its cache.
        lock = YAML(typ="safe").load(workspace.root / "dvc.lock")
        for out in lock["stages"][stage]["outs"]:
            (workspace.root / ".dvc/cache/files/md5" / out["md5"][:2] / out["md5"][2:]).unlink()
        process = workspace.start("dvc", "repro", "--force", "--single-item", stage)
        while not ready():
            assert process.poll() is None, f"{stage} ended before it was killed: {process.communicate()}"
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def assert_repro_leads_to_the_same(self, stage, disturbed, undisturbed):
        assert f"Running stage '{stage}'" in disturbed.run("dvc", "repro").stdout
        assert disturbed.content(OUTPUTS[stage]) == undisturbed.content(OUTPUTS[stage])
        assert list(disturbed.root.rglob(".partial-*")) == []
        assert self.runs_of(disturbed) == self.runs_of(undisturbed)

    def runs_of(self, workspace):
        """Every run's kind and lineage, and how it ended."""
        runs, keys = runs_of(workspace, "%")[1], ("adpet.kind", "adpet.lineage")
        return sorted((*(run.data.tags[key] for key in keys), run.info.status) for run in runs)

    def test_normalize_goes_on_with_the_scans_it_lacks(self, finished_by_dvc, copied_from_dvc):
        def reports():
            return sorted((copied_from_dvc.root / ".adpet").glob("normalize/*/*.json"))

        self.kill_when(copied_from_dvc, "normalize", lambda: len(reports()) >= 4)
        assert 4 <= len(reports()) < len(pd.read_csv(finished_by_dvc.root / "data/interim/scans.csv"))
        self.assert_repro_leads_to_the_same("normalize", copied_from_dvc, finished_by_dvc)

    def test_tune_runs_the_lost_trial_again_and_no_trial_twice(self, finished_by_dvc, copied_from_dvc):
        (copied_from_dvc.root / STUDIES).unlink()

        def second_trial_runs():
            return (copied_from_dvc.root / STUDIES).exists() and _trials(copied_from_dvc) == 2

        self.kill_when(copied_from_dvc, "tune", second_trial_runs)
        self.assert_repro_leads_to_the_same("tune", copied_from_dvc, finished_by_dvc)
        table = pd.read_csv(copied_from_dvc.root / "results/tune/trials.csv")
        assert list(table["number"]) == list(range(SMALL["tune.trials"]))

    def test_train_comes_to_the_same_weights(self, finished_by_dvc, copied_from_dvc):
        def first_epoch_done():
            return any((copied_from_dvc.root / ".adpet").glob("train/*/fold-0.npz"))

        self.kill_when(copied_from_dvc, "train", first_epoch_done)
        self.assert_repro_leads_to_the_same("train", copied_from_dvc, finished_by_dvc)

    def test_ctrl_c_is_one_line_and_the_status_of_an_interrupt(self, copied_from_dvc):
        # Tests that run in the background ignore interrupts, and would hand that on.
        earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = copied_from_dvc.start(sys.executable, "-m", "adpet", "normalize")
        signal.signal(signal.SIGINT, earlier)
        while not list((copied_from_dvc.root / ".adpet").glob("normalize/*/*.json")):
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert errors == "adpet normalize: interrupted; run it again to go on\n"
        assert process.returncode == 130
        assert list(copied_from_dvc.root.rglob(".partial-*")) == []


def _trials(workspace) -> int:
    import sqlite3

    with sqlite3.connect(workspace.root / STUDIES) as study:
        return study.execute("select count(*) from trials").fetchone()[0]
