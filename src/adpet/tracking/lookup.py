"""How a run is found in the store by kind and lineage, and who owns it while it is RUNNING."""

from typing import Any

from mlflow.exceptions import MlflowException

from adpet.tracking.journal import RunKey, Session
from adpet.tracking.store import LINEAGE, Store, reported
from adpet.tracking.writers import is_alive, is_elsewhere

KIND = "adpet.kind"

# The process that owns a run while it is RUNNING, and its session in the outbox.
OWNER = "adpet.owner"
SESSION = "adpet.session"

_PARENT = "mlflow.parentRunId"


def search(store: Store, key: RunKey, parent: str | None = None) -> list[Any]:
    """Return the runs of a lineage and kind that were not deleted, the newest first."""
    query = f"tags.`{LINEAGE}` = '{key.lineage}' and tags.`{KIND}` = '{key.kind}'"
    if parent is not None:
        query += f" and tags.`{_PARENT}` = '{parent}'"
    with reported(f"{store.shown}: "):
        return list(
            store.client.search_runs([store.experiment_id], query, order_by=["attributes.start_time DESC"])
        )


def finished(store: Store, key: RunKey) -> str | None:
    """Return the id of the newest finished run, or None."""
    runs = [run for run in search(store, key) if run.info.status == "FINISHED"]
    return str(runs[0].info.run_id) if runs else None


def newest(store: Store, key: RunKey) -> str | None:
    """Return the id of the newest run, finished or not, or None."""
    runs = search(store, key)
    return str(runs[0].info.run_id) if runs else None


def is_there(store: Store, run_id: str) -> bool:
    """Say whether the store knows a run, deleted or not: one that was made anew at its address does not."""
    with reported(f"{store.shown}: "):
        try:
            store.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
    return True


def to_continue(store: Store, key: RunKey, parent: str | None, *, session: str, reopen: bool) -> Any | None:
    """Return the run that a session may go on with, if there is one.

    The session's own run may be continued whatever its status, since the session is sent again. Another that
    is RUNNING belongs to whoever writes to it: another living process of this machine, or a machine that this
    one cannot look into. What was killed here is ended before anything else is sent.
    """
    for run in search(store, key, parent):
        tags, status = run.data.tags, run.info.status
        if tags.get(SESSION) == session:
            return run
        if status == "RUNNING" and _may_live(tags.get(OWNER, "")):
            continue
        if status == "FINISHED" and not reopen:
            continue
        return run
    return None


def create(store: Store, session: Session, parent: str | None) -> str:
    """Create a session's run; its tags are there from its first moment, so that a kill cannot orphan it."""
    key, line = session.key, session.first
    tags = {
        LINEAGE: key.lineage,
        KIND: key.kind,
        OWNER: line["owner"],
        SESSION: session.name,
        "mlflow.user": line["user"],
        "mlflow.source.name": f"adpet {'tune' if key.kind == 'trial' else key.kind}",
        "mlflow.source.type": "LOCAL",
    }
    if parent is not None:
        tags[_PARENT] = parent
    run = store.client.create_run(
        store.experiment_id, start_time=line["time"], tags=tags, run_name=line["name"]
    )
    return str(run.info.run_id)


def not_there(store: Store, key: RunKey) -> str:
    """Return the one line that says that a training's run is missing, and how to get it."""
    return (
        f"{store.shown}: required the finished {key.kind}ing run of lineage {key.lineage}, but it is not "
        f"there; log it again with: dvc repro --force {key.kind}"
    )


def _may_live(owner: str) -> bool:
    """Say whether the process that owns a run may still write to it."""
    return owner.count(":") >= 2 and (is_elsewhere(owner) or is_alive(owner))
