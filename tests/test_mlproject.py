"""The MLflow project: `mlflow run . -P overrides="..."` runs the pipeline."""

import pytest
from workspace import Workspace

from adpet.params import read_yaml


@pytest.fixture(scope="module")
def command_of(project_root):
    """Return the command of an entry point, as MLflow makes it."""
    from mlflow.projects import _project_spec as spec

    project = spec.load_project(str(project_root))

    def command_of(name, **parameters):
        return project.get_entry_point(name).compute_command(parameters, None)

    return command_of


def test_predict_and_promote_are_commands_of_adpet(command_of):
    predict = command_of("predict", scan="scan.nii.gz", model="models:/adpet/3")
    assert predict.endswith("-m adpet predict scan.nii.gz --model models:/adpet/3")
    assert command_of("promote").endswith("-m adpet promote challenger")


@pytest.mark.dvc
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, "18 3 [-84.0, 36.0]"),
        ({"overrides": "train.epochs=30 tune.trials=20 slice.range_mm=[-60,30]"}, "30 20 [-60, 30]"),
    ],
)
def test_main_runs_the_pipeline_with_overridden_parameters(command_of, tmp_path, overrides, said):
    (tmp_path / "params.yaml").write_text(
        "train: {epochs: 18}\ntune: {trials: 3}\nslice: {range_mm: [-84.0, 36.0]}\n"
    )
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: cp params.yaml out.txt\n"
        "    params: [train.epochs, tune.trials, slice.range_mm]\n    outs: [out.txt]\n"
    )
    for name in ("1", "6"):
        (tmp_path / name).touch()  # [-60,30] is no pattern for files
    project = Workspace(tmp_path)
    for program in ("git", "dvc"):
        project.run(program, "init", "--quiet")
    project.commit_all()
    project.run("bash", "-c", command_of("main", **overrides))
    values = read_yaml(tmp_path / "out.txt")
    assert f"{values['train']['epochs']} {values['tune']['trials']} {values['slice']['range_mm']}" == said
