"""What a result was made from: one id that binds data, split, parameters, code, seed and versions."""

import os
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adpet.storage import code_digest, fingerprint, read_yaml

# The packages whose version can change a result, where they are installed.
PACKAGES = (
    "jax",
    "keras",
    "mlflow",
    "nibabel",
    "numpy",
    "optuna",
    "scikit-learn",
    "scipy",
    "tensorflow",
)

# What `dvc repro` itself rewrites: a change of these does not make the code another one.
GENERATED = (
    "dvc.lock",
    "data/simulated/dvc.lock",
    "results/leakage/leakage.json",
    "results/evaluate/metrics.json",
)

UNVERSIONED = "unversioned"

# The backend of Keras where none is asked for.
TENSORFLOW = "tensorflow"


def lineage(*, params: Mapping[str, Any], raw: str, split_hash: str, seed: int) -> dict[str, Any]:
    """Return the facts that a result follows from, and the ``id`` that stands for all of them.

    Parameters
    ----------
    params : mapping of str to value
        The parameters that matter for the result, by dotted key.
    raw : str
        The folder of raw scans, as it stands in ``dvc.yaml``.
    split_hash : str
        Hash of the split's rows.
    """
    facts = {
        "data": data_hash(raw),
        "split": split_hash,
        "params": dict(params),
        "commit": commit(),
        "code": code_digest(),
        "seed": seed,
        "backend": os.environ.get("KERAS_BACKEND", TENSORFLOW),
        "versions": installed(PACKAGES),
    }
    return {"id": fingerprint(facts), **facts}


def data_hash(raw: str, *, lock: Path = Path("dvc.lock")) -> str:
    """Return DVC's hash of the raw scans as ``ingest`` read them, or ``unversioned`` outside of DVC."""
    if not lock.exists():
        return UNVERSIONED
    stages = read_yaml(lock).get("stages", {})
    for dependency in stages.get("ingest", {}).get("deps", []):
        if Path(dependency["path"]) == Path(raw):
            return str(dependency.get("md5", UNVERSIONED))
    return UNVERSIONED


def commit() -> str:
    """Return the git commit, with ``-dirty`` where tracked files differ from it."""
    head = git("rev-parse", "HEAD")
    if head is None:
        return UNVERSIONED
    changes = git("status", "--porcelain", "--untracked-files=no") or ""
    dirty = any(line[3:] not in GENERATED for line in changes.splitlines())
    return f"{head}-dirty" if dirty else head


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
    """Return what git prints, or None where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.rstrip("\n")
