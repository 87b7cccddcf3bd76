"""What MLflow asks where a registered model is served: scans in base64 in, answers out.

A copy of this module lies in every registered version, with the code that answers (`adpet.tracking.served`).
"""

from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR

from adpet.errors import InputError
from adpet.inference.exported_model import open_model
from adpet.inference.http import Limits, answer_encoded


class ScanError(MlflowException):  # type: ignore[misc]
    """Whose text stays one line: MLflow puts all that was sent before it, which is a participant's scan."""

    @property
    def message(self) -> str:
        """The text that the error was made with."""
        return self._text

    @message.setter
    def message(self, text: str) -> None:
        if not hasattr(self, "_text"):
            self._text = text


class ScanModel:
    """An exported model, opened once a process; requests may come in several threads at once."""

    def __init__(self, folder: Path, *, name: str | None, leaky: bool) -> None:
        self._limits = Limits.from_environment()
        self._model = open_model(folder, name=name, leaky=leaky)

    def predict(self, model_input: Any) -> list[dict[str, Any]]:
        """Answer for a NIfTI file in base64, or a list of them, as `answer_encoded` does.

        Raises
        ------
        ScanError
            BAD_REQUEST, which MLflow answers as HTTP 400, with the reason; INTERNAL_ERROR, HTTP 500, for what
            was not foreseen.
        """
        try:
            return answer_encoded(model_input, self._model, self._limits)
        except InputError as error:
            raise ScanError(str(error), BAD_REQUEST) from error
        except Exception as error:
            # Its text may quote the file, which is of a participant.
            text = f"failed for a reason not foreseen: {type(error).__name__}"
            raise ScanError(text, INTERNAL_ERROR) from error
