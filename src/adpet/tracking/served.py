"""The model that is registered: the exported one with the trained network and the code that answers.

MLflow serves it in an environment that need not have this package. The code's copy goes by a name of its own,
which follows from its content: an installed adpet is not hidden by it, and versions of different code do not
mix.
"""

import hashlib
import re
import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import adpet
from adpet.errors import InputError
from adpet.inference.exported_model import open_model
from adpet.tracking import checked_loading
from adpet.tracking.checked_loading import CODE, EXPORTED, files_digest
from adpet.tracking.model_files import downloaded
from adpet.tracking.models import MODEL_FILE, SERVED, send_model, trained_model, without_compiled
from adpet.tracking.store import LINEAGE, current, reported

NAME: Final = "served"

# What answering is made of, of this package; a test holds it to what is imported.
PARTS: Final = (
    "__init__.py",
    "artifacts.py",
    "errors.py",
    "answering/__init__.py",
    "inference/predictor.py",
    "inference/http.py",
    "inference/exported_model.py",
    "inference/exported_model.py",
    "inference/quality.py",
    "inference/regions.py",
    "evidence/__init__.py",
    "evaluation/aggregation.py",
    "evaluation/bootstrap.py",
    "evaluation/bootstrap.py",
    "imaging/__init__.py",
    "imaging/registration.py",
    "imaging/registration.py",
    "imaging/slices.py",
    "imaging/nifti.py",
    "imaging/normalization.py",
    "imaging/normalization.py",
    "imaging/template.py",
    "imaging/nifti.py",
    "tracking/__init__.py",
    "tracking/scan_model.py",
)
REQUIREMENTS: Final = ("mlflow", "nibabel", "numpy", "onnxruntime", "pandas", "scipy")
_IMPORT: Final = re.compile(r"^(\s*(?:from|import) )adpet\b", re.MULTILINE)


def log_served(run_id: str | None, export: Path) -> str:
    """Log the exported model of a run as a further model of that run, and return the id of the logged model.

    The same files are logged once, however often this is asked for; what a killed process left is completed.

    Raises
    ------
    InputError
        If `export` is no exported model, or one of another training.
    TrackingError
        If the run or its trained model is not there.
    """
    trained = trained_model(run_id)
    _require_of(str(run_id), export)
    with (
        downloaded(trained.artifact_location, uri=f"run {run_id}") as network,
        tempfile.TemporaryDirectory(prefix="adpet-served-") as scratch,
        reported(),
    ):
        folder = Path(scratch, NAME)
        digest = write_served(folder, network=network, export=export)
        return send_model(str(run_id), folder, digest=digest, name=NAME, tag=SERVED)


def write_served(folder: Path, *, network: Path, export: Path) -> str:
    """Write what MLflow serves to a folder, and return a digest of what its answers follow from.

    Parameters
    ----------
    folder : Path
        Which is not there yet.
    network : Path
        The trained Keras model, as `models.write_model` writes it.
    export : Path
        The exported model.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    trained = Model.load(str(network))
    requirements = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    with tempfile.TemporaryDirectory(prefix="adpet-served-") as scratch:
        model, code = Path(scratch, "model"), Path(scratch, CODE)
        shutil.copytree(network / trained.flavors["keras"]["data"], model)
        shutil.copytree(export, model / EXPORTED)
        _copy_code(code)
        content = hashlib.sha256("\n".join([files_digest(model), files_digest(code), *requirements]).encode())
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # there is no example input: a scan would be somebody's
            mlflow.pyfunc.save_model(
                str(folder),
                loader_module=Path(checked_loading.__file__).stem,
                data_path=str(model),
                code_paths=[str(part) for part in sorted(code.iterdir())],
                signature=_signature(),
                pip_requirements=requirements,
                metadata=trained.metadata,
            )
    without_compiled(folder / CODE)  # here, since MLflow copies nothing of that name
    described = Model.load(str(folder))
    described.flavors["keras"] = trained.flavors["keras"] | {
        "data": described.flavors["python_function"]["data"]
    }
    described.save(str(folder / MODEL_FILE))
    return content.hexdigest()


def _require_of(run_id: str, export: Path) -> None:
    """Check that an exported model is whole and of a run's training."""
    found = open_model(export).document["lineage"]["id"]
    with reported(f"run {run_id}: "):
        wanted = current().client.get_run(run_id).data.tags.get(LINEAGE)
    if found != wanted:
        raise InputError(
            f"{export}: required the exported model of the training {wanted}; received that of {found}; "
            "run: dvc repro export"
        )


def _copy_code(code: Path) -> None:
    """Write the module that MLflow loads, and beside it the package under its own name."""
    package = Path(adpet.__file__).parent
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(part.encode() + b"\0" + (package / part).read_bytes())
    name = f"adpet_{digest.hexdigest()[:12]}"
    for part in PARTS:
        target = code / name / part
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (package / part).read_text(encoding="utf-8")
        target.write_text(_IMPORT.sub(rf"\g<1>{name}", text), encoding="utf-8")
    shutil.copyfile(checked_loading.__file__, code / Path(checked_loading.__file__).name)


def _signature() -> Any:
    """Return what goes in and out; MLflow hands the input over as it was sent, and makes no table of it."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.string, name="scan")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, name="scan"),
                ColSpec(DataType.string, name="model"),
                ColSpec(DataType.double, name="probability_of_ad"),
                ColSpec(DataType.double, name="threshold"),
                ColSpec(DataType.string, name="meaning"),
            ]
        ),
    )
    signature._is_signature_from_type_hint = True  # noqa: SLF001 - what MLmodel calls is_signature_from_type_hint
    return signature
