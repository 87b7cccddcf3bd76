"""How MLflow itself reads a registered model: only if its files are those that were registered.

A copy of this file lies in every model's folder, in `CODE`, and MLflow calls it for ``mlflow models serve``
and ``mlflow.pyfunc.load_model``, where the package may not be installed: it imports nothing of it. It notices
a file that was changed, damaged or added, compiled modules included: Python finds a file where it would keep
those (`models.without_compiled`). Whoever may write the store could take the check itself out, which MLflow
would not notice; ``adpet predict`` looks at all files before any is opened, and imports none of them.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Any

# The tag of a version that carries the digest.
FILES = "adpet.files_digest"

# The folder of a model that MLflow imports modules from.
CODE = "code"

# The folder of the exported model, within the model's data.
EXPORTED = "export"

# What MLflow adds to every copy that it hands out, beside MLmodel: which version it is.
VERSION_FILE = "registered_model_meta"


def files_digest(folder: Path) -> str:
    """Return a hash of the names and contents of all files below `folder`; a link to a folder is one too."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file()
        if (is_file or path.is_symlink()) and path != folder / VERSION_FILE:
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes() if is_file else b"").digest())
    return digest.hexdigest()


def _load_pyfunc(path: str) -> Any:
    """Return what answers for scans, or for slices where it is a run's own network; MLflow calls this.

    Raises
    ------
    MlflowException
        Where it is a version of the registry, and a file is not as it was registered.
    """
    data = Path(path)
    folder = next(place for place in (data, *data.parents) if (place / "MLmodel").is_file())
    version = _registered(folder)
    if not (data / EXPORTED).is_dir():
        from mlflow.keras.load import _load_pyfunc as keras_model

        return keras_model(path)
    (package,) = (folder / CODE).glob("adpet_*/")
    answering = importlib.import_module(f"{package.name}.tracking.scan_model")
    return answering.ScanModel(
        data / EXPORTED,
        name=version and f"models:/{version.name}/{version.version}",
        leaky=version is not None and version.tags.get("adpet.leaky") == "true",
    )


def _registered(folder: Path) -> Any:
    """Return the version that a folder is a copy of, after a look that its files are as they were registered.

    A run's own model is no version yet, and has no digest to keep to: None.
    """
    if not (folder / VERSION_FILE).is_file():
        return None
    import yaml
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    named = yaml.safe_load((folder / VERSION_FILE).read_text(encoding="utf-8"))
    if not named.get("model_name"):
        return None
    name, number = named["model_name"], str(named["model_version"])
    version = MlflowClient().get_model_version(name, number)
    wanted = version.tags.get(FILES)
    found = files_digest(folder)
    if found != wanted:
        raise MlflowException(
            f"models:/{name}/{number}: required its files as they were registered (digest "
            f"{(wanted or 'none')[:12]}); received {found[:12]}: one was changed since; bring it back, or "
            "name another version"
        )
    return version
