"""Answers of a registered model under ``mlflow models serve``.

A copy of this module, and of all of the package that it imports, lies in every registered version
(`adpet.tracking.models`). MLflow loads it where the package itself need not be installed.
"""

from pathlib import Path
from typing import Any, Final

import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR

from adpet.errors import InputError
from adpet.inference.exported_model import open_model
from adpet.inference.http import Limits, answer_encoded
from adpet.storage import FILES, VERSION_FILE, files_digest

# The folder of the exported model within the model's data.
EXPORTED: Final = "export"


class ScanError(MlflowException):  # type: ignore[misc]
    """Error of one line, without the scan MLflow would quote."""

    @property
    def message(self) -> str:
        """The text that the error was made with."""
        return self._text

    @message.setter
    def message(self, text: str) -> None:
        if not hasattr(self, "_text"):
            self._text = text


class ScanModel:
    """Exported model that answers requests from several threads."""

    def __init__(self, folder: Path, *, name: str | None, leaky: bool) -> None:
        self._limits = Limits.from_environment()
        self._model = open_model(folder, name=name, leaky=leaky)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Answer for a NIfTI file in base64, or several.

        `params` may have the arguments `age`, `maps` and `force` of `answer_encoded`.
        An error is a ScanError: BAD_REQUEST, HTTP 400, with the reason; INTERNAL_ERROR, HTTP 500, for what
        was not foreseen.
        """
        try:
            return answer_encoded(model_input, self._model, self._limits, **params or {})
        except InputError as error:
            raise ScanError(str(error), BAD_REQUEST) from error
        except Exception as error:
            # Its text may quote the file, which is of a participant.
            text = f"failed for a reason not foreseen: {type(error).__name__}"
            raise ScanError(text, INTERNAL_ERROR) from error


def _load_pyfunc(path: str) -> ScanModel:
    """Load the exported model for MLflow.

    A version of the registry is refused if a file is not as it was registered.
    """
    data = Path(path)
    folder = next(place for place in data.parents if (place / "MLmodel").is_file())
    file = folder / VERSION_FILE
    meta = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if not meta.get("model_name"):
        return ScanModel(data / EXPORTED, name=None, leaky=False)
    version = MlflowClient().get_model_version(meta["model_name"], str(meta["model_version"]))
    uri, wanted, found = (
        f"models:/{version.name}/{version.version}",
        version.tags.get(FILES),
        files_digest(folder),
    )
    if found != wanted:
        raise MlflowException(
            f"{uri}: required its files as they were registered (digest {(wanted or 'none')[:12]}); received "
            f"{found[:12]}: one was changed since; bring it back, or name another version"
        )
    return ScanModel(data / EXPORTED, name=uri, leaky=version.tags.get("adpet.leaky") == "true")
