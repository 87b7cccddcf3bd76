"""Two users, each in a checkout, on PostgreSQL and an MLflow server with passwords (docs/team.md)."""

import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from team_servers import team_servers
from workspace import Workspace

pytestmark = [pytest.mark.server, pytest.mark.dvc, pytest.mark.slow]


@pytest.fixture(scope="module")
def team():
    # Not below pytest's folders: PostgreSQL's user must be able to enter the folder.
    with (
        tempfile.TemporaryDirectory(prefix="adpet-team-", dir="/tmp") as folder,
        team_servers(Path(folder), ("ann", "ben")) as team,
    ):
        yield team


@pytest.fixture(scope="module")
def ann(begin, team, tmp_path_factory):
    """Ann's checkout: she has run the pipeline and pushed code and data."""
    folder = tmp_path_factory.mktemp("team")
    subprocess.run(["git", "init", "--quiet", "--bare", folder / "project.git"], check=True)
    ann = begin(folder / "ann")
    ann.variables = team.variables("ann")
    for key, value in {
        "user.name": "ann",
        "user.email": "ann@example.org",
        "push.autoSetupRemote": "true",
    }.items():
        ann.run("git", "config", key, value)
    ann.run("git", "remote", "add", "origin", str(folder / "project.git"))
    ann.run("dvc", "remote", "add", "--force", "--default", "storage", str(folder / "storage"))
    ann.run("dvc", "remote", "add", "--force", "lab", str(folder / "lab"))
    ann.run("dvc", "repro")
    share(ann, "a first model")
    return ann


@pytest.fixture(scope="module")
def ben(ann, team):
    """Ben's checkout: he has taken Ann's results and trained with another setting."""
    root = ann.root.with_name("ben")
    subprocess.run(["git", "clone", "--quiet", ann.root.with_name("project.git"), root], check=True)
    ben = Workspace(root)
    ben.variables = team.variables("ben")
    ben.run("git", "config", "user.name", "ben")
    ben.run("git", "config", "user.email", "ben@example.org")
    ben.run("dvc", "pull")
    ben.first = ben.run("dvc", "repro").stdout
    ben.second = ben.run("dvc", "exp", "run", "-S", "train.epochs=2").stdout
    share(ben, "a shorter training")
    return ben


def share(workspace, message):
    workspace.run("sh", "-c", f"git add --all && git commit -m '{message}' && dvc push && git push")


def client(team, user, monkeypatch):
    from mlflow import MlflowClient

    for key, value in team.variables(user).items():
        monkeypatch.setenv(key, value)
    return MlflowClient(tracking_uri=team.address)


def test_results_of_one_user_are_pulled_by_the_other_and_not_computed_again(ann, ben):
    assert "Data and pipelines are up to date" in ben.first
    volumes = ["data/interim/volumes", "data/processed/slices"]
    assert ben.content(volumes) == ann.content(volumes)


def test_changed_setting_reruns_only_what_follows_from_it(ben):
    assert "Running stage 'train'" in ben.second
    assert "Running stage 'normalize'" not in ben.second


def test_runs_and_versions_name_their_user_on_the_server(team, ann, ben, monkeypatch):
    seen = client(team, "ben", monkeypatch)
    versions = {int(version.version): version for version in seen.search_model_versions("name='adpet'")}
    users = {
        number: seen.get_run(found.run_id).data.tags["mlflow.user"] for number, found in versions.items()
    }
    assert users == {1: "ann", 2: "ben"}


def test_promotions_of_both_users_are_in_the_history(ann, ben):
    ben.adpet("promote", "2", "--force", "--reason", "to try it out")
    ann.adpet("promote", "1", "--force", "--reason", "mine was better")
    history = ben.adpet("history").stdout
    assert "to try it out" in history
    assert "mine was better" in history
    assert "ann" in history
    assert "ben" in history


@pytest.mark.parametrize(
    "changed",
    [
        {"MLFLOW_TRACKING_PASSWORD": "a-wrong-password"},
        {"MLFLOW_TRACKING_PASSWORD": ""},
        {"MLFLOW_TRACKING_URI": "http://127.1:1"},
    ],
)
def test_refused_user_gets_one_line_within_seconds(team, ann, changed):
    ann.variables = team.variables("ann") | changed
    start = time.monotonic()
    done = ann.adpet("promote", status=1)
    took = time.monotonic() - start
    ann.variables = team.variables("ann")
    assert done.stderr.count("\n") == 1
    assert "a-wrong-password" not in done.stderr
    assert took < 30


def test_passwords_are_in_no_file_and_no_output_of_a_checkout(team, ann, ben):
    passwords = [password.encode() for password in team.passwords.values()]
    printed = "".join((*ann.output, *ben.output)).encode()
    files = (path for user in (ann, ben) for path in user.root.rglob("*") if path.is_file())
    contents = [printed, *(path.read_bytes() for path in files)]
    assert not [content for content in contents if any(password in content for password in passwords)]
