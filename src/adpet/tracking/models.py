"""Logged models of a run: trained network and served model.

Their files are YAML, JSON, ONNX and Keras' own archive, read in its safe mode: nothing is pickled.
"""

import ast
import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from adpet.errors import InputError, TrackingError
from adpet.inference.exported_model import open_model
from adpet.storage import PACKAGE, files_digest
from adpet.tracking import serving
from adpet.tracking.serving import EXPORTED
from adpet.tracking.store import LINEAGE, Store, current, one_line, reported

# Tags of a logged model: the digest of a trained network, or that of all that a served model answers with.
DIGEST: Final = "adpet.model_digest"
SERVED: Final = "adpet.served_digest"

# What a served model needs to be installed.
REQUIREMENTS: Final = ("dcm2niix", "mlflow", "nibabel", "numpy", "onnxruntime", "pandas", "pydicom", "scipy")

_MODEL_FILE = "MLmodel"


def log_keras_model(
    store: Store,
    run_id: str,
    model: Any,
    *,
    signature_example: npt.NDArray[np.uint8],
    metadata: Mapping[str, Any],
) -> str:
    """Log a Keras model once; return its id."""
    import keras
    import mlflow.keras

    names = ("mlflow", "numpy", "keras", keras.backend.backend())
    with tempfile.TemporaryDirectory(prefix="adpet-model-") as scratch:
        mlflow.keras.save_model(
            model,
            scratch,
            signature=infer_signature(signature_example, model.predict(signature_example, verbose=0)),
            input_example=signature_example[:1],
            metadata=json.loads(json.dumps(dict(metadata))),
            pip_requirements=[f"{each}=={version(each)}" for each in names],
        )
        return send_model(store, run_id, Path(scratch), digest=model_digest(model), name="model")


def send_model(store: Store, run_id: str, folder: Path, *, digest: str, name: str, tag: str = DIGEST) -> str:
    """Log a folder's model once; return its id.

    It is known by its `digest` as `tag`. One that a killed process left half-way is completed.
    """
    client = store.client
    run = client.get_run(run_id)
    found = {each.status: each for each in logged_models(run_id, store) if each.tags.get(tag) == digest}
    entry = found.get(LoggedModelStatus.READY) or found.get(LoggedModelStatus.PENDING)
    if entry is None:
        entry = client.create_logged_model(
            run.info.experiment_id,
            name=name,
            source_run_id=run_id,
            tags={tag: digest, LINEAGE: run.data.tags.get(LINEAGE, "")},
            params=run.data.params,
            model_type="onnx" if tag == SERVED else "keras",
        )
    if LoggedModelStatus.READY not in found:
        with tempfile.TemporaryDirectory(prefix="adpet-model-") as scratch:
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
            file = Path(scratch, _MODEL_FILE)
            described = Model.load(str(file))
            described.artifact_path = entry.artifact_location
            described.model_uuid = described.model_id = entry.model_id
            described.run_id = run_id
            described.save(str(file))
            client.log_model_artifacts(entry.model_id, scratch)
        client.finalize_logged_model(entry.model_id, LoggedModelStatus.READY)
    if entry.model_id not in {
        output.model_id for output in (run.outputs.model_outputs if run.outputs else [])
    }:
        client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=0)])
    return str(entry.model_id)


def logged_models(run_id: str, store: Store | None = None) -> list[Any]:
    """Return a run's models, whole or not, the newest first."""
    client = (store or current()).client
    experiment_id = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return sorted(found, key=lambda model: model.creation_timestamp, reverse=True)


def ready_models(run_id: str, store: Store | None = None) -> list[Any]:
    """Return a run's whole trained networks, the newest first."""
    return [
        each
        for each in logged_models(run_id, store)
        if each.status == LoggedModelStatus.READY and SERVED not in each.tags
    ]


def trained_model(run_id: str | None) -> Any:
    """Return the shared run's trained network; refuse a run without."""
    found = []
    if run_id is not None:
        with reported(f"run {run_id}: "):
            found = ready_models(run_id)
    if not found:
        raise TrackingError(
            f"{current().shown}: required a finished training run with its model, but run "
            f"{run_id or 'of this lineage'} has none there; log it again with: dvc repro --force train"
        )
    return found[0]


def model_digest(model: Any) -> str:
    """Return a hash of a Keras model's architecture and weights."""
    digest = hashlib.sha256(model.to_json().encode())
    for weights in model.get_weights():
        digest.update(f"{weights.dtype}{weights.shape}".encode())
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def log_served(run_id: str | None, export: Path) -> str:
    """Log a run's exported model once; return its id."""
    trained = trained_model(run_id)
    made_by = open_model(export).document["lineage"]["id"]
    with reported(f"run {run_id}: "):
        wanted = current().client.get_run(run_id).data.tags.get(LINEAGE)
    if made_by != wanted:
        raise InputError(
            f"{export}: required the exported model of the training {wanted}; received that of {made_by}; "
            "run: dvc repro export"
        )
    with (
        downloaded(trained.artifact_location, uri=f"run {run_id}") as network,
        tempfile.TemporaryDirectory(prefix="adpet-served-") as scratch,
        reported(),
    ):
        folder = Path(scratch, "served")
        digest = _write_served(folder, network=network, export=export)
        return send_model(current(), str(run_id), folder, digest=digest, name="served", tag=SERVED)


@contextmanager
def downloaded(location: str, *, uri: str) -> Iterator[Path]:
    """Yield a copy of the files of the model `uri`."""
    with tempfile.TemporaryDirectory(prefix="adpet-model-") as scratch:
        try:
            with reported():
                folder = mlflow.artifacts.download_artifacts(
                    location, dst_path=scratch, tracking_uri=current().uri
                )
        except (OSError, TrackingError) as error:
            raise TrackingError(
                f"{uri}: required its files in {location}; received: {one_line(error)}; if the project was "
                "moved, register it again with: dvc repro --force train register"
            ) from error
        yield Path(folder)


def require_digest(folder: Path, wanted: str | None, *, uri: str) -> None:
    """Refuse files that are not as they were registered."""
    if not wanted:
        raise TrackingError(
            f"{uri}: required the digest of its files, by which a changed one is noticed; received a version "
            "without it; register it again with: dvc repro --force register"
        )
    found = files_digest(folder)
    if found != wanted:
        raise TrackingError(
            f"{uri}: required its files as they were registered (digest {wanted[:12]}); received "
            f"{found[:12]}: one was changed since; bring it back, or name another version"
        )


def read_model(folder: Path, *, uri: str) -> tuple[Any, dict[str, Any]]:
    """Read a Keras model and its metadata."""
    from adpet.learning.checkpoint import load_model

    try:
        with reported(f"{uri}: "):
            described = Model.load(str(folder))
        file = folder / described.flavors.get("keras", {}).get("data", "data") / "model.keras"
        if file.resolve().is_relative_to(folder.resolve()):
            return load_model(file), dict(described.metadata or {})
    except (OSError, InputError) as error:
        raise TrackingError(f"{uri}: required a Keras model; received: {one_line(error)}") from error
    raise TrackingError(f"{uri}: required a Keras model; received {file.parent}, a path out of its folder")


def _write_served(folder: Path, *, network: Path, export: Path) -> str:
    """Write the served model; return a digest of its content."""
    trained = Model.load(str(network))
    requirements = [f"{name}=={version(name)}" for name in REQUIREMENTS]
    with tempfile.TemporaryDirectory(prefix="adpet-served-") as scratch:
        data, code = Path(scratch, "model"), Path(scratch, "code")
        shutil.copytree(network / trained.flavors["keras"]["data"], data)
        shutil.copytree(export, data / EXPORTED)
        _copy_modules(code)
        content = "\n".join([files_digest(data), files_digest(code), *requirements])
        with warnings.catch_warnings():
            # There is no example input: a scan would be somebody's.
            warnings.simplefilter("ignore", UserWarning)
            mlflow.pyfunc.save_model(
                str(folder),
                loader_module=serving.__name__,
                data_path=str(data),
                code_paths=[str(package) for package in code.iterdir()],
                signature=_signature(),
                pip_requirements=requirements,
                metadata=trained.metadata,
            )
    # Files where Python would keep compiled modules: MLflow imports the code of a local store in place, where
    # those would change the digest.
    for place in (folder / "code", *(path for path in (folder / "code").rglob("*") if path.is_dir())):
        (place / "__pycache__").write_text("Nothing compiled is kept here.\n", encoding="utf-8")
    described = Model.load(str(folder)).to_dict()
    stored = described["flavors"]["python_function"]["data"]
    described["flavors"]["keras"] = trained.flavors["keras"] | {"data": stored}
    # MLflow then hands the input over as it was sent, and makes no table of it.
    described["is_signature_from_type_hint"] = True
    Model.from_dict(described).save(str(folder / _MODEL_FILE))
    return hashlib.sha256(content.encode()).hexdigest()


def _copy_modules(code: Path) -> None:
    """Copy the serving module and all that it imports."""
    waiting = [serving.__name__]
    while waiting:
        name = waiting.pop()
        place = Path(name.replace(".", "/"))
        source = PACKAGE.parent / place
        end = "/__init__.py" if source.is_dir() else ".py"
        source, target = Path(f"{source}{end}"), Path(f"{code / place}{end}")
        if name.partition(".")[0] != PACKAGE.name or target.exists() or not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        waiting.append(name.rpartition(".")[0])
        for node in ast.parse(source.read_bytes()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def _signature() -> ModelSignature:
    """Return the signature: NIfTI in base64 in, an answer out."""
    numbers = ("probability_of_ad", "threshold", "likelihood_ratio")
    answer = ("scan", "model", "probability_of_ad", "threshold", "meaning", "likelihood_ratio", "answer")
    kinds = {name: DataType.double if name in numbers else DataType.string for name in answer}
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, name="scan")]),
        outputs=Schema(
            [ColSpec(kind, name=name, required=name in answer[:5]) for name, kind in kinds.items()]
        ),
        params=ParamSchema(
            [
                ParamSpec("age", DataType.double, None),
                *(ParamSpec(name, DataType.boolean, default=False) for name in ("maps", "force")),
            ]
        ),
    )
