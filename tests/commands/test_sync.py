"""`adpet sync` sends all runs to the server, or says in one line why not."""

import shutil
from types import SimpleNamespace

import pytest

from adpet.commands import sync
from adpet.errors import TrackingError


@pytest.fixture
def project(project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(project_root / "params.yaml", tmp_path)
    return tmp_path


def test_sync_without_a_server_says_how_to_name_it(project, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match=r"required a server .*mlflow\.db to; .* set MLFLOW_TRACKING_URI"):
        sync.main()


def test_sync_to_a_server_that_is_away_says_so_in_one_line(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(TrackingError, match="the server does not answer") as failure:
        sync.main()
    assert "\n" not in str(failure.value)


def test_sync_tells_how_many_runs_are_there_and_what_was_refused(project, monkeypatch):
    server = SimpleNamespace(is_server=True, shown="http://mlflow.lab")
    monkeypatch.setattr(sync, "connect", lambda *_, **__: None)
    monkeypatch.setattr(sync, "current", lambda: server)
    monkeypatch.setattr(sync, "sync_all", lambda: (3, []))
    assert sync.main() == "3 run(s) are on http://mlflow.lab; nothing waits"
    monkeypatch.setattr(sync, "sync_all", lambda: (3, ["run x: refused"]))
    with pytest.raises(TrackingError, match=r"^3 run\(s\) .*; 1 are not: run x: refused"):
        sync.main()
