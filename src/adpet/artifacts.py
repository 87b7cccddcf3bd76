"""Where every artifact of the pipeline lies, and how it is written: aside first, then renamed.

All paths are relative to the project's root, where ``dvc.yaml`` lies and where stages run.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adpet.errors import InputError

PARAMS = Path("params.yaml")

PHANTOM_RAW = Path("data/phantom/raw")
PHANTOM_TRUTH = Path("data/phantom/truth")

SCANS = Path("data/interim/scans.csv")
REJECTED = Path("data/interim/rejected.csv")
INGEST = Path("data/interim/ingest.json")
VOLUMES = Path("data/interim/volumes")
ALIGNMENT = Path("data/interim/alignment.csv")

SLICES = Path("data/processed/slices")
SLICES_TABLE = Path("data/processed/slices.csv")
SPLIT = Path("data/processed/split.csv")
SPLIT_SUMMARY = Path("data/processed/split.json")

TUNE = Path("results/tune")
BEST_TRIAL = TUNE / "best.json"
TRIALS = TUNE / "trials.csv"
SEARCH_FIGURE = TUNE / "search.png"

TRAIN = Path("results/train")
MODEL = TRAIN / "model.keras"
HISTORY = TRAIN / "history.csv"
RUN = TRAIN / "run.json"
CURVES = TRAIN / "curves.png"
VALIDATION = TRAIN / "validation.csv"

EVALUATE = Path("results/evaluate")
METRICS = EVALUATE / "metrics.json"
PREDICTIONS = EVALUATE / "predictions.csv"
SUBJECTS = EVALUATE / "subjects.csv"
BASELINE_PREDICTIONS = EVALUATE / "baselines.csv"
SUBGROUPS = EVALUATE / "subgroups.csv"
ROC = EVALUATE / "roc.csv"
ROC_BAND = EVALUATE / "roc_band.csv"
PRECISION_RECALL = EVALUATE / "precision_recall.csv"
CALIBRATION = EVALUATE / "calibration.csv"
POSITION_WEIGHTS = EVALUATE / "position_weights.json"
FINDINGS = EVALUATE / "findings.json"

CROSS_VALIDATION = Path("results/cross-validation")
CROSS_VALIDATION_SUMMARY = CROSS_VALIDATION / "summary.json"
CROSS_VALIDATION_SUBJECTS = CROSS_VALIDATION / "subjects.csv"

# The model as it is used outside of the pipeline.
EXPORT = Path("results/export")

EXPLAIN = Path("results/explain")
CAM = EXPLAIN / "cam.json"

AUDIT = Path("results/audit/audit.json")
AUDIT_PREDICTIONS = AUDIT.with_name("predictions.csv")
AUDIT_FIGURE = AUDIT.with_name("leak.png")

REPORT = Path("results/report/report.html")
MODEL_CARD = REPORT.with_name("MODEL_CARD.md")

VERSION = Path("results/register/version.json")

# Unfinished work of a stage, by the fingerprint of what it is made from: a killed stage goes on from it.
WORK = Path(".adpet")
# Temporary files of running stages, a folder a process.
TEMPORARY = WORK / "tmp"
# Where Linux shows the semaphores of processes, which outlive them.
SHARED = Path("/dev/shm")  # noqa: S108 - nothing is written there
# States of a process in Linux' /proc that has ended, but was not yet taken note of.
ENDED = "ZX"
# The names of the links that DVC tries beside outputs, and the seconds after which none of them is in use.
DVC_LINK_TRIED = f".{22 * '[A-Za-z0-9_-]'}.tmp"
DVC_LINK_S = 1.0
# What ingest has read of every file, so that it reads new and changed ones alone; nothing is lost without it.
INGEST_NOTES = WORK / "ingest.tsv"

# Prefix of what is being written: a reader ignores it, the next writer replaces it.
PARTIAL_PREFIX = ".partial-"


def fold_folder(fold: int) -> Path:
    """Return where one fold of the cross-validation lies."""
    return CROSS_VALIDATION / f"fold-{fold}"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a neighbour of `path` to write a file or folder to; it becomes `path` only on success.

    The neighbour keeps the name's suffixes, so that libraries recognise the format.
    What an earlier, killed writer left there is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(PARTIAL_PREFIX + path.name)
    remove(aside)
    try:
        yield aside
        if aside.is_dir():
            remove(path)
        aside.replace(path)
    finally:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read one JSON document.

    Raises
    ------
    InputError
        Where there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: required, but not there; run: dvc repro") from error
    except ValueError as error:
        raise InputError(f"{path}: required JSON; received: {error}; remove it and run: dvc repro") from error


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON that ends in a newline; NaN is refused."""
    with written_aside(path) as aside:
        aside.write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change with any of `facts` (JSON values)."""
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@contextmanager
def resumable(stage: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the work folder of a stage: a killed stage finds there what it had finished.

    The folder belongs to `facts`, all that the work follows from beside this package's code; with
    other facts a new one is begun and the old ones are removed. It is removed when the block succeeds.
    """
    work = WORK / stage / fingerprint({**facts, "code": code_digest()})
    for other in WORK.glob(f"{stage}/*"):
        if other != work:
            remove(other)
    work.mkdir(parents=True, exist_ok=True)
    yield work
    remove(work)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Keep what this process, its libraries and its workers put into temporary files in a folder of its own.

    It is locked by the process: a killed one leaves it, and the next one removes it, with the semaphores that
    joblib's workers shared, and the links that DVC was trying.
    """
    for folder in (PHANTOM_RAW.parent, SCANS.parent, SPLIT.parent, TUNE.parent, *TUNE.parent.glob("*/")):
        _remove_links_tried(folder)
    TEMPORARY.mkdir(parents=True, exist_ok=True)
    with locked(TEMPORARY):
        for left in TEMPORARY.iterdir():
            _remove_unless_locked(left)
        own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=TEMPORARY)).absolute()
        lock = _lock(own)
    # joblib has a place of its own for large arrays, which its workers share.
    variables = ("TMPDIR", "JOBLIB_TEMP_FOLDER")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, str(own)))
    tempfile.tempdir = None
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        tempfile.tempdir = None
        remove(own)
        os.close(lock)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time have a folder or file; the lock goes with the process."""
    lock = _lock(path)
    try:
        yield
    finally:
        os.close(lock)


def semaphores_of(process: int | str) -> list[Path]:
    """Return the semaphores that joblib has made for the workers of a process, by its number."""
    return list(SHARED.glob(f"sem.loky-{process}-*"))


def move(source: Path, target: Path) -> None:
    """Put a finished file or folder in the place of `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    source.replace(target)


def code_digest() -> str:
    """Return a hash of this package's source files, so that uncommitted changes count too."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _lock(folder: Path, *, wait: bool = True) -> int:
    """Lock a folder, and return the descriptor that holds the lock.

    Raises
    ------
    BlockingIOError
        Where another process has it and it is not waited for.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _is_at_work(process: str) -> bool:
    """Say whether a process is at work; a killed one can be listed for some seconds more."""
    try:
        state = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ENDED


def _remove_links_tried(folder: Path) -> None:
    """Remove the links that a killed DVC left: beside an output it tries, for a moment, which kinds work."""
    for left in folder.glob(DVC_LINK_TRIED):
        with suppress(FileNotFoundError):  # DVC has removed it meanwhile
            if time.time() - left.lstat().st_mtime > DVC_LINK_S:
                left.unlink()


def _remove_unless_locked(folder: Path) -> None:
    try:
        lock = _lock(folder, wait=False)
    except BlockingIOError:  # its process lives
        return
    process = folder.name.partition("-")[0]
    if not _is_at_work(process):  # nor has another one its number
        for semaphore in semaphores_of(process):
            remove(semaphore)
    remove(folder)
    os.close(lock)
