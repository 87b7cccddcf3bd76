"""`adpet sync` sends what waits, and says what it could not send."""

import shutil

import pytest

from adpet.commands.sync import run
from adpet.errors import TrackingError
from adpet.tracking import sender
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import connect, target


@pytest.fixture
def project(project_root, tmp_path, monkeypatch):
    """A project in which one run waits, for any store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(project_root / "params.yaml", tmp_path)
    connect(tmp_path, offline=True)
    with open_run(lineage="a1", kind="train", name="x") as told:
        told.log_metrics({"loss": 0.5}, step=0)
    return tmp_path


def test_it_is_sent_once(project):
    assert (
        run(everything=False) == f"3 entries of 1 run(s) sent to sqlite:///{project}/mlflow.db; nothing waits"
    )
    assert find_run("a1", "train")
    assert run(everything=False).startswith("0 entries of 0 run(s) sent")


def test_where_the_server_is_away_it_says_so_and_keeps_all(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(TrackingError, match="does not answer") as failure:
        run(everything=False)
    assert "\n" not in str(failure.value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "3 entries" in run(everything=False)


def test_what_is_meant_for_another_store_is_left_or_sent_with_all(project, monkeypatch):
    run(everything=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    connect(project, required=False, wait_s=5)
    with open_run(lineage="b2", kind="train", name="x"):
        pass
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "; 2 wait for http://127.0.0.1:1: set MLFLOW_TRACKING_URI, or use --all" in run(everything=False)
    assert "2 entries of 1 run(s) sent" in run(everything=True)
    assert find_run("b2", "train")


def test_another_spelling_of_the_same_address_is_the_same_store(project, monkeypatch):
    run(everything=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    connect(project, required=False, wait_s=5)
    with open_run(lineage="b2", kind="train", name="x"):
        pass
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "HTTP://127.0.0.1:1/")
    connect(project, required=False)
    assert sum(sender.waiting(only=target().name).values()) == 2


def test_a_damaged_journal_is_named_and_the_others_are_sent(project):
    connect(project, offline=True)
    with open_run(lineage="b2", kind="train", name="x"):
        pass
    damaged = min((project / ".adpet/outbox").glob("*/journal.jsonl"))
    damaged.write_bytes(b"\0" + damaged.read_bytes())
    with pytest.raises(
        TrackingError, match=rf"^2 entries of 1 run\(s\) sent .*{damaged}: required"
    ) as failure:
        run(everything=False)
    assert "\n" not in str(failure.value)
    assert find_run("b2", "train")


def test_what_mlflow_refuses_is_said_once_and_holds_up_nothing(project):
    connect(project, offline=True)
    with open_run(lineage="b2", kind="train", name="x") as told:
        told._tell("tags", values={"a (bad) name": "1"})
    with pytest.raises(
        TrackingError, match=r"^5 entries .*; nothing waits; 1 entries of the train run b2 were"
    ):
        run(everything=False)
    assert find_run("b2", "train")
    assert run(everything=False).endswith("nothing waits")
