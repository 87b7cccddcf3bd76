"""Lineage: what a result follows from, under one id.

Data are named by DVC's hash. The id covers data, split, parameters, files that parameters name, code, seed,
backend and versions; commit and code folders are recorded, but are no part of it.
"""

import hashlib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML

from adpet.contracts import Lineage, first_problem
from adpet.errors import InputError, TrackingError
from adpet.paths import RUN
from adpet.storage import PACKAGE, code_digest, code_folders, fingerprint, flatten, read_yaml

if TYPE_CHECKING:
    from adpet.tracking.registry import Version

# Packages whose version can change a result.
PACKAGES: Final = (
    "jax", "keras", "mlflow", "nibabel", "numpy", "optuna", "scikit-learn", "scipy", "tensorflow",
)  # fmt: skip

# What `dvc repro` itself rewrites: a change of these does not make a commit dirty.
GENERATED: Final = ("dvc.lock", "data/simulated/dvc.lock", "results/metrics.json")

# Facts that are digests of files, and the parameter that may name one.
PARAMETER_FILES: Final = {
    "weights_digest": "model.weights",
    "template_digest": "normalize.template",
    "atlas_digest": "explain.atlas",
}
NOT_IN_ID: Final = ("id", "commit", "code_folders")

UNVERSIONED: Final = "unversioned"
DIRTY: Final = "-dirty"
# The backend of Keras unless KERAS_BACKEND names another.
TENSORFLOW: Final = "tensorflow"

# The package in a worktree of the project, and the folder of run.json among a run's artifacts.
SOURCE: Final = Path("src/adpet")
FOLDER: Final = "lineage"
# DVC's name for a folder whose list of files it lacks.
WHOLE: Final = "raw/"


class _Facts(Lineage):
    """Facts that others wrote; git and DVC are given these."""

    data: str = Field(pattern=rf"^([0-9a-f]{{32}}(\.dir)?|{UNVERSIONED})$")
    commit: str = Field(pattern=rf"^(([0-9a-f]{{40}}|[0-9a-f]{{64}})({DIRTY})?|{UNVERSIONED})$")

    @field_validator("params")
    @classmethod
    def _names_scans(cls, params: dict[str, Any]) -> dict[str, Any]:
        if isinstance(flatten(params).get("cohort.raw"), str):
            return params
        raise ValueError("required cohort.raw, the folder of scans")


class Check(NamedTuple):
    """Fact, its value, whether it is here, and a remark."""

    name: str
    value: str
    here: bool
    text: str


def lineage(*, stage: str, params: Mapping[str, Any], raw: str, split_hash: str, seed: int) -> dict[str, Any]:
    """Return what a result follows from, with its ``id``.

    The code is that of `stage` in ``dvc.yaml``, outside of a project that of the whole package; `params` are
    those that matter for the result, nested; `raw` is the folder of scans, as in ``dvc.yaml``.
    """
    settings = flatten(params)
    folders = code_folders(stage)
    facts = {
        "data": data_hash(raw),
        "split": split_hash,
        "params": dict(params),
        **{fact: file_digest(settings.get(key)) for fact, key in PARAMETER_FILES.items()},
        "code": code_digest(folders),
        "seed": seed,
        "backend": os.environ.get("KERAS_BACKEND", TENSORFLOW),
        "versions": installed(PACKAGES),
        "commit": commit(),
        "code_folders": [] if folders == [PACKAGE] else [folder.as_posix() for folder in folders],
    }
    return {"id": lineage_id(facts), **facts}


def lineage_id(facts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with any fact."""
    return fingerprint({name: value for name, value in facts.items() if name not in NOT_IN_ID})


def file_digest(named: Any) -> str | None:
    """Return the SHA-256 of a named file, if it exists."""
    path = Path(str(named))
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def data_hash(raw: str, *, lock: Path = Path("dvc.lock")) -> str:
    """Return DVC's hash of ingested scans, or ``unversioned``."""
    if not lock.exists():
        return UNVERSIONED
    stages = read_yaml(lock).get("stages", {})
    for dependency in stages.get("ingest", {}).get("deps", []):
        if Path(dependency["path"]) == Path(raw):
            return str(dependency.get("md5", UNVERSIONED))
    return UNVERSIONED


def commit() -> str:
    """Return the git commit, ``-dirty`` if tracked files differ."""
    head = git("rev-parse", "HEAD")
    if head is None:
        return UNVERSIONED
    changes = git("status", "--porcelain", "--untracked-files=no") or ""
    dirty = any(line[3:] not in GENERATED for line in changes.splitlines())
    return f"{head}{DIRTY}" if dirty else head


def has_commit(commit: str) -> bool:
    """Return True if the commit is in this repository."""
    return commit != UNVERSIONED and git("cat-file", "-e", f"{commit}^{{commit}}") is not None


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package that is installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def git(*arguments: str) -> str | None:
    """Return what git prints, or None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip("\n")


def facts_of(version: "Version") -> dict[str, Any]:
    """Read the lineage of a version; refuse a changed one."""
    from mlflow.artifacts import load_text

    from adpet.tracking.store import LINEAGE, one_line, reported

    place = f"{FOLDER}/{RUN.name}"
    try:
        with reported():
            facts = read_facts(load_text(f"runs:/{version.run_id}/{place}"))
    except (OSError, ValueError, TrackingError) as error:
        raise TrackingError(
            f"{version.uri}: required {place} among the artifacts of run {version.run_id}, as a training "
            f"writes it; received: {one_line(error)}; register it again with: dvc repro --force register"
        ) from error
    if not lineage_id(facts) == facts["id"] == version.tags.get(LINEAGE):
        raise TrackingError(
            f"{version.uri}: required the facts of lineage {version.tags.get(LINEAGE)}; received others in "
            f"{place} of run {version.run_id}: it was changed, or written by another release of adpet; "
            "register it again with: dvc repro --force train register"
        )
    return facts


def checks(facts: Mapping[str, Any]) -> list[Check]:
    """Compare the facts with what this project has."""
    wanted, there = facts["versions"], installed(facts["versions"])
    others = [f"{name} {there.get(name, 'missing')}" for name in wanted if there.get(name) != wanted[name]]
    is_here = has_commit(facts["commit"].removesuffix(DIRTY))
    is_code = code_of(facts) == facts["code"]
    backend = os.environ.get("KERAS_BACKEND", TENSORFLOW)
    settings = flatten(facts["params"])
    return [
        _data(facts),
        Check("commit", facts["commit"], is_here, "in this repository" if is_here else "not here"),
        Check("code", facts["code"], is_code, "as in src/" if is_code else "src/ has other code now"),
        *(
            _parameter_file(key, str(settings.get(key)), facts[fact])
            for fact, key in PARAMETER_FILES.items()
            if facts.get(fact)
        ),
        Check("backend", facts["backend"], backend == facts["backend"], f"here {backend}"),
        Check(
            "packages",
            ", ".join(f"{name} {number}" for name, number in wanted.items()),
            not others,
            f"here {', '.join(others)}" if others else "the same here",
        ),
    ]


def code_of(facts: Mapping[str, Any], root: Path | None = None) -> str:
    """Return the present digest of the code folders in `facts`."""
    if facts.get("code_folders"):
        return code_digest((root or Path()) / folder for folder in facts["code_folders"])
    return code_digest([root / SOURCE if root else PACKAGE])


def changed_settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters that differ from the commit's ``params.yaml``."""
    text = git("show", f"{facts['commit'].removesuffix(DIRTY)}:params.yaml")
    there = flatten(YAML(typ="safe", pure=True).load(text)) if text else {}
    return {key: value for key, value in flatten(facts["params"]).items() if there.get(key) != value}


def cache_folder() -> Path:
    """Return the folder of DVC's cache."""
    from dvc.config import ConfigError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return Path(repo.cache.local_cache_dir)
    except (ConfigError, DvcException) as error:
        raise InputError(
            f"required a DVC project here; received: {' '.join(str(error).split())}; run: dvc init"
        ) from error


@contextmanager
def cached_data(digest: str) -> Iterator[tuple[Any, Path]]:
    """Open a scratch DVC project of one output by hash.

    A hash of an earlier version need not be in any ``.dvc`` or ``dvc.lock`` of this project. The folder is
    filled by ``repo.checkout``.
    """
    from dvc.repo import Repo

    cache = cache_folder()
    with tempfile.TemporaryDirectory(prefix="adpet-data-") as scratch:
        root = Path(scratch).resolve()
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
        outs = f"outs: [{{md5: {digest}, hash: md5, path: raw}}]\n"
        (root / "raw.dvc").write_text(outs, encoding="utf-8")
        with Repo(str(root), config={"cache": {"dir": str(cache), "type": ["copy"]}}) as repo:
            yield repo, root / "raw"


def missing_in_cache(digest: str) -> list[str]:
    """Return a folder's files missing in DVC's cache, or ``[WHOLE]``."""
    with cached_data(digest) as (repo, _):
        return list(repo.data_status(granular=True, untracked_files="no")["not_in_cache"])


def missing_text(missing: list[str], raw: str) -> str:
    """Say what DVC's cache lacks, and how to get it."""
    what = "not" if missing == [WHOLE] else f"{len(missing)} files are not"
    return f"{what} in the DVC cache; {how_to_get(raw)}"


def how_to_get(raw: str) -> str:
    """Return commands that bring scans into DVC's cache."""
    fetch = f"get them with: dvc fetch --all-commits {shlex.quote(raw)}"
    if not Path(f"{Path(raw)}.dvc").exists():
        return fetch
    return f"{fetch}; or, if no remote has them, copy them to {raw} and run: dvc add {shlex.quote(raw)}"


def read_facts(text: str) -> dict[str, Any]:
    """Read the lineage in ``run.json``; refuse a malformed one."""
    document = json.loads(text)
    facts: Any = document.get("lineage") if isinstance(document, dict) else None
    try:
        _Facts.model_validate(facts)
    except ValidationError as error:
        raise ValueError(f"lineage: {first_problem(error)}") from error
    return dict(facts)


def _parameter_file(key: str, path: str, digest: str) -> Check:
    found = file_digest(path)
    text = "as it was" if found == digest else "has other bytes now" if found else "no such file"
    return Check(key.rpartition(".")[2], f"{digest[:16]} ({path})", found == digest, text)


def _data(facts: Mapping[str, Any]) -> Check:
    raw, wanted = facts["params"]["cohort"]["raw"], facts["data"]
    name = f"{wanted} ({raw})"
    if wanted == UNVERSIONED:
        return Check("data", name, here=False, text="was not under DVC, so its version is not known")
    missing = missing_in_cache(wanted)
    if not missing:
        return Check("data", name, here=True, text="in the DVC cache")
    if data_hash(raw) == wanted and Path(raw).is_dir():
        return Check("data", name, here=True, text="in the workspace")
    return Check("data", name, here=False, text=missing_text(missing, raw))
