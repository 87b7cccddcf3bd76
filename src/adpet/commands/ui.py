"""Open the MLflow UI on the project's runs, on loopback."""

import subprocess
import sys
from pathlib import Path

from adpet.errors import TrackingError
from adpet.tracking.store import store_uri


def run(*, port: int) -> None:
    """Serve the UI until it is interrupted.

    Raises
    ------
    TrackingError
        Where the server does not start, for instance because the port is taken.
    """
    uri = store_uri(Path.cwd())
    if uri.startswith(("http://", "https://")):
        raise TrackingError(f"MLFLOW_TRACKING_URI names a server that has a UI already: open {uri}")
    print(f"The runs in {uri} are shown on http://127.0.0.1:{port} (stop with Ctrl-C)", flush=True)
    server = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    done = subprocess.run([*server, "--host", "127.0.0.1", "--port", str(port)], check=False)
    if done.returncode > 0:
        raise TrackingError(f"the MLflow UI stopped with status {done.returncode}; try another --port")
