"""Two people, each in a checkout of their own, on the servers that ``scripts/team.py`` starts."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.team

SCRIPT = Path(__file__).parents[1] / "scripts/team.py"

# Of all participants together, and of one.
OF_ALL = {"results/train/model.keras", "results/report/report.html", "results/explain/groups"}
OF_ONE = {
    "data/interim/volumes",
    "data/processed/slices",
    "results/train/run.json",
    "results/explain/volumes",
}


class Team:
    """The script as a process, and the folder that it keeps everything in."""

    def __init__(self, folder, port):
        self.folder, self.port = folder, port
        self.address = f"http://127.0.0.1:{port}"
        self.said = []

    def start(self):
        # Tests that run in the background ignore interrupts, and would hand that on.
        earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, self.folder, "--port", str(self.port)], text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        signal.signal(signal.SIGINT, earlier)
        for line in self.process.stdout:
            self.said.append(line)
            if "Ctrl-C stops everything" in line:
                return
        self.process.communicate()
        raise AssertionError("".join(self.said))

    def stop(self):
        """Press Ctrl-C, and return what was left running."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=90)
        self.said.append(rest)
        assert self.process.returncode == 0, rest
        assert len(children) > 3
        return [child for child in children if child.is_running()]

    def variables(self, name):
        """What a shell has once it has read a user's file."""
        shown = subprocess.run(
            ["sh", "-c", f'. "{self.folder}/users/{name}.env"; env'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        pairs = dict(line.partition("=")[::2] for line in shown.splitlines())
        return {key: value for key, value in pairs.items() if key.startswith("MLFLOW_TRACKING_")}

    def password(self, name):
        return self.variables(name)["MLFLOW_TRACKING_PASSWORD"]

    def has_come(self, name, workspace):
        """Do as the script says that a user is to do in a checkout."""
        lines = "".join(self.said).splitlines()
        begin = len(lines) - 1 - lines[::-1].index(f"{name}, in a checkout:")
        workspace.variables = self.variables(name)
        assert lines[begin + 1].strip() == f". '{self.folder}/users/{name}.env'"
        workspace.run("sh", "-c", lines[begin + 2])
        workspace.run("git", "config", "user.name", name)
        workspace.run("git", "config", "user.email", f"{name}@example.org")


def share(workspace, why):
    """Send what was made to the others, as docs/team.md tells it."""
    workspace.run("sh", "-c", f"git add --all && git commit -m '{why}' && dvc push && git push")


@pytest.fixture(scope="module")
def team():
    """The servers, on data that an earlier start has left."""
    # PostgreSQL does not run as root, and its user has to come to its folder.
    with tempfile.TemporaryDirectory(prefix="adpet") as place, socket.create_server(("127.0.0.1", 0)) as free:
        Path(place).chmod(0o755)
        port = free.getsockname()[1]
        free.close()
        team = Team(Path(place).resolve() / "a team", port)
        team.start()
        try:
            assert team.stop() == []
            team.start()
            yield team
        finally:
            if team.process.poll() is None:
                team.stop()


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """The repository that all clone from and push to."""
    code = tmp_path_factory.mktemp("git") / "project.git"
    subprocess.run(["git", "init", "--quiet", "--bare", code], check=True)
    return code


@pytest.fixture(scope="module")
def ann(begin, team, code, tmp_path_factory):
    """Ann's checkout, in which she has run the pipeline and sent the others all but what is of one participant."""
    ann = begin(tmp_path_factory.mktemp("ann"))
    team.has_come("ann", ann)
    ann.run("git", "remote", "add", "origin", str(code))
    ann.run("git", "config", "push.autoSetupRemote", "true")
    ann.run("dvc", "repro")
    share(ann, "a first model")
    return ann


@pytest.fixture(scope="module")
def newcomer(team, ann, code, tmp_path_factory):
    """Ben's checkout, a clone, with no more than what has come to the remote."""
    root = tmp_path_factory.mktemp("ben") / "checkout"
    subprocess.run(["git", "clone", "--quiet", code, root], check=True)
    ben = type(ann)(root)
    team.has_come("ben", ben)
    ben.run("dvc", "pull", "--allow-missing")
    ben.looked = ben.run("dvc", "repro", "--allow-missing").stdout
    ben.got = {path for path in OF_ALL | OF_ONE if (root / path).exists()}
    return ben


@pytest.fixture(scope="module")
def ben(ann, newcomer):
    """Ben's checkout once Ann has let the remote have all, and he has trained once more with another setting."""
    ann.run("sed", "-i", "s/push: false/push: true/", "dvc.yaml")
    share(ann, "the remote holds what is of one participant")
    newcomer.run("git", "pull")
    newcomer.run("dvc", "pull")
    newcomer.first = newcomer.run("dvc", "repro").stdout
    newcomer.second = newcomer.run("dvc", "exp", "run", "-S", "train.epochs=2").stdout
    share(newcomer, "a shorter training")
    return newcomer


def client(team, name, monkeypatch):
    """MLflow's own client, as a user who may read."""
    from mlflow import MlflowClient

    for key, value in team.variables(name).items():
        monkeypatch.setenv(key, value)
    return MlflowClient(tracking_uri=team.address)


class TestTwoUsers:
    def test_by_default_one_has_the_others_results_but_nothing_of_one_participant(self, newcomer):
        assert newcomer.got == OF_ALL
        assert "Data and pipelines are up to date" in newcomer.looked
        assert "Running stage" not in newcomer.looked

    def test_what_one_has_made_the_other_takes_without_making_it_again(self, ann, ben):
        assert "Data and pipelines are up to date" in ben.first
        assert "Running stage" not in ben.first
        volumes = ["data/interim/volumes", "data/processed/slices"]
        assert ben.content(volumes) == ann.content(volumes)

    def test_only_what_follows_from_a_changed_setting_is_made_again(self, ben):
        assert "Running stage 'train'" in ben.second
        assert "Running stage 'standardize'" not in ben.second
        assert ben.read_json("results/register/version.json")["version"] == 2

    def test_the_first_takes_what_the_other_has_added(self, ann, ben):
        ann.run("sh", "-c", "git pull && dvc pull")
        assert "Data and pipelines are up to date" in ann.run("dvc", "repro").stdout
        made = ["results/train", "results/report", "results/register"]
        assert ann.content(made) == ben.content(made)

    def test_each_run_and_version_says_whose_it_is(self, team, ann, ben, monkeypatch):
        seen = client(team, "ben", monkeypatch)
        versions = {int(one.version): one for one in seen.search_model_versions("name='adpet'")}
        users = {
            number: seen.get_run(one.run_id).data.tags["mlflow.user"] for number, one in versions.items()
        }
        assert users == {1: "ann", 2: "ben"}

    def test_one_decides_and_the_other_reads_who_it_was(self, ann, ben):
        ben.adpet("promote", "2", "--force", "--reason", "to try it out")
        ann.adpet("promote", "1", "--force", "--reason", "mine was better")
        rows = [line.split("  ") for line in ben.adpet("history").stdout.splitlines()[1:]]
        decided = [[cell.strip() for cell in row if cell.strip()] for row in rows]
        assert [(row[1], row[3]) for row in decided] == [("2", "ben"), ("1", "ann")]

    def test_the_others_version_is_known_with_all_that_it_was_made_from(self, ben):
        said = ben.adpet("lineage", "1").stdout
        assert "in this repository" in said
        assert "in the DVC cache" in said


class TestRefusals:
    def test_a_wrong_password_is_one_line_before_anything_is_done(self, team, ben):
        ben.variables = team.variables("ben") | {"MLFLOW_TRACKING_PASSWORD": "a-wrong-password"}
        done = ben.adpet("register", status=1)
        ben.variables = team.variables("ben")
        assert done.stderr == (
            f"adpet register: {team.address}: required an MLflow store; the server does not know user ben with this "
            "password; correct MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD\n"
        )

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"MLFLOW_TRACKING_PASSWORD": "a-wrong-password"}, "does not know user ann with this password"),
            (
                {"MLFLOW_TRACKING_PASSWORD": ""},
                "asks for a user and a password; set MLFLOW_TRACKING_USERNAME",
            ),
            ({"MLFLOW_TRACKING_URI": "http://127.1:{port}"}, "does not go by the name in this address"),
        ],
    )
    def test_whoever_is_refused_hears_it_within_five_seconds(
        self, team, tmp_path, monkeypatch, changed, said
    ):
        from adpet.errors import TrackingError
        from adpet.tracking.store import connect

        for key, value in (team.variables("ann") | changed).items():
            monkeypatch.setenv(key, value.format(port=team.port))
        start = time.monotonic()
        with pytest.raises(TrackingError, match=said) as refused:
            connect(tmp_path)
        assert time.monotonic() - start < 5
        assert "\n" not in str(refused.value)

    def test_a_model_that_nobody_has_registered_is_not_said_to_be_forbidden(
        self, team, tmp_path, monkeypatch
    ):
        from adpet.errors import TrackingError
        from adpet.tracking.registry import version_of
        from adpet.tracking.store import connect

        for key, value in team.variables("ann").items():
            monkeypatch.setenv(key, value)
        connect(tmp_path)
        with pytest.raises(TrackingError, match="'another' has no version yet; run: dvc repro"):
            version_of("models:/another/1")


class TestSecrets:
    def test_the_files_with_passwords_are_for_their_owner_alone(self, team):
        files = [*(team.folder / "users").iterdir(), *(team.folder / "server").iterdir()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert {path.name for path in files} >= {"admin.env", "ann.env", "ben.env", "secret_key"}

    def test_a_password_stands_nowhere_else(self, team, ann, ben):
        secrets = [team.password(name).encode() for name in ("admin", "ann", "ben")]
        said = "".join((*team.said, *ann.said, *ben.said))
        history = [space.run("git", "log", "--all", "--patch").stdout for space in (ann, ben)]
        for secret in secrets:
            assert secret.decode() not in said
            assert not any(secret.decode() in text for text in history)
        found = []
        for path in (path for root in (team.folder, ann.root, ben.root) for path in root.rglob("*")):
            if path.is_file() and path.parent != team.folder / "users":
                content = path.read_bytes()
                found += [path for secret in secrets if secret in content]
        assert found == []


class TestTheScript:
    def test_a_port_that_is_taken_is_one_line_and_changes_nothing(self, team, tmp_path):
        done = subprocess.run(
            [sys.executable, SCRIPT, tmp_path / "other", "--port", str(team.port)], text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith(f"team: --port: required a free one; {team.port} cannot be used")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "other").exists()
