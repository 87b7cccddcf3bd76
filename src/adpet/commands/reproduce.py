"""Make a version again from git and the DVC cache, and hold its weights against the registered ones."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from adpet.dvc_cache import cache_folder, files_in_cache, how_to_get, lacking
from adpet.errors import AdpetError, InputError
from adpet.learning.checkpoint import load_model as load_keras
from adpet.learning.checkpoint import weights_difference
from adpet.params import load_params
from adpet.paths import MODEL
from adpet.storage import temporary_files
from adpet.tracking.lineage import UNVERSIONED, data_hash, git
from adpet.tracking.place import TRACKING_URI
from adpet.tracking.provenance import DIRTY, checks, facts_of
from adpet.tracking.registry import load_model, named
from adpet.tracking.store import connect

# Stages whose results may come from DVC's cache; `train` is always run.
BEFORE = ("ingest", "normalize", "slice", "split", "tune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "version",
        nargs="?",
        default="champion",
        help="a version number, an alias or models:/NAME@ALIAS (default: champion)",
    )


def main(options: argparse.Namespace) -> None:
    """Train a version again; fail if its weights differ."""
    message, same = run(options.version)
    print(message)
    if not same:
        raise AdpetError("required the same weights as those registered; received others, as said above")


def run(wanted: str) -> tuple[str, bool]:
    """Train a version anew in a clean worktree of its commit.

    What comes before the training is taken from DVC's cache where it is there, and computed where not. The
    runs of the worktree go to a store of its own, and are removed with it.

    Returns
    -------
    said, same : str, bool
        What came of it, and whether the weights are the same bits.

    Raises
    ------
    InputError
        Where the commit or the data are not here, or a stage fails.
    TrackingError
        Where there is no such version, its files have changed, or its run does not say what it is made from.
    """
    tracking = load_params().tracking
    connect(Path.cwd(), experiment=tracking.experiment)
    version = named(wanted, model_name=tracking.model_name)
    uri, facts = f"models:/{version.name}/{version.number}", facts_of(version)
    registered, _ = load_model(uri)
    with _worktree(facts["commit"].removesuffix(DIRTY), uri) as folder:
        _require_code(folder, facts, uri)
        _train(folder, facts, with_data=_settle(folder, facts))
        raw = facts["params"]["cohort"]["raw"]
        made = data_hash(raw, lock=folder / "dvc.lock")
        if made != facts["data"]:
            received = f"received {made} from its commit"
            raise InputError(f"{uri}: required the data {facts['data']}; {received}; {how_to_get(raw)}")
        difference = weights_difference(registered, load_keras(folder / MODEL))
    said = [f"{uri}, lineage {facts['id']}, was made again from commit {facts['commit']}"]
    # Code and data are the commit's: only what is installed can be other than then.
    said += [f"NOT AS THEN: {one.text}" for one in checks(facts) if one.name == "packages" and not one.here]
    if difference is None:
        return "\n".join([*said, "the weights are the same, bit by bit"]), True
    return "\n".join([*said, f"the weights differ, by {difference:.3g} at most"]), False


@contextmanager
def _worktree(commit: str, uri: str) -> Iterator[Path]:
    """Yield a worktree of a commit, which is removed afterwards; one that is killed leaves it to the next."""
    if commit == UNVERSIONED or git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise InputError(
            f"{uri}: required its commit {commit} in this repository; received none; get it with: "
            "git fetch --all"
        )
    with temporary_files(), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        # Of one that was killed, whose folder is gone by now.
        _run(Path.cwd(), {}, "git", "worktree", "prune")
        _run(Path.cwd(), {}, "git", "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            yield folder
        finally:
            _run(Path.cwd(), {}, "git", "worktree", "remove", "--force", str(folder))


def _require_code(folder: Path, facts: Mapping[str, Any], uri: str) -> None:
    """Check that the commit has the code that the model was trained by; a dirty one need not."""
    script = "from adpet.storage import code_digest; print(code_digest())"
    found = _run(folder, {"PYTHONPATH": "src"}, sys.executable, "-c", script).strip()
    if found != facts["code"]:
        raise InputError(
            f"{uri}: required the code {facts['code']}; commit {facts['commit']} has {found}, as there were "
            "changes which had not been committed; train it again from a clean commit"
        )


def _settle(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Give the worktree the model's parameters and DVC's cache; say whether the data were in it."""
    yaml = YAML()
    path = folder / "params.yaml"
    document = yaml.load(path)
    for name, value in facts["params"].items():
        if isinstance(value, Mapping):
            document[name].update(value)
        else:
            document[name] = value
    yaml.dump(document, path)
    cache = cache_folder().resolve()
    _run(folder, {}, sys.executable, "-m", "dvc", "cache", "dir", "--local", str(cache))
    return place_data(cache, facts["data"], folder, raw=facts["params"]["cohort"]["raw"])


def place_data(cache: Path, digest: str, project: Path, *, raw: str) -> bool:
    """Copy the raw scans out of DVC's cache, by the list of their files; say whether it is in there.

    Raises
    ------
    InputError
        Where not all files are in there, or the list names one outside of the folder; nothing is written.
    """
    folder = _inside(project, raw, source="cohort.raw")
    files = files_in_cache(cache, digest)
    if files is None:
        return False
    missing = lacking(files, raw)
    if missing:
        raise InputError(f"required the data {digest} ({raw}); received: {missing}")
    targets = [_inside(folder, name, source=digest) for name in files]
    for target, kept in zip(targets, files.values(), strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, target)
    return True


def _inside(folder: Path, name: str, *, source: str) -> Path:
    """Return a path in a folder by its name; what a registry or a cache names must not lead out of it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{source}: required a path inside of {folder.name}, as DVC versions it with the project; "
            f"received {name}; nothing was written there"
        )
    return path


def _train(folder: Path, facts: Mapping[str, Any], *, with_data: bool) -> None:
    """Run the stages up to the training, which is never taken from the cache.

    Where the data are there, what makes them is left alone: simulated anew, they would be those of the
    commit's own parameters.
    """
    repro = (sys.executable, "-m", "dvc", "repro")
    environment = {"KERAS_BACKEND": facts["backend"]}
    before = ("--single-item", *BEFORE) if with_data else BEFORE
    _run(folder, environment, *repro, *before)
    _run(folder, environment, *repro, "--force", "--single-item", "train")


def _run(folder: Path, environment: Mapping[str, str], *command: str) -> str:
    """Run a command in a folder and return what it prints; what it says on stderr is shown.

    Raises
    ------
    InputError
        Where it fails.
    """
    binaries = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if name not in (TRACKING_URI, "PYTHONPATH")}
    kept["PATH"] = f"{binaries}{os.pathsep}{kept.get('PATH', '')}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        close_fds=False,
    )
    if done.returncode:
        raise InputError(
            f"required that this succeeds: {' '.join(command)}; received status {done.returncode}"
        )
    return done.stdout
