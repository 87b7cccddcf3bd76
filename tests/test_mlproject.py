"""The MLflow project offers every stage and command, and repeats no hyperparameter."""

import pytest
from ruamel.yaml import YAML

from adpet.cli import STAGES
from adpet.params import load_params

COMMANDS = {"summary", "promote", "rollback", "history", "lineage", "reproduce", "predict", "preset", "ui"}


@pytest.fixture(scope="module")
def entry_points(project_root):
    return YAML(typ="safe").load(project_root / "MLproject")["entry_points"]


def test_main_is_the_whole_pipeline(entry_points):
    assert entry_points["main"] == {"command": "dvc repro"}


def test_every_stage_and_command_is_an_entry_point(entry_points):
    assert set(entry_points) == {"main", *STAGES, *COMMANDS}


def test_a_stage_is_run_by_dvc(entry_points):
    for stage in STAGES:
        assert entry_points[stage]["command"].endswith(stage)
        assert entry_points[stage]["command"].startswith("dvc repro ")


def test_no_setting_is_repeated(entry_points, project_root):
    settings = {key.rpartition(".")[2] for key in load_params(project_root / "params.yaml").flat()}
    for point in entry_points.values():
        assert not settings & set(point.get("parameters", {}))


def test_mlflow_reads_it(entry_points, project_root):
    from mlflow.projects import _project_spec as spec

    project = spec.load_project(str(project_root))
    assert (
        project.get_entry_point("predict")
        .compute_command({"scan": "scan.nii.gz", "model": "models:/adpet/3"}, None)
        .endswith("-m adpet predict scan.nii.gz --model models:/adpet/3")
    )
