"""The network of an exported model, on ONNX Runtime."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from adpet.errors import InputError

INPUT, CAM, PROBABILITY = "slices", "cam", "probability"
THREADS: Final = 2
# Slices at a time, so that memory does not grow with their number.
BATCH: Final = 64


@dataclass(frozen=True, eq=False)
class Network:
    """A session that answers for slices; the same slices get the same answer, also in several threads."""

    session: Any

    @classmethod
    def read(cls, path: Path) -> "Network":
        """Read a network.

        Raises
        ------
        InputError
            If the file is no ONNX network with our input and outputs.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        # Threads that spin between two operators take time from whoever else computes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise _unusable(path, " ".join(str(error).split())[:200]) from error
        names = [one.name for one in session.get_inputs()], sorted(one.name for one in session.get_outputs())
        if names != ([INPUT], [CAM, PROBABILITY]):
            raise _unusable(path, f"{names[0]} and {names[1]}")
        return cls(session)

    def __call__(
        self, slices: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Answer for slices.

        Parameters
        ----------
        slices : (n, height, width) uint8 ndarray

        Returns
        -------
        cam : (n, h, w) float32 ndarray
            AD minus CN, in units of the logit.
        probability : (n,) float32 ndarray
            Of AD.
        """
        parts = [
            self.session.run([CAM, PROBABILITY], {INPUT: slices[start : start + BATCH, ..., np.newaxis]})
            for start in range(0, max(len(slices), 1), BATCH)
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _unusable(path: Path, received: str) -> InputError:
    return InputError(
        f"{path}: required an ONNX network with the input {INPUT} and the outputs {CAM} and {PROBABILITY}; "
        f"received {received}; export it anew with: dvc repro --force export"
    )
