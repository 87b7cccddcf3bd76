"""`pip install .` without extras gives `adpet predict`."""

import json
import tomllib
from functools import partial
from pathlib import Path

import pytest
from programs import run_code

PROJECT = Path(__file__).parents[2]
# Distributions whose modules have another name.
MODULES = {"pyyaml": "yaml", "ruamel.yaml": "ruamel", "scikit-learn": "sklearn"}
PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {REFUSED}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from adpet.cli import main

main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def predict(tmp_path_factory):
    """Return a function that runs `adpet predict` without the packages of the extra `train`."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    packages = [line.partition(">")[0] for line in project["optional-dependencies"]["train"]]
    refused = {MODULES.get(package, package) for package in packages}
    program = PROGRAM.replace("{REFUSED}", repr(refused))
    folder = tmp_path_factory.mktemp("predict")

    return partial(run_code, program, "predict", cwd=folder)


def test_predict_with_an_exported_folder_needs_no_training_library(predict, small_export, small_scans):
    done = predict(small_scans[0], "--model", small_export, "--json", "-")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout)
    assert 0 < answer["probability_of_ad"] < 1


def test_predict_with_a_registered_model_names_the_missing_extra(predict, small_scans):
    done = predict(small_scans[0], "--model", "models:/adpet/1")
    assert done.returncode == 1
    assert "adpet[train]" in done.stderr
    assert "Traceback" not in done.stderr
