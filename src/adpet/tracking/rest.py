"""Ask an MLflow server which version a name stands for, by its documented REST API, without loading MLflow.

Whatever is not a plain answer is left to MLflow's own client, which knows other ways to log in.
"""

import base64
import json
import os
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from adpet.tracking.store import MODEL_URI, PASSWORD, USERNAME

TIMEOUT_S: Final = 5.0
# How else MLflow's client can be told to log in or to connect.
OTHERWISE: Final = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
)


def asked_over_rest(server: str, uri: str) -> dict[str, Any] | None:
    """Return `name`, `version` and `tags` of what a name stands for; None where MLflow must be asked."""
    named = MODEL_URI.fullmatch(uri)
    # With an @ there is a password in the address: connecting refuses it without telling it.
    if named is None or "@" in server or any(os.environ.get(name) for name in OTHERWISE):
        return None
    if named["alias"] is not None:
        path, query = "registered-models/alias", {"name": named["name"], "alias": named["alias"]}
    else:
        path, query = "model-versions/get", {"name": named["name"], "version": named["version"]}
    address = f"{server.rstrip('/')}/api/2.0/mlflow/{path}?{urlencode(query)}"
    try:
        request = Request(address, headers=_login())  # noqa: S310 - a server's address is http or https
        with build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as reply:
            found = json.load(reply)["model_version"]
        tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
        return {"name": found["name"], "version": int(found["version"]), "tags": tags}
    except (OSError, HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None


class _NoRedirect(HTTPRedirectHandler):
    """Goes nowhere else: a password is for the server that was named."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, which makes the answer an error."""


def _login() -> dict[str, str]:
    user, password = os.environ.get(USERNAME), os.environ.get(PASSWORD)
    if not (user and password):
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
