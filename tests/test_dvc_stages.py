"""dvc.yaml says what the code does: a stage reruns when a module that it uses has changed."""

from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

FILES = (Path("data/simulated/dvc.yaml"), Path("dvc.yaml"))

# What a stage's result may follow from. Figures and MLflow are not worth a new training.
COMPUTES = ("adpet.imaging", "adpet.cohort", "adpet.learning")
SCORES = (*COMPUTES, "adpet.evidence")

LAYERS = {
    "evaluate": SCORES,
    "export": (*SCORES, "adpet.answering"),
    "explain": SCORES,
    "register": ("adpet.tracking.registry",),
    "pool": SCORES,
    "leakage": SCORES,
    "report": SCORES,
}


@pytest.fixture(scope="module")
def stages(project_root):
    return {
        name: stage
        for file in FILES
        for name, stage in YAML(typ="safe").load(project_root / file)["stages"].items()
    }


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("adpet")


def used(graph, stage):
    """What the stage's module imports itself or through the other stages' modules, and below `learning` and `answering`."""
    found, to_read = {f"adpet.stages.{stage}"}, [f"adpet.stages.{stage}"]
    while to_read:
        for module in graph.find_modules_directly_imported_by(to_read.pop()):
            if module.startswith(("adpet.stages.", *LAYERS.get(stage, COMPUTES))) and module not in found:
                found.add(module)
                if module.startswith(("adpet.stages.", "adpet.learning.", "adpet.answering.")):
                    to_read.append(module)
    return {f"src/{module.replace('.', '/')}.py" for module in found}


@pytest.mark.parametrize(
    "stage",
    [
        "simulate",
        "ingest",
        "normalize",
        "slice",
        "split",
        "tune",
        "train",
        "evaluate",
        "export",
        "explain",
        "leakage",
        "register",
        "fold",
        "pool",
        "report",
    ],
)
def test_a_stage_depends_on_the_modules_that_it_imports(stages, graph, project_root, stage):
    declared = {dependency for dependency in stages[stage]["deps"] if dependency.startswith("src/")}
    files = {file for file in used(graph, stage) if (project_root / file).exists()}
    assert files <= declared


def test_a_version_is_registered_anew_when_the_code_that_goes_with_it_has_changed(stages, tmp_path):
    from adpet.tracking.models import _copy_modules

    _copy_modules(tmp_path)
    copied = (path.relative_to(tmp_path) for path in tmp_path.rglob("*.py") if path.name != "__init__.py")
    packages = {f"src/{path.parent}" for path in copied if path.parent.name != "adpet"}
    assert packages <= set(stages["register"]["deps"])


def test_no_stage_depends_on_code_that_is_not_there(stages, project_root):
    for stage in stages.values():
        for dependency in stage["deps"]:
            assert not dependency.startswith("src/") or (project_root / dependency).exists(), dependency


def test_there_is_a_stage_for_each_fold_that_may_be_asked_for(stages):
    from adpet.params import MAX_CROSS_VALIDATION

    numbers = stages["fold"]["matrix"]["number"]
    assert numbers == list(range(MAX_CROSS_VALIDATION))
    folds = {f"results/cross-validation/fold-{number}" for number in numbers}
    assert folds <= set(stages["pool"]["deps"])


def test_make_folds_runs_every_one_of_them(stages, project_root):
    named = f"FOLDS := {' '.join(f'fold@{number}' for number in stages['fold']['matrix']['number'])}"
    assert named in (project_root / "Makefile").read_text().splitlines()


def test_every_stage_of_the_command_line_is_a_stage_of_dvc(stages):
    from adpet.cli import STAGES

    assert list(stages) == list(STAGES)
