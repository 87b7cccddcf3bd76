"""Keras models as MLflow's logged models: in Keras' own format, never as a pickle, each with its digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from adpet.errors import TrackingError
from adpet.storage import atomic_write
from adpet.tracking import checked_loading
from adpet.tracking.store import LINEAGE, current, reported

# The tag that carries a model's digest, on the logged model and on its version.
DIGEST = "adpet.model_digest"

# The tag of a logged model that is the exported one, and of its version: what its answers follow from.
SERVED = "adpet.served_digest"

# The file of a model's folder that names the logged model, once there is one.
MODEL_FILE = "MLmodel"

# Where Python would keep what it compiles of a folder's modules, and what a file in that place says.
_COMPILED = "__pycache__"
_WHY = (
    "A file here, where Python would make a folder: nothing compiled is written to a model's code, or run.\n"
)


def write_model(
    model: Any,
    folder: Path,
    *,
    signature_example: npt.NDArray[np.uint8],
    metadata: Mapping[str, Any],
    pip_requirements: Sequence[str],
) -> None:
    """Write what MLflow keeps of a Keras model to a folder, which `send_model` makes a run's."""
    import mlflow.keras
    from mlflow.models import infer_signature

    mlflow.keras.save_model(
        model,
        str(folder),
        signature=infer_signature(signature_example, model.predict(signature_example, verbose=0)),
        input_example=signature_example[:1],
        metadata=json.loads(json.dumps(dict(metadata))),
        pip_requirements=list(pip_requirements),
    )
    _check_when_loaded(folder)


def send_model(run_id: str, folder: Path, *, digest: str, name: str, tag: str = DIGEST) -> str:
    """Log a model that lies in a folder as an output of a run, and return the id of the logged model.

    One that is there whole already, with its `digest` as `tag`, is not logged again; one that was left
    half-way is completed. It is not removed: on a server with users that takes more than the permission to
    write.
    """
    client = current().client
    there = {one.status: one for one in logged_models(run_id) if one.tags.get(tag) == digest}
    if LoggedModelStatus.READY in there:
        return _as_output(run_id, there[LoggedModelStatus.READY].model_id)
    entry = there.get(LoggedModelStatus.PENDING) or _create(run_id, {tag: digest}, name)
    _claim(folder, entry)
    client.log_model_artifacts(entry.model_id, str(folder))
    client.finalize_logged_model(entry.model_id, LoggedModelStatus.READY)
    return _as_output(run_id, entry.model_id)


def without_compiled(code: Path) -> None:
    """Keep Python from writing what it compiles to the folders of a model's code, and from reading it there.

    MLflow imports the code of a local store in place: what Python left there could not be told from what
    somebody else did, and would be run instead of the module.
    """
    for folder in (code, *(path for path in code.rglob("*") if path.is_dir())):
        (folder / _COMPILED).write_text(_WHY, encoding="utf-8")


def ready_models(run_id: str) -> list[Any]:
    """Return the trained models that a run logged whole, the newest first."""
    return [
        one
        for one in logged_models(run_id)
        if one.status == LoggedModelStatus.READY and SERVED not in one.tags
    ]


def trained_model(run_id: str | None) -> Any:
    """Return the model that a run trained and logged last.

    Raises
    ------
    TrackingError
        If the run (None, as `find_run` gives it, stands for one that is not there) or its model is not there.
    """
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


def logged_models(run_id: str) -> list[Any]:
    """Return the models that a run logged, whole or not, the newest first."""
    client = current().client
    experiment_id = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return sorted(found, key=lambda model: model.creation_timestamp, reverse=True)


def model_digest(model: Any) -> str:
    """Return a hash of a Keras model's architecture and weights, independent of when it was saved."""
    digest = hashlib.sha256(model.to_json().encode())
    for weights in model.get_weights():
        digest.update(f"{weights.dtype}{weights.shape}".encode())
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def installed_requirements() -> list[str]:
    """Return what a Keras model needs to be served, each pinned to the version that is installed."""
    import keras

    names = ("mlflow", "numpy", "keras", keras.backend.backend())
    return [f"{name}=={version(name)}" for name in names]


def _create(run_id: str, tags: Mapping[str, str], name: str) -> Any:
    client = current().client
    run = client.get_run(run_id)
    return client.create_logged_model(
        run.info.experiment_id,
        name=name,
        source_run_id=run_id,
        tags={**tags, LINEAGE: run.data.tags.get(LINEAGE, "")},
        params=run.data.params,
        model_type="onnx" if SERVED in tags else "keras",
    )


def _as_output(run_id: str, model_id: str) -> str:
    """Note a model among the outputs of its run, where a killed process had not come to it."""
    client = current().client
    outputs = client.get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    return model_id


def _check_when_loaded(folder: Path) -> None:
    """Let MLflow read a model by `checked_loading`, of which it gets a copy."""
    from mlflow.models import Model

    code, module = folder / checked_loading.CODE, Path(checked_loading.__file__)
    code.mkdir()
    (code / module.name).write_bytes(module.read_bytes())
    without_compiled(code)
    path = folder / MODEL_FILE
    model = Model.load(str(path))
    model.flavors["python_function"] |= {"loader_module": module.stem, "code": checked_loading.CODE}
    model.save(str(path))


def _claim(folder: Path, entry: Any) -> None:
    """Write into a model's folder which logged model it is."""
    from mlflow.models import Model

    path = folder / MODEL_FILE
    model = Model.load(str(path))
    model.artifact_path = entry.artifact_location
    model.model_uuid = model.model_id = entry.model_id
    model.run_id = entry.source_run_id
    with atomic_write(path) as aside:
        model.save(str(aside))
