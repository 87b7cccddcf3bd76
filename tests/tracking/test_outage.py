"""Whatever happens to the server or to the stage, everything arrives, once and in order."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from adpet.errors import TrackingError
from adpet.tracking import journal, runs, sender
from adpet.tracking.models import ready_models
from adpet.tracking.runs import append_to_run, delivered_run, find_run, open_run
from adpet.tracking.store import connect, current, target

EXAMPLE = np.zeros((2, 8, 8, 1), dtype=np.uint8)
SOURCE = str(Path(runs.__file__).parents[2])

# A training: an epoch each 50 ms, whose calls must not take long; then it says how long the longest took.
TRAINING = """
import sys, time
from pathlib import Path
from adpet.tracking.store import connect
from adpet.tracking.runs import open_run
root, epochs, wait_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
connect(root, wait_s=wait_s)
longest = 0.0
with open_run(lineage="a1", kind="train", name="x", params={"alpha": 0.5}, reopen=True) as run:
    for epoch in range(epochs):
        started = time.monotonic()
        run.log_metrics({"loss": 1 / (1 + epoch), "val": {"auc": epoch}}, step=epoch)
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.05)
        print(epoch, flush=True)
    (root / "curves.txt").write_text("a curve")
    run.log_artifact(root / "curves.txt", "train")
print(f"longest {longest:.3f}", flush=True)
"""


def training(root, *, epochs, wait_s=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(root), str(epochs), str(wait_s)],
        env={**os.environ, "PYTHONPATH": SOURCE}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def read_to(process, line):
    """Read what a training prints until it prints this line."""
    for printed in process.stdout:
        if printed.strip() == line:
            return
    raise AssertionError(process.stderr.read())


def stored(lineage="a1", kind="train"):
    query = f"tags.`adpet.lineage` = '{lineage}' and tags.`adpet.kind` = '{kind}'"
    (run,) = current().client.search_runs([current().experiment_id], query)
    return run


def curve(key, lineage="a1", kind="train"):
    history = current().client.get_metric_history(stored(lineage, kind).info.run_id, key)
    return [(one.step, one.value) for one in history]


def losses(epochs):
    return [(epoch, 1 / (1 + epoch)) for epoch in range(epochs)]


def stored_in_outbox(project):
    """The store that has a part of the one session that waits."""
    (name,) = journal.names(project / journal.OUTBOX)
    return journal.glance(project / journal.OUTBOX, name).store


def unsent():
    return sum(sender.waiting(only=None).values())


def wait_until_sent():
    """Wait for the thread that sends beside the work."""
    for _ in range(200):
        if not unsent():
            return
        time.sleep(0.05)
    raise TimeoutError


class Proxy(ThreadingHTTPServer):
    """Stands before a server and makes trouble, which `trouble` names for each request."""

    daemon_threads = True

    def __init__(self, behind):
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind = behind
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        self.trouble = lambda: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that has gone is what is tested, and not worth a word."""


class _Forward(BaseHTTPRequestHandler):
    def handle_request(self):
        trouble = self.server.trouble()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        if trouble == "refused":
            self.answer(500, b"out of order")
            return
        kept = {
            key: value
            for key, value in self.headers.items()
            if key.lower() in ("content-type", "authorization")
        }
        request = urllib.request.Request(
            self.server.behind + self.path, data=body, headers=kept, method=self.command
        )
        try:
            with urllib.request.urlopen(request) as response:
                status, content = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        if trouble == "lost":
            self.close_connection = True
            return
        if trouble == "slow":
            time.sleep(0.5)
        self.answer(status, content)

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815 (the base class's names)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def proxy(server, monkeypatch):
    """A server that runs, behind a proxy that makes trouble."""
    server.start()
    with Proxy(server.uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        yield proxy
        proxy.shutdown()


class TestServerGone:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["server", "server_on_postgresql"])
    def test_a_server_that_is_killed_and_comes_back_has_all_of_a_training_once(
        self, root, monkeypatch, request, kind
    ):
        server = request.getfixturevalue(kind)
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        process = training(root, epochs=400, wait_s=60)
        read_to(process, "20")
        gone = time.monotonic()
        server.kill()
        read_to(process, "40")
        server.start()
        outage = time.monotonic() - gone
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        # A busy disk may take a while for a line, but no call has waited for the server.
        assert float(out.split("longest ")[1]) < outage / 2
        connect(root)
        assert curve("loss") == losses(400)
        assert stored().info.status == "FINISHED"
        assert [path.read_text() for path in server.artifacts.rglob("curves.txt")] == ["a curve"]
        assert unsent() == 0

    @pytest.mark.slow
    def test_a_server_that_stays_away_holds_nothing_up_and_gets_all_with_the_next_stage(
        self, root, monkeypatch, server
    ):
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        process = training(root, epochs=30, wait_s=60)
        read_to(process, "10")
        server.kill()
        started = time.monotonic()
        _, err = process.communicate(timeout=60)
        # 20 epochs of 50 ms are left; that the server is away is known, so that it is not waited for.
        assert time.monotonic() - started < 15
        assert (process.returncode, err.count("\n")) == (0, 1)
        assert "does not answer" in err
        assert "run: adpet sync" in err
        connect(root, required=False)
        with append_to_run("a1") as later:
            later.log_metrics({"test.auc": 0.9})
        with pytest.raises(TrackingError, match="required all of the train run in MLflow, but"):
            delivered_run("a1", "train")
        server.start()
        connect(root)
        assert delivered_run("a1", "train") == stored().info.run_id
        assert curve("loss") == losses(30)
        assert curve("test.auc") == [(0, 0.9)]
        assert stored().info.status == "FINISHED"

    def test_a_stage_that_begins_something_wants_the_server_to_be_there(self, root, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        with pytest.raises(TrackingError, match="does not answer"):
            connect(root)
        connect(root, required=False)


class TestTrouble:
    """500 instead of an answer, an answer that is lost on its way, an answer that takes long."""

    def everything(self, tiny_model, tmp_path):
        (tmp_path / "one.txt").write_text("1")
        with open_run(lineage="s", kind="tune", name="search", reopen=True) as search:
            for number in range(2):
                with open_run(
                    lineage=f"s.{number}", kind="trial", name=f"trial {number}", parent=search
                ) as trial:
                    trial.log_metrics({"loss": number}, step=0)
        with open_run(
            lineage="a1", kind="train", name="x", params={f"p{i}": i for i in range(150)}, tags={"a": "b"}
        ) as run:
            run.log_dataset("raw", "d41d8cd9.dir", "data/raw")
            for epoch in range(10):
                run.log_metrics({"loss": 1 / (1 + epoch), "undefined": float("nan")}, step=epoch)
            run.log_metrics({"final": 0.5})
            run.log_artifact(tmp_path / "one.txt", "notes")
            run.log_model(tiny_model, signature_example=EXAMPLE, metadata={})
        with append_to_run("a1") as later:
            later.log_metrics({"test": {"auc": 0.9}})

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(2))
    def test_everything_arrives_once_whichever_answers_fail(self, root, proxy, tiny_model, tmp_path, seed):
        connect(root, wait_s=0)
        chance = random.Random(seed)
        proxy.trouble = lambda: chance.choice([*[None] * 14, "refused", "lost"])
        self.everything(tiny_model, tmp_path)
        for _ in range(200):
            if not unsent():
                break
            sender.deliver(only=target().name)
        proxy.trouble = lambda: None
        self.assert_all_there_once()

    def assert_all_there_once(self):
        assert unsent() == 0
        run, client = stored(), current().client
        assert (run.info.status, run.data.tags["a"], len(run.data.params)) == ("FINISHED", "b", 150)
        assert "adpet.resumed" not in run.data.tags
        assert curve("loss") == losses(10)
        assert [step for step, _ in curve("undefined")] == list(range(10))
        assert (curve("final"), curve("test.auc")) == ([(0, 0.5)], [(0, 0.9)])
        assert len(run.inputs.dataset_inputs) == 1
        assert len(client.list_artifacts(run.info.run_id, "notes")) == 1
        (model,) = ready_models(run.info.run_id)
        assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
        assert [one.key for one in model.metrics] == ["test.auc"]
        search = stored("s", "tune")
        for number in range(2):
            trial = stored(f"s.{number}", "trial")
            assert trial.data.tags["mlflow.parentRunId"] == search.info.run_id
            assert curve("loss", f"s.{number}", "trial") == [(0, number)]
            assert trial.info.status == "FINISHED"

    @pytest.mark.slow
    def test_a_slow_server_is_waited_for_at_the_end_alone_and_no_longer_than_allowed(
        self, root, proxy, capsys
    ):
        connect(root, wait_s=1.0)
        proxy.trouble = lambda: "slow"
        started = time.monotonic()
        with open_run(lineage="a1", kind="train", name="x", params={"a": 1}, tags={"b": 2}) as run:
            for epoch in range(50):
                run.log_metrics({"loss": 1 / (1 + epoch)}, step=epoch)
            assert time.monotonic() - started < 1.5
            run.set_tags({"c": 3})
        assert time.monotonic() - started < 5
        said = capsys.readouterr().err
        assert "it takes long" in said
        assert "run: adpet sync" in said
        sender.deliver(only=target().name)
        assert curve("loss") == losses(50)


class TestOffline:
    def test_nothing_is_asked_and_all_is_sent_by_the_first_who_connects(
        self, root, capsys, monkeypatch, copy_store
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        connect(root, offline=True)
        with open_run(lineage="a1", kind="train", name="x", params={"alpha": 1}) as run:
            for epoch in range(3):
                run.log_metrics({"loss": 1 / (1 + epoch)}, step=epoch)
        with append_to_run("a1") as later:
            later.log_metrics({"test.auc": 0.9})
        assert capsys.readouterr().err.count("tracking.offline") == 2
        with pytest.raises(TrackingError, match=r"tracking\.offline: required false"):
            find_run("a1", "train")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        copy_store(root / "mlflow.db")
        connect(root)
        sender.deliver(only=target().name)
        assert curve("loss") == losses(3)
        assert curve("test.auc") == [(0, 0.9)]
        assert stored().info.status == "FINISHED"

    def test_the_run_has_the_times_of_the_training(self, project, capsys):
        connect(project, offline=True)
        before = time.time() * 1000
        with open_run(lineage="a1", kind="train", name="x"):
            time.sleep(0.2)
        after = time.time() * 1000
        time.sleep(0.5)
        connect(project)
        sender.deliver(only=None)
        info = stored().info
        assert before - 1 <= info.start_time <= info.end_time - 200
        assert info.end_time <= after + 1


class TestKilled:
    def killed(self, root, epochs, *, at):
        process = training(root, epochs=epochs)
        read_to(process, str(at))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    def test_what_a_killed_training_left_is_sent_and_its_run_continued(self, project):
        self.killed(project, 1000, at=5)
        process = training(project, epochs=12, wait_s=60)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert curve("loss") == losses(12)
        assert stored().info.status == "FINISHED"
        assert stored().data.tags["adpet.resumed"] == "1"
        assert unsent() == 0

    def test_a_killed_run_that_nobody_continues_is_not_left_running(self, project):
        self.killed(project, 1000, at=3)
        with open_run(lineage="b2", kind="train", name="another"):
            pass
        assert stored("a1").info.status == "KILLED"
        assert stored("b2").info.status == "FINISHED"

    def test_a_living_process_keeps_its_session(self, project):
        process = training(project, epochs=1000)
        try:
            read_to(process, "2")
            sender.deliver(only=None)
            assert stored().info.status == "RUNNING"
            assert journal.names(project / journal.OUTBOX)
        finally:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("left", [".partial-00000000000000000001-train-a1", ".partial-x"])
    def test_what_a_kill_left_half_made_is_removed(self, project, left):
        (project / journal.OUTBOX / left).mkdir(parents=True)
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        assert list((project / journal.OUTBOX).iterdir()) == []

    def test_a_line_that_was_cut_off_is_none(self, project):
        connect(project, offline=True)
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_metrics({"loss": 1.0}, step=0)
        (name,) = journal.names(project / journal.OUTBOX)
        file = project / journal.OUTBOX / name / "journal.jsonl"
        whole = file.read_bytes()
        file.write_bytes(whole[: whole.rindex(b"end") + 1])
        assert journal.unsent(project / journal.OUTBOX, name) == 2


class TestStores:
    def test_what_was_meant_for_another_store_stays_until_that_is_asked(self, project, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        connect(project, required=False, wait_s=5)
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        told = next((project / journal.OUTBOX).glob("*/journal.jsonl")).read_text()
        assert "http://127.0.0.1:1" in told
        assert "secret" not in told
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        connect(project)
        with open_run(lineage="b2", kind="train", name="x"):
            pass
        assert (find_run("a1", "train"), unsent()) == (None, 2)
        with pytest.raises(TrackingError, match="dvc repro --force train"), append_to_run("a1"):
            pass
        sender.deliver(only=None)
        assert find_run("a1", "train")
        assert unsent() == 0


class TestGone:
    """The run that something is for has been deleted, or is not known to the store."""

    def test_what_is_left_for_a_run_that_was_deleted_is_set_aside_and_a_new_training_begins_anew(
        self, project, capsys
    ):
        with open_run(lineage="a1", kind="train", name="x") as run:
            wait_until_sent()
            deleted = stored().info.run_id
            current().client.delete_run(deleted)
            for step in range(3):
                run.log_metrics({"loss": 1 / (1 + step)}, step=step)
        said = capsys.readouterr().err
        assert said.startswith("MLflow: 4 entries of the train run a1 were refused (")
        assert f"The run {deleted} must be in the 'active' state" in said
        assert said.count("\n") == 1
        assert unsent() == 0
        (kept,) = (project / journal.REFUSED).iterdir()
        assert f"they are kept in {journal.REFUSED / kept.name}: move this folder" in said
        assert (kept / "refused.jsonl").read_text().count("must be in the 'active' state") == 4
        with open_run(lineage="a1", kind="train", name="x", reopen=True) as run:
            run.log_metrics({"loss": 0.5}, step=0)
        assert (curve("loss"), stored().info.status) == ([(0, 0.5)], "FINISHED")
        assert capsys.readouterr().err == ""

    def test_the_run_of_a_killed_process_that_was_deleted_is_set_aside(self, project):
        process = training(project, epochs=1000)
        read_to(process, "30")
        process.kill()
        process.communicate()
        current().client.delete_run(stored().info.run_id)
        sender.deliver(only=None)
        (line,) = sender.refusals()
        assert "of the train run a1 were refused" in line
        assert unsent() == 0

    def test_what_was_set_aside_is_sent_as_a_new_run_when_it_is_moved_back(self, project):
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_metrics({"loss": 1.0}, step=0)
            wait_until_sent()
            current().client.delete_run(stored().info.run_id)
        (kept,) = (project / journal.REFUSED).iterdir()
        kept.rename(project / journal.OUTBOX / kept.name)
        sender.deliver(only=None)
        assert (curve("loss"), stored().info.status) == ([(0, 1.0)], "FINISHED")
        assert (sender.refusals(), unsent()) == ([], 0)

    def test_a_store_that_was_made_anew_gets_a_session_from_its_beginning(
        self, project, copy_store, tmp_path
    ):
        connect(project, wait_s=0)
        (tmp_path / "one.txt").write_text("1")
        self.sent_in_part(project, tmp_path / "one.txt")
        copy_store(project / "mlflow.db")
        connect(project)
        done = sender.deliver(only=target().name)
        assert (done.problems, unsent()) == ([], 0)
        assert curve("loss") == losses(3)
        assert (stored().info.status, stored().data.params) == ("FINISHED", {"alpha": "1"})
        assert len(current().client.list_artifacts(stored().info.run_id, "notes")) == 1

    def sent_in_part(self, project, file):
        """A run of which the store has the first lines; then no artifact can be written."""
        (project / "mlartifacts").write_text("in the way")
        with open_run(lineage="a1", kind="train", name="x", params={"alpha": 1}) as run:
            for epoch in range(3):
                run.log_metrics({"loss": 1 / (1 + epoch)}, step=epoch)
            run.log_artifact(file, "notes")
        sender.deliver(only=None)
        assert unsent() == 2
        (project / "mlartifacts").unlink()

    def test_what_one_store_has_a_part_of_goes_to_that_one_unless_all_is_asked(
        self, project, copy_store, tmp_path, monkeypatch
    ):
        """An offline session may go to any store, but the rest of it only to where its beginning is."""
        (tmp_path / "one.txt").write_text("1")
        connect(project, offline=True)
        self.sent_in_part(project, tmp_path / "one.txt")
        first_store = stored_in_outbox(project)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", copy_store(tmp_path / "other.db"))
        connect(project)
        assert target().name != first_store
        sender.deliver(only=target().name)
        assert (find_run("a1", "train"), unsent()) == (None, 2)
        sender.deliver(only=None)
        assert curve("loss") == losses(3)
        assert (stored().info.status, unsent()) == ("FINISHED", 0)


class TestRefused:
    def test_a_line_that_mlflow_refuses_is_set_aside_and_the_rest_arrives(self, project, tmp_path, capsys):
        client = current().client
        with open_run(lineage="a1", kind="train", name="x", params={"alpha": 1}) as run:
            run._tell("metrics", values={"loss": 1.0}, step=0)
            run._tell("metrics", values={"a (bad) name": 1.0}, step=0)
            run._tell("metrics", values={"loss": 0.5}, step=1)
        assert curve("loss") == losses(2)
        assert stored().info.status == "FINISHED"
        said = capsys.readouterr().err
        assert said.startswith("MLflow: 1 entries of the train run a1 were refused (")
        assert "a (bad) name" in said
        assert said.count("\n") == 1
        (kept,) = (project / journal.REFUSED).iterdir()
        assert (kept / "journal.jsonl").read_text().count("\n") == 6
        with append_to_run("a1") as run:
            run.log_metrics({"auc": 0.9})
        assert client.get_run(stored().info.run_id).data.metrics["auc"] == 0.9
        assert capsys.readouterr().err == ""

    def test_the_trouble_of_the_present_run_is_said_first(self, project, tmp_path, capsys):
        (tmp_path / "one.txt").write_text("1")
        (project / "mlartifacts").write_text("in the way")
        for lineage in ("a1", "b2"):
            with open_run(lineage=lineage, kind="train", name="x") as run:
                run.log_artifact(tmp_path / "one.txt")
        first, second = capsys.readouterr().err.splitlines()
        assert "-train-a1;" in first
        assert "-train-b2;" in second

    def test_a_run_that_cannot_be_sent_is_not_called_an_outage(self, project, tmp_path):
        (tmp_path / "one.txt").write_text("1")
        (project / "mlartifacts").write_text("in the way")
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_artifact(tmp_path / "one.txt")
        with pytest.raises(
            TrackingError, match=r"2 entries wait \(\w+Error: .*when that is mended, run: dvc repro"
        ):
            delivered_run("a1", "train")

    def test_a_damaged_file_is_named_and_holds_up_no_other_run(self, project, tmp_path, capsys):
        (tmp_path / "one.txt").write_text("1")
        connect(project, offline=True)
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_artifact(tmp_path / "one.txt")
        next((project / journal.OUTBOX).rglob("one.txt")).write_text("2")
        capsys.readouterr()
        connect(project)
        with open_run(lineage="b2", kind="train", name="x"):
            pass
        assert find_run("b2", "train")
        assert find_run("a1", "train") is None
        said = capsys.readouterr().err
        assert "one.txt: required the file with the SHA-256" in said
        assert said.count("\n") == 1

    def test_what_no_artifact_can_be_written_for_holds_up_no_other_run(self, project, tmp_path, capsys):
        (tmp_path / "one.txt").write_text("1")
        (project / "mlartifacts").write_text("a file where the folder of the artifacts should be")
        with open_run(lineage="a1", kind="train", name="x") as run:
            run.log_artifact(tmp_path / "one.txt", "notes")
        with open_run(lineage="b2", kind="train", name="x"):
            pass
        assert find_run("b2", "train")
        first, second = capsys.readouterr().err.splitlines()
        assert "Error: [Errno " in first
        assert "(it stays in" in second
        (project / "mlartifacts").unlink()
        sender.deliver(only=None)
        assert (stored("a1").info.status, unsent()) == ("FINISHED", 0)

    def test_a_journal_that_is_damaged_holds_up_no_other_run(self, project, capsys):
        connect(project, offline=True)
        for lineage in ("a1", "b2"):
            with open_run(lineage=lineage, kind="train", name="x") as run:
                run.log_metrics({"loss": 1.0}, step=0)
        first, second = sorted((project / journal.OUTBOX).glob("*/journal.jsonl"))
        first.write_bytes(first.read_bytes().replace(b'{"do": "metrics', b'{"do": "met{"do": "metrics'))
        second.write_bytes(b"\0" + second.read_bytes())
        capsys.readouterr()
        connect(project)
        with open_run(lineage="c3", kind="train", name="x"):
            pass
        assert find_run("c3", "train")
        said = capsys.readouterr().err
        assert f"({first}: required whole lines of JSON" in said
        assert said.count("\n") == 1
        assert [problem.text.partition(":")[0] for problem in sender.deliver(only=None).problems] == [
            str(first),
            str(second),
        ]

    def test_results_of_a_run_that_is_not_there_wait_for_it(self, project):
        connect(project, offline=True)
        with append_to_run("a1") as results:
            results.log_metrics({"test.auc": 0.9})
        connect(project)
        done = sender.deliver(only=None)
        assert "dvc repro --force train" in done.problems[0].text
        with open_run(lineage="a1", kind="train", name="x"):
            pass
        sender.deliver(only=None)
        assert curve("test.auc") == [(0, 0.9)]
