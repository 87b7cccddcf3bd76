import os
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_DOES_NOT_EXIST,
    UNAUTHENTICATED,
)

from adpet.errors import TrackingError
from adpet.tracking import store
from adpet.tracking.runs import find_run, open_run
from adpet.tracking.store import connect, current, main_root, store_uri


@pytest.fixture(autouse=True)
def no_address(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@contextmanager
def trickling_server():
    """Answer each request with a byte every 100 ms, without end; yield the address."""

    def trickle(connection):
        with connection:
            try:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
                while not over.wait(0.1):
                    connection.sendall(b" ")
            except OSError:
                return

    def accept():
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=trickle, args=(connection,), daemon=True).start()

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()


class TestAddress:
    def test_default_is_a_sqlite_file_at_the_projects_root(self, tmp_path):
        assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"

    @pytest.mark.parametrize("workspace", [".dvc/tmp/exps/tmp1", ".dvc/tmp/exps/standalone/tmp2"])
    def test_temporary_workspaces_of_dvc_use_the_main_projects_store(self, tmp_path, workspace):
        assert store_uri(tmp_path / workspace) == f"sqlite:///{tmp_path}/mlflow.db"

    def test_a_project_below_the_git_root_keeps_its_own_store(self, tmp_path):
        project = tmp_path / "sub"
        assert main_root(project / ".dvc/tmp/exps/tmp1/sub") == project

    def test_the_environment_names_another_store(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
        assert store_uri(tmp_path) == "http://localhost:5000"

    def test_a_relative_sqlite_path_is_taken_from_the_main_root(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        assert store_uri(tmp_path / ".dvc/tmp/exps/tmp1") == f"sqlite:///{tmp_path}/mlflow.db"


class TestConnection:
    def test_a_new_store_holds_the_experiment_and_its_artifacts_beside_it(self, tmp_path, capfd, monkeypatch):
        root, elsewhere = tmp_path / "a project", tmp_path / "elsewhere"
        root.mkdir()
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        connect(root)
        opened = current()
        experiment = opened.client.get_experiment(opened.experiment_id)
        assert experiment.name == "adpet"
        assert experiment.artifact_location == (root / "mlartifacts").as_uri()
        assert [path.name for path in root.iterdir()] == ["mlflow.db"]
        assert not list(elsewhere.iterdir())
        out, err = capfd.readouterr()
        assert (out, err) == ("", "")

    def test_the_next_project_is_not_sent_to_the_store_of_the_one_before(self, project, tmp_path, copy_store):
        other = tmp_path / "other"
        other.mkdir()
        copy_store(other / "mlflow.db")
        for root in (other, project):
            connect(root)
            assert current().uri == f"sqlite:///{root}/mlflow.db"
        assert "MLFLOW_TRACKING_URI" not in os.environ

    def test_a_half_made_database_of_a_killed_process_is_replaced(self, empty_store):
        assert [path.name for path in empty_store.parent.iterdir()] == ["mlflow.db"]

    def test_a_deleted_experiment_is_named_with_the_command_that_restores_it(self, project):
        connect(project)
        opened = current()
        opened.client.delete_experiment(opened.experiment_id)
        with pytest.raises(TrackingError, match=f"restore --experiment-id {opened.experiment_id}"):
            connect(project)

    def test_nothing_is_logged_without_a_connection(self, monkeypatch):
        monkeypatch.setattr(store._Connection, "target", None)
        with pytest.raises(TrackingError, match="connect first"):
            find_run("0", "train")


class TestRefusals:
    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            ("http://127.0.0.1:1", "does not answer .connection refused.; start it, or correct MLFLOW_"),
            ("file:///tmp/mlruns", "migrate to a database backend"),
            ("gopher://there", "unsupported URI 'gopher://there'"),
            ("sqlite:////not/there/mlflow.db", "in a folder that exists; received /not/there/mlflow.db"),
            ("gopher://ann:secret@there", "unsupported URI 'gopher://there'"),
            (
                "http://ann:secret@127.0.0.1:1",
                "without a user or password.* received http://127.0.0.1:1 with",
            ),
            (
                "http://ann:se/c@ret@127.0.0.1:1",
                "without a user or password.* received http://127.0.0.1:1 with",
            ),
            ("http://[::1", "an MLflow store; received ValueError: Invalid IPv6 URL; mend that"),
            (
                "postgresql+psycopg2://u:secret@127.0.0.1:1/runs",
                "Connection refused.*; mend that, or correct",
            ),
            ("postgresql+psycopg2://u:p@secret@127.0.0.1:1/runs", "with %40 for an @ in the password"),
            ("postgresql://u:secret@db.lab:port/runs", "with %40 for an @ in the password"),
            ("postgresql+none://u:secret@db.lab/runs", "driver is installed; received .*postgresql.none"),
            (
                "mssql+pyodbc://u:secret@db.lab/runs",
                "driver is installed; received .*No module named 'pyodbc'",
            ),
            ("sqlite:///", "required a SQLite file, as in .* received sqlite:///; name one"),
            ("sqlite://", "required a SQLite file, as in"),
            ("sqlite:///:memory:", "required a SQLite file, as in"),
            ("sqlite:////proc/mlflow.db", "received: unable to open database file; mend that, or correct"),
        ],
    )
    def test_an_address_that_cannot_be_used_is_one_line_within_five_seconds(
        self, tmp_path, monkeypatch, uri, said
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        start = time.monotonic()
        with pytest.raises(TrackingError, match=said) as failure:
            connect(tmp_path)
        assert time.monotonic() - start < 5
        assert "\n" not in str(failure.value)
        assert "secret" not in str(failure.value)
        assert len(str(failure.value)) < 400

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda place: place.mkdir(), "unable to open database file"),
            (lambda place: place.write_text("no database\n" * 100), "file is not a database"),
        ],
    )
    def test_what_is_no_sqlite_file_is_said_at_once(self, tmp_path, monkeypatch, make, said):
        make(tmp_path / "mlflow.db")
        start = time.monotonic()
        with pytest.raises(TrackingError, match=f"mlflow.db: required an MLflow store; received: {said}"):
            connect(tmp_path)
        assert time.monotonic() - start < 5

    def test_a_database_of_something_else_is_one_line(self, tmp_path):
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            database.execute("INSERT INTO alembic_version VALUES ('v3.0.0.d')")
        database.close()
        with pytest.raises(
            TrackingError, match=r"received CommandError: .*v3.0.0.d.*; mend that, or correct MLFLOW_"
        ) as failure:
            connect(tmp_path)
        assert "\n" not in str(failure.value)

    def test_a_stage_that_adds_results_goes_on_without_the_database(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://127.0.0.1:1/runs")
        connect(tmp_path, required=False)
        assert store.reached() is None

    def test_a_database_that_never_answers_is_given_up_within_five_seconds(self, tmp_path, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://127.0.0.1:{port}/runs")
            start = time.monotonic()
            with pytest.raises(TrackingError, match=r"does not answer \(timed out\)"):
                connect(tmp_path)
            assert time.monotonic() - start < 5

    def test_a_server_that_draws_out_its_answer_is_given_up_within_five_seconds(self, tmp_path, monkeypatch):
        with trickling_server() as uri:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            start = time.monotonic()
            with pytest.raises(TrackingError, match=r"does not answer \(timed out\)"):
                connect(tmp_path)
            assert time.monotonic() - start < 5
        assert store.reached() is None

    def test_an_error_in_sql_is_one_line_and_is_not_logged_besides(self, project, capfd, caplog):
        connect(project)
        with sqlite3.connect(project / "mlflow.db") as database:
            database.execute("DROP TABLE experiment_tags")
        database.close()
        with pytest.raises(TrackingError, match=r"no such table: experiment_tags$"), store.reported():
            current().client.set_experiment_tag(current().experiment_id, "key", "value")
        assert capfd.readouterr().err == ""
        assert not caplog.records

    def test_nobody_is_asked_where_tracking_is_offline(self, tmp_path, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
            connect(tmp_path, offline=True, writes=True)
            with pytest.raises(TimeoutError):
                server.accept()

    def test_a_server_that_never_answers_is_given_up_within_five_seconds(self, tmp_path, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(TrackingError, match=r"does not answer \(timed out\)"):
                connect(tmp_path)
            assert time.monotonic() - start < 5
        assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ

    @pytest.mark.parametrize(
        ("variables", "answer", "said"),
        [
            (
                {},
                (UNAUTHENTICATED, "You are not authenticated"),
                "asks for a user and a password; set MLFLOW_",
            ),
            (
                {"USERNAME": "ann", "PASSWORD": "secret"},
                (UNAUTHENTICATED, ""),
                "not know user ann with this pass",
            ),
            (
                {"USERNAME": "ann", "PASSWORD": "secret"},
                (PERMISSION_DENIED, ""),
                "not let user ann do this; ask",
            ),
            (
                {},
                (PERMISSION_DENIED, "Invalid Host header"),
                "go by the name in this address; correct MLFLOW_",
            ),
        ],
    )
    def test_what_a_server_refuses_is_told_with_its_cure(
        self, monkeypatch, tmp_path, variables, answer, said
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, value in variables.items():
            monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
        code, text = answer
        with pytest.raises(TrackingError, match=said) as refused, store.reported():
            raise MlflowException(f"API request failed. Response body: '{text}'", error_code=code)
        assert not isinstance(refused.value, store.UnreachableError)
        assert "secret" not in str(refused.value)

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("postgresql+psycopg2://ann:sec/ret@db.lab/runs", "postgresql+psycopg2://db.lab/runs"),
            ("postgresql://db.lab/runs?user=ann&password=secret", "postgresql://db.lab/runs"),
            ("postgresql+psycopg2://u:s3?cret@127.0.0.1:1/db", "postgresql+psycopg2://127.0.0.1:1/db"),
            ("postgresql://u:se/c?r#e;t@db.lab/runs", "postgresql://db.lab/runs"),
            ("postgresql://u:se@cret@db.lab:5432/runs", "postgresql://db.lab:5432/runs"),
            ("postgresql://u:12/secret@db.lab/runs", "postgresql://db.lab/runs"),
            ("postgresql:u:secret@db.lab/runs", "postgresql:db.lab/runs"),
            ("postgresql://db.lab:5432/runs?user=ann@lab&password=s@cret", "postgresql://db.lab:5432/runs"),
            ("postgresql://db.lab?user=ann@lab&password=secret", "postgresql://db.lab"),
            ("postgresql://db.lab:5432?user=ann@lab&password=secret", "postgresql://lab"),
            ("http://mlflow.lab/#secret", "http://mlflow.lab/"),
            ("postgresql://db.lab/runs;password=secret", "postgresql://db.lab/runs"),
            ("mssql+pyodbc:///?odbc_connect=PWD%3Dsecret", "mssql+pyodbc:///"),
            ("https://mlflow.lab", "https://mlflow.lab"),
            ("https://mlflow.lab:8443/team/", "https://mlflow.lab:8443/team/"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("http://[::1", "http://[::1"),
            ("postgresql://ann@db.lab:5432/runs", "postgresql://db.lab:5432/runs"),
            ("file:///tmp/mlruns", "file:///tmp/mlruns"),
            ("/tmp/mlruns", "/tmp/mlruns"),
            ("databricks", "databricks"),
            ("sqlite:////home/ann@lab/mlflow.db", "sqlite:////home/ann@lab/mlflow.db"),
        ],
    )
    def test_an_address_is_shown_without_its_password(self, uri, shown):
        assert store.shown(uri) == shown

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (MlflowException("Invalid value", INVALID_PARAMETER_VALUE), store.RefusedError),
            (MlflowException("API request failed with error code 400", BAD_REQUEST), TrackingError),
            (MlflowException("No such run", RESOURCE_DOES_NOT_EXIST), TrackingError),
            (MlflowException("Slowly", REQUEST_LIMIT_EXCEEDED), store.UnreachableError),
            (MlflowException("Out of order", INTERNAL_ERROR), store.UnreachableError),
        ],
    )
    def test_what_mlflow_will_never_take_is_told_from_what_may_pass(self, error, kind):
        with pytest.raises(TrackingError) as told, store.reported():
            raise error
        assert type(told.value) is kind


class TestName:
    @pytest.mark.parametrize(
        ("address", "name"),
        [
            ("http://127.0.0.1:45843/", "http://127.0.0.1:45843"),
            ("HTTPS://MLflow.Lab/Team/", "https://mlflow.lab/Team"),
            ("postgresql://ann:secret@DB.lab/Runs", "postgresql://db.lab/Runs"),
            ("sqlite:////home/Ann/runs.db", "sqlite:////home/Ann/runs.db"),
            ("http://localhost:5000", "http://localhost:5000"),
            ("", "the project's own store"),
        ],
    )
    def test_a_store_has_one_name_however_its_address_is_spelled(self, tmp_path, monkeypatch, address, name):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert store.Target(tmp_path, "adpet", offline=False, writes=False, wait_s=0).name == name


class TestServer:
    def test_runs_go_to_the_server_and_its_end_is_one_line(self, tmp_path, monkeypatch, server):
        server.start()
        project = tmp_path / "project"
        project.mkdir()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        connect(project, experiment="on the server", writes=True)
        assert current().client.get_experiment(current().experiment_id).tags[store.WRITER] == "ann"
        with open_run(lineage="5", kind="train", name="remote") as run:
            run.log_metrics({"loss": 0.5}, step=0)
            note = tmp_path / "note.txt"
            note.write_text("kept by the server")
            run.log_artifact(note, "notes")
        run_id = find_run("5", "train")
        assert current().client.get_run(run_id).data.tags["mlflow.user"] == "ann"
        assert [path.read_text() for path in server.artifacts.rglob("note.txt")] == ["kept by the server"]
        assert [path.name for path in project.rglob("*")] == [".adpet", "outbox"]

        server.kill()
        start = time.monotonic()
        with pytest.raises(TrackingError, match=f"{server.uri}: .*the server does not answer"):
            connect(project)
        assert time.monotonic() - start < 5
