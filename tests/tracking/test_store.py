"""The project's own store and the server that MLFLOW_TRACKING_URI names."""

import os
import socket
import subprocess
import sys
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST

from adpet.errors import TrackingError
from adpet.tracking import store
from adpet.tracking.store import connect, current, local


@pytest.fixture
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


class TestOwnStore:
    def test_it_lies_in_the_project_wherever_python_runs(self, tmp_path, monkeypatch):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (root := tmp_path / "project").mkdir()
        (elsewhere := tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(elsewhere)
        connect(root)
        assert local() is current()
        assert local().uri == f"sqlite:///{root}/mlflow.db"
        experiment = local().client.get_experiment(local().experiment_id)
        assert (experiment.name, experiment.artifact_location) == ("adpet", (root / "mlartifacts").as_uri())
        assert [path.name for path in root.iterdir()] == ["mlflow.db"]
        assert list(elsewhere.iterdir()) == []
        assert "MLFLOW_TRACKING_URI" not in os.environ

    def test_a_temporary_workspace_of_dvc_uses_that_of_its_project(self, project):
        (workspace := project / ".dvc/tmp/exps/standalone/tmp1/.dvc/tmp/exps/tmp2").mkdir(parents=True)
        connect(workspace)
        assert local().uri == f"sqlite:///{project}/mlflow.db"

    def test_a_sqlite_address_names_it_and_a_relative_one_lies_in_the_project(
        self, project, copy_store, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", copy_store(tmp_path / "other.db"))
        connect(project)
        assert local().uri == current().uri == f"sqlite:///{tmp_path}/other.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
        copy_store(project / "other.db")
        connect(project)
        assert local().uri == f"sqlite:///{project}/other.db"

    def test_processes_that_start_together_make_one_store(self, tmp_path):
        script = "import sys; from pathlib import Path; from adpet.tracking.store import connect; connect(Path(sys.argv[1]))"
        kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        workers = [
            subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=kept, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        assert [worker.communicate()[1].decode() for worker in workers] == ["", ""]
        assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]

    @pytest.mark.parametrize("content", [b"no database", b"half made by a process that was killed" * 100])
    def test_a_file_that_is_no_database_is_refused_in_one_line(self, tmp_path, monkeypatch, content):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (tmp_path / "mlflow.db").write_bytes(content)
        with pytest.raises(TrackingError, match=r"mlflow\.db: required an MLflow store; ") as refused:
            connect(tmp_path)
        assert "\n" not in str(refused.value)

    def test_an_experiment_that_was_deleted_is_refused_with_the_command_that_restores_it(self, project):
        local().client.delete_experiment(local().experiment_id)
        with pytest.raises(TrackingError, match=r"mlflow experiments restore --experiment-id \d+"):
            connect(project)


class TestAddresses:
    @pytest.mark.parametrize(
        "uri",
        [
            "postgresql+psycopg2://ann:se@cret@db.lab:5432/runs?sslmode=secret",
            "mysql://ann:12/secret@db.lab/runs",
            "/tmp/mlruns",
            "databricks",
            "sqlite://",
            "sqlite:///:memory:",
        ],
    )
    def test_any_other_kind_is_refused_in_one_line_without_its_password(self, tmp_path, monkeypatch, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(
            TrackingError, match=r"MLFLOW_TRACKING_URI: required http\(s\)://SERVER or sqlite:///FILE"
        ) as refused:
            connect(tmp_path, required=False)
        assert "\n" not in str(refused.value)
        assert "cret" not in str(refused.value)

    @pytest.mark.parametrize("uri", ["http://ann:secret@127.0.0.1:1", "https://ann:se@cret@mlflow.lab/"])
    def test_a_server_with_a_password_in_it_is_refused_without_telling_it(self, tmp_path, monkeypatch, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(TrackingError, match="required an address without a user or password") as refused:
            connect(tmp_path)
        assert "cret" not in str(refused.value)

    @pytest.mark.parametrize(
        ("uri", "shown"),
        [
            ("https://ann:secret@mlflow.lab:8443/team/", "https://mlflow.lab:8443/team/"),
            ("http://u:s3?cret@127.0.0.1:1/x", "http://127.0.0.1:1/x"),
            ("http://mlflow.lab/?token=secret", "http://mlflow.lab/"),
            ("http://mlflow.lab/#secret", "http://mlflow.lab/"),
            ("postgresql:u:secret@db.lab/runs", "postgresql:db.lab/runs"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("sqlite:////home/ann@lab/mlflow.db", "sqlite:////home/ann@lab/mlflow.db"),
        ],
    )
    def test_an_address_is_shown_without_its_password(self, uri, shown):
        assert store.shown(uri) == shown


class TestServerAway:
    def test_it_is_said_in_one_line_at_once(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        with pytest.raises(
            store.UnreachableError, match=r"http://127\.0\.0\.1:1: .*does not answer \(connection refused\)"
        ) as failure:
            connect(tmp_path)
        assert "\n" not in str(failure.value)

    def test_one_that_never_answers_is_given_up_within_five_seconds(
        self, tmp_path, monkeypatch, silent_server
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
        start = time.monotonic()
        with pytest.raises(store.UnreachableError, match="does not answer"):
            connect(tmp_path)
        assert time.monotonic() - start < 5

    def test_what_only_logs_connects_without_it(self, project, monkeypatch, silent_server):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
        connect(project, required=False)
        assert local().uri == f"sqlite:///{project}/mlflow.db"


@pytest.mark.parametrize(
    ("code", "kind"), [(INTERNAL_ERROR, store.UnreachableError), (RESOURCE_DOES_NOT_EXIST, TrackingError)]
)
def test_an_exception_of_mlflow_becomes_one_line_of_its_kind(code, kind):
    with pytest.raises(TrackingError) as told, store.reported("here: "):
        raise MlflowException("a\nproblem", code)
    assert type(told.value) is kind
    assert "\n" not in str(told.value)
    assert str(told.value).startswith("here: ")
