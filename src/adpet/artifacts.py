"""Where every artifact of the pipeline lies, and how it is written: aside first, then renamed.

All paths are relative to the project's root, where ``dvc.yaml`` lies and where stages run.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
# What ingest has read of every file, so that it reads new and changed ones alone; nothing is lost without it.
INGEST_NOTES = WORK / "ingest.tsv"

# The tag of a registered version with the digest of its files, and the file that MLflow adds to their copies.
FILES = "adpet.files_digest"
VERSION_FILE = "registered_model_meta"

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


def files_digest(folder: Path) -> str:
    """Return a hash of the names and contents of a model's files; a link to a folder counts too."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file()
        if (is_file or path.is_symlink()) and path != folder / VERSION_FILE:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes() if is_file else b"").digest())
    return digest.hexdigest()


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
