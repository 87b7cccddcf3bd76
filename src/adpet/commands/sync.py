"""Send the project's own MLflow runs to the server."""

from pathlib import Path

from adpet.errors import TrackingError
from adpet.params import load_params
from adpet.tracking.store import TRACKING_URI, connect, current
from adpet.tracking.sync import sync_all


def main() -> str:
    """Send all that the server lacks; return what to print."""
    connect(Path.cwd(), experiment=load_params().tracking.experiment)
    server = current()
    if not server.is_server:
        raise TrackingError(
            f"required a server to send the runs of {server.shown} to; received none; set {TRACKING_URI} to "
            "its address"
        )
    sent, problems = sync_all()
    said = f"{sent} run(s) are on {server.shown}"
    if problems:
        raise TrackingError(f"{said}; {len(problems)} are not: {'; '.join(problems)}")
    return f"{said}; nothing waits"
