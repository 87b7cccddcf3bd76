"""Train a version again from its commit; compare weights."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from adpet.commands.lineage import add_arguments
from adpet.errors import AdpetError, InputError
from adpet.learning.checkpoint import load_model as load_keras
from adpet.learning.checkpoint import weights_difference
from adpet.params import load_params
from adpet.paths import MODEL
from adpet.storage import read_yaml, temporary_files
from adpet.tracking import lineage
from adpet.tracking.lineage import DIRTY, PARAMETER_FILES, UNVERSIONED, WHOLE
from adpet.tracking.registry import load_model, named
from adpet.tracking.store import connect

__all__ = ["add_arguments", "main", "place_data"]

TRAIN = "train"


def main(*, version: str) -> str:
    """Train a version again; fail if its weights differ.

    Stages before the training come from the cache if they are there; the training always runs. Runs of the
    worktree go to a store of its own, and are removed with it.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    found = named(version, model_name=tracking.model_name)
    facts = lineage.facts_of(found)
    registered, _ = load_model(found.uri)
    raw = facts["params"]["cohort"]["raw"]
    with _worktree(facts["commit"].removesuffix(DIRTY), found.uri) as folder:
        _require_code(folder, facts, found.uri)
        _settle(folder, facts)
        with_data = place_data(facts["data"], folder, raw=raw)
        _train(folder, facts, with_data=with_data)
        made = lineage.data_hash(raw, lock=folder / "dvc.lock")
        if made != facts["data"]:
            received = f"received {made} from its commit"
            raise InputError(
                f"{found.uri}: required the data {facts['data']}; {received}; {lineage.how_to_get(raw)}"
            )
        difference = weights_difference(registered, load_keras(folder / MODEL))
    lines = [f"{found.uri}, lineage {facts['id']}, was made again from commit {facts['commit']}"]
    others = [check for check in lineage.checks(facts) if check.name == "packages" and not check.here]
    lines += [f"OTHER PACKAGES THAN THEN: {check.text}" for check in others]
    if difference is None:
        return "\n".join([*lines, "the weights are the same, bit by bit"])
    print(*lines, f"the weights differ, by {difference:.3g} at most", sep="\n")
    raise AdpetError("required the same weights as those registered; received others, as said above")


@contextmanager
def _worktree(commit: str, uri: str) -> Iterator[Path]:
    """Yield a worktree of a commit; it is removed afterwards."""
    if not lineage.has_commit(commit):
        raise InputError(
            f"{uri}: required its commit {commit} in this repository; received none; get it with: "
            "git fetch --all"
        )
    with temporary_files(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        _run(Path.cwd(), {}, "git", "worktree", "prune")
        _run(Path.cwd(), {}, "git", "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _run(Path.cwd(), {}, "git", "worktree", "remove", "--force", str(folder))


def _require_code(folder: Path, facts: Mapping[str, Any], uri: str) -> None:
    """Refuse a commit without the code of the training."""
    found = lineage.code_of(facts, folder)
    if found != facts["code"]:
        raise InputError(
            f"{uri}: required the code {facts['code']}; commit {facts['commit']} has {found}, as there were "
            "changes which had not been committed; train it again from a clean commit"
        )


def _settle(folder: Path, facts: Mapping[str, Any]) -> None:
    """Give the worktree parameters, their files, and DVC's cache."""
    yaml = YAML()
    path = folder / "params.yaml"
    document = yaml.load(path)
    for name, value in facts["params"].items():
        if isinstance(value, Mapping):
            document[name].update(value)
        else:
            document[name] = value
    if "space" in document.get("tune", {}):
        document["tune"]["space"] = {}  # the search has chosen
    for fact, key in PARAMETER_FILES.items():
        if facts.get(fact) is None:
            continue
        section, name = key.split(".")
        file = Path(document[section][name]).absolute()
        if lineage.file_digest(file) != facts[fact]:
            raise InputError(
                f"{key}: required the file with digest {facts[fact][:16]}; received another, or none; "
                f"bring it back to {file}"
            )
        target = folder / document[section][name]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    yaml.dump(document, path)
    _run(folder, {}, *_dvc("cache", "dir", "--local", str(lineage.cache_folder())))


def place_data(digest: str, project: Path, *, raw: str) -> bool:
    """Copy scans from DVC's cache; False if they are unknown."""
    folder = project / raw
    if not folder.resolve().is_relative_to(project.resolve()):
        raise InputError(
            f"cohort.raw: required a path inside the project, where DVC versions it; received {raw}; "
            "nothing was written there"
        )
    if digest == UNVERSIONED:
        return False
    missing = lineage.missing_in_cache(digest)
    if missing == [WHOLE]:
        return False
    if missing:
        raise InputError(
            f"required the data {digest} ({raw}); received: {lineage.missing_text(missing, raw)}"
        )
    with lineage.cached_data(digest) as (repo, files):
        repo.checkout(force=True)
        shutil.copytree(files, folder, dirs_exist_ok=True)
    return True


def _train(folder: Path, facts: Mapping[str, Any], *, with_data: bool) -> None:
    """Run the stages up to a forced training."""
    # The stage that simulates data is left alone if they are there: its parameters are the commit's.
    before = list(takewhile(lambda stage: stage != TRAIN, read_yaml(folder / "dvc.yaml")["stages"]))
    environment = {"KERAS_BACKEND": facts["backend"]}
    _run(folder, environment, *_dvc("repro", *(["--single-item"] if with_data else []), *before))
    _run(folder, environment, *_dvc("repro", "--force", "--single-item", TRAIN))


def _dvc(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "dvc", *arguments)


def _run(folder: Path, environment: Mapping[str, str], *command: str) -> None:
    """Run a command in a folder; its stderr is shown."""
    binaries = str(Path(sys.executable).parent)
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")
    }
    kept["PATH"] = f"{binaries}{os.pathsep}{kept.get('PATH', '')}"
    done = subprocess.run(
        command, cwd=folder, env={**kept, **environment}, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise InputError(
            f"required that this succeeds: {' '.join(command)}; received status {done.returncode}"
        )
