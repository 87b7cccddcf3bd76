"""Runs on a server that is absent, is killed, or is slow: nothing lost, nothing doubled, no work stopped."""

import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest

from adpet.errors import TrackingError
from adpet.tracking import runs, sync
from adpet.tracking.models import ready_models
from adpet.tracking.runs import append_to_run, find_run, open_run, search
from adpet.tracking.store import connect, current, local
from adpet.tracking.sync import Mirror, shared_run, start_tracking, sync_all

EXAMPLE = np.zeros((2, 8, 8, 1), dtype=np.uint8)

# A training of an epoch each 100 ms, until it is told to stop; it prints its epochs, and how long tracking took
# at most.
TRAINING = """
import sys, time
from pathlib import Path
from adpet.tracking import sync
from adpet.tracking.runs import open_run
root, epochs = Path(sys.argv[1]), int(sys.argv[2])
sync.PAUSE_S = sync.PAUSE_AFTER_FAILURE_S = 0.2
sync.start_tracking(root, experiment="adpet")
longest = 0.0
with open_run(lineage="a1", kind="train", name="x", params={"alpha": 0.5}) as run:
    for epoch in range(epochs):
        if (root / "stop").exists():
            break
        started = time.monotonic()
        run.log_metrics({"loss": 1 / (1 + epoch), "val": {"auc": epoch}}, step=epoch)
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.1)
        print(epoch, flush=True)
    (root / "curves.txt").write_text("a curve")
    run.log_artifact(root / "curves.txt", "train")
print(f"longest {longest:.3f}", flush=True)
"""


@pytest.fixture
def named(project, server, monkeypatch):
    """The project, with a server named that has not been started yet."""
    monkeypatch.setattr(sync, "PAUSE_S", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    yield project
    runs.observers.clear()


def training(root, *, epochs):
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(root), str(epochs)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def read_to(process, line):
    """Read what a training prints up to this line."""
    for printed in process.stdout:
        if printed.strip() == line:
            return
    raise AssertionError(process.stderr.read())


def there(lineage="a1", kind="train"):
    """The one run of a lineage on the server."""
    (run,) = search(current(), lineage, kind)
    return run


def curve(key, lineage="a1", kind="train"):
    history = current().client.get_metric_history(there(lineage, kind).info.run_id, key)
    return [(each.step, each.value) for each in history]


def wait_for_curve(least):
    """Wait until the server has this many epochs of a training that goes on."""
    for _ in range(900):
        if search(current(), "a1", "train") and len(curve("loss")) >= least:
            return
        time.sleep(0.1)
    raise TimeoutError


def losses(epochs):
    return [(epoch, 1 / (1 + epoch)) for epoch in range(epochs)]


def logged(tiny_model, tmp_path, lineage="a1"):
    """Log a training with everything that a run can have."""
    (tmp_path / "one.txt").write_text("1")
    with open_run(
        lineage=lineage, kind="train", name="x", params={"alpha": 1}, tags={"adpet.seed": 7}
    ) as run:
        for epoch in range(3):
            run.log_metrics({"loss": 1 / (1 + epoch)}, step=epoch)
        run.log_dataset("raw", "d41", "data/raw", counts={"scans": 24})
        run.log_artifact(tmp_path / "one.txt", "notes")
        run.log_model(tiny_model, signature_example=EXAMPLE, metadata={"slice": 1})
    with append_to_run(lineage) as run:
        run.log_metrics({"test": {"auc": 0.9}})
        run.log_table("metrics", pd.DataFrame({"Metric": ["AUC"]}))


@pytest.mark.server
class TestAbsent:
    def test_a_stage_ends_well_and_its_run_is_sent_whole_later(
        self, named, server, tiny_model, tmp_path, capsys
    ):
        start_tracking(named, experiment="adpet")
        logged(tiny_model, tmp_path)
        first, second = capsys.readouterr().err.splitlines()
        assert first == second
        assert first.startswith("MLflow: 1 run(s) are not all on the server (")
        assert "does not answer" in first
        assert first.endswith("send them with: adpet sync")
        with pytest.raises(TrackingError, match="the server does not answer"):
            shared_run("a1")

        server.start()
        connect(named)
        mine = local().client.get_run(find_run("a1", "train"))
        for _ in range(2):  # the second time there is nothing to send
            assert sync_all() == (1, [])
            theirs = there()
            assert curve("loss") == losses(3)
            assert curve("test.auc") == [(0, 0.9)]
            assert theirs.data.params == {"alpha": "1"}
            assert theirs.data.tags["adpet.seed"] == "7"
            assert theirs.data.tags["mlflow.loggedArtifacts"] == '[{"path": "metrics.json", "type": "table"}]'
            assert len(list(server.artifacts.rglob("metrics.json"))) == 1
            assert "adpet.unsent" not in theirs.data.tags
            assert (theirs.info.status, theirs.info.run_name) == ("FINISHED", "x")
            assert (theirs.info.start_time, theirs.info.end_time) == (
                mine.info.start_time,
                mine.info.end_time,
            )
            assert [each.dataset.digest for each in theirs.inputs.dataset_inputs] == ["d41"]
            (model,) = ready_models(theirs.info.run_id)
            assert [each.key for each in model.metrics] == ["test.auc"]
            assert [path.read_text() for path in server.artifacts.rglob("one.txt")] == ["1"]
        assert shared_run("a1") == theirs.info.run_id != mine.info.run_id

        # A change of the same size arrives; a run that was deleted on the server is made again there.
        (tmp_path / "one.txt").write_text("2")
        with append_to_run("a1") as run:
            run.log_artifact(tmp_path / "one.txt", "notes")
        assert [path.read_text() for path in server.artifacts.rglob("one.txt")] == ["2"]
        current().client.delete_run(theirs.info.run_id)
        assert sync_all() == (1, [])
        assert (curve("loss"), there().info.status) == (losses(3), "FINISHED")

    def test_what_an_earlier_stage_left_is_sent_at_the_end_of_the_next(self, named, server, capsys):
        start_tracking(named, experiment="adpet")
        with (
            open_run(lineage="a1", kind="tune", name="search") as above,
            open_run(lineage="a1.0", kind="trial", name="trial", parent=above.run_id) as trial,
        ):
            trial.log_metrics({"loss": 1.0}, step=0)
        assert "2 run(s) are not all on the server" in capsys.readouterr().err
        server.start()
        start_tracking(named, experiment="adpet")
        with open_run(lineage="b2", kind="train", name="x"):
            pass
        assert capsys.readouterr().err == ""
        assert there("b2").info.status == "FINISHED"
        assert there("a1.0", "trial").data.tags["mlflow.parentRunId"] == there("a1", "tune").info.run_id

    def test_a_run_of_another_clone_gets_the_results_of_this_one(self, named, server, copy_store, tmp_path):
        server.start()
        start_tracking(named, experiment="adpet")
        with open_run(lineage="a1", kind="train", name="hers") as run:
            run.log_metrics({"loss": 1.0}, step=0)
        (other := tmp_path / "another clone").mkdir()
        copy_store(other / "mlflow.db")
        start_tracking(other, experiment="adpet")
        with append_to_run("a1") as run:
            run.log_metrics({"test.auc": 0.9})
        assert (there().info.run_name, there().data.metrics) == ("hers", {"loss": 1.0, "test.auc": 0.9})
        assert shared_run("a1") == there().info.run_id

    def test_a_mark_and_a_note_that_people_set_on_the_server_stay(self, named, server):
        server.start()
        start_tracking(named, experiment="adpet")
        for _ in range(2):
            with open_run(lineage="a1", kind="train", name="x", tags={"adpet.leaky": "false"}):
                pass
            for key, value in (("adpet.leaky", "true"), ("mlflow.note.content", "mine")):
                current().client.set_tag(there().info.run_id, key, value)
        sync_all()
        tags = there().data.tags
        assert (tags["adpet.leaky"], tags["mlflow.note.content"]) == ("true", "mine")


@pytest.mark.server
class TestDisturbed:
    def test_curves_are_live_and_a_server_that_is_killed_and_restarted_costs_nothing(self, named, server):
        server.start()
        connect(named)
        process = training(named, epochs=10_000)
        wait_for_curve(5)
        server.kill()
        read_to(process, "60")
        server.start()
        wait_for_curve(70)
        (named / "stop").touch()
        printed, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        epochs = int(printed.split()[-3]) + 1
        assert float(printed.split()[-1]) < 2.0
        assert curve("loss") == losses(epochs)
        assert [step for step, _ in curve("val.auc")] == list(range(epochs))
        assert there().info.status == "FINISHED"
        assert [path.read_text() for path in server.artifacts.rglob("curves.txt")] == ["a curve"]

    def test_a_training_that_is_killed_is_continued_on_the_server_too(self, named, server):
        server.start()
        connect(named)
        process = training(named, epochs=1000)
        wait_for_curve(3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert there().info.status == "RUNNING"
        process = training(named, epochs=40)
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert (curve("loss")[:40], there().info.status) == (losses(40), "FINISHED")

    def test_processes_that_send_children_together_make_their_parent_once(self, named, server):
        connect(named, required=False)
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        parent = find_run("a1", "train")
        for fold in range(2):
            with open_run(lineage=f"f.{fold}", kind="fold", name=f"fold {fold}", parent=parent):
                pass
        server.start()
        mirrors = [Mirror(local(), current()) for _ in range(2)]
        folds = [find_run(f"f.{fold}", "fold") for fold in range(2)]
        senders = [
            threading.Thread(target=mirror.send, args=(run_id,))
            for mirror, run_id in zip(mirrors, folds, strict=True)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        for fold in range(2):
            assert there(f"f.{fold}", "fold").data.tags["mlflow.parentRunId"] == there("a1").info.run_id


def test_a_server_that_never_answers_costs_a_stage_only_the_wait_at_its_end(project, monkeypatch, capsys):
    monkeypatch.setattr(sync, "WAIT_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
        start_tracking(project, experiment="adpet")
        try:
            start = time.monotonic()
            with open_run(lineage="a1", kind="train", name="x") as run:
                for epoch in range(20):
                    run.log_metrics({"loss": epoch}, step=epoch)
                took = time.monotonic() - start
            assert took < 2
            assert time.monotonic() - start < took + 2
        finally:
            runs.observers.clear()
    assert "1 run(s) are not all on the server (it is slow)" in capsys.readouterr().err
    assert find_run("a1", "train")


def test_without_a_server_nothing_is_sent_and_the_run_is_found_where_it_is(project):
    start_tracking(project, experiment="adpet")
    with open_run(lineage="a1", kind="train", name="x"):
        pass
    assert not runs.observers
    assert shared_run("a1") == find_run("a1", "train")
