"""Experiment tracking and model registry on MLflow."""

import os

# Read when MLflow is imported or at each call: no telemetry, no printed run addresses or progress bars, and a
# server that does not answer is given up soon. MLflow's own 7 retries of 120 s each take minutes.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}.items():
    os.environ.setdefault(_name, _value)
