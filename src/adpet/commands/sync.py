"""Send to MLflow what waits in the outbox, since it was away when a stage said it."""

import argparse
from pathlib import Path

from adpet.errors import TrackingError
from adpet.params import load_params
from adpet.tracking import sender
from adpet.tracking.journal import OUTBOX
from adpet.tracking.store import connect, current, target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--all", action="store_true", help="also what was meant for another store")


def main(options: argparse.Namespace) -> None:
    """Synchronize and print the outcome."""
    print(run(everything=options.all))


def run(*, everything: bool) -> str:
    """Send it, and return a sentence that says how much it was.

    Parameters
    ----------
    everything : bool
        Also what was meant for another store than the one that MLFLOW_TRACKING_URI names now.

    Raises
    ------
    TrackingError
        Where MLflow does not answer or refuses something, or something is left.
    """
    connect(Path.cwd(), experiment=load_params().tracking.experiment)
    done = sender.deliver(only=None if everything else target().name)
    left, others = sender.waiting(only=target().name), sender.waiting(only=None)
    said = f"{done.sent} entries of {len(done.runs)} run(s) sent to {current().shown}"
    refused = "".join(f"; {line}" for line in sender.refusals())
    if left or done.problems or (everything and others):
        problems = "; ".join(dict.fromkeys(problem.text for problem in done.problems))
        why = problems or "a stage that is running sends them"
        raise TrackingError(f"{said}; {sum(others.values())} wait in {OUTBOX}/: {why}{refused}")
    if others:
        stores = ", ".join(name for name in sender.stores() if name != target().name)
        said = f"{said}; {sum(others.values())} wait for {stores}: set MLFLOW_TRACKING_URI, or use --all"
    else:
        said = f"{said}; nothing waits"
    if refused:
        raise TrackingError(f"{said}{refused}")
    return said
