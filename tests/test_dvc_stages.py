"""dvc.yaml declares what the code does: every package and parameter that a stage's result follows from."""

import ast
import functools
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from adpet.cli import STAGES
from adpet.errors import ParameterError
from adpet.params import Params, load_params

FILES = (Path("data/simulated/dvc.yaml"), Path("dvc.yaml"))

# Modules that stages import without depending on them, because no result follows from them:
EXEMPT = (
    # what only logs; `register` is the exception, since its result is what it logs,
    "adpet.tracking", "adpet.stages.common.tracking",
    # what reads parameters, paths and files, checks their form, starts processes and says errors.
    "adpet.params", "adpet.param_types", "adpet.paths", "adpet.storage", "adpet.contracts", "adpet.parallel", "adpet.errors",
    "adpet.malloc",
)  # fmt: skip
# Another colour of a curve is not worth a new network.
DRAWN = {"tune": "adpet.reporting", "train": "adpet.reporting"}

# Parameters that change no result: how many processes work, and where, what goes to MLflow, where a study lies.
WITHOUT_RESULT = {"compute.workers", "compute.cluster", "tracking.log_images", "tune.storage"}
# Where the scans lie: what lies there is a dependency of ingest.
PLACES = {"cohort.raw"}
# Only drawn, for MLflow.
LOGGED = {"tune": {"explain.hide_below"}}

# What methods of `Params` read; those with nothing hand it on, to MLflow and to the lineage.
METHODS = {
    **{name: {"train.learning_rate", "augment", "tune.space", "tune.trials"} for name in ("tuned", "searched")},
    "objective": {"train.monitor"},
    "flat": set(), "model_dump": set(), "model_copy": set(), "with_values": set(),
}  # fmt: skip


@pytest.fixture(scope="module")
def stages(project_root):
    return {
        name: stage
        for file in FILES
        for name, stage in YAML(typ="safe").load(project_root / file)["stages"].items()
    }


@functools.cache
def import_graph():
    return grimp.build_graph("adpet", exclude_type_checking_imports=True, cache_dir=None)


def undeclared_modules(stage: str, dependencies: list[str]) -> set[str]:
    """The modules that a stage imports outside of its dependencies."""
    exempt = tuple(name for name in EXEMPT if (stage, name) != ("register", "adpet.tracking"))
    exempt += (DRAWN.get(stage, "adpet.__main__"),)
    closure, to_visit = set(), [f"adpet.stages.{stage}"]
    while to_visit:
        module = to_visit.pop()
        if module not in {*closure, "adpet"} and not module.startswith(exempt):
            closure.add(module)
            to_visit += import_graph().find_modules_directly_imported_by(module)
    declared = tuple(
        f"adpet.{path.removeprefix('src/adpet/').removesuffix('.py').replace('/', '.')}."
        for path in dependencies
    )
    return {module for module in closure if not f"{module}.".startswith(declared)}


class Reads(ast.NodeVisitor):
    """Collects the parameters and names that a function uses."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.names: set[str] = set()
        self._aliases: dict[str, list[str]] = {"params": []}

    def _chain(self, node: ast.expr) -> list[str] | None:
        """The key of ``params.a.b``, ``self.params.a.b`` or ``settings.b``, as a list."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        if ast.unparse(node) in ("self.params", "self._params"):
            return []
        above = self._chain(node.value)
        return None if above is None else [*above, node.attr]

    def visit_Assign(self, node: ast.Assign) -> None:
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        targets = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else node.targets
        for target, value in zip(targets, values, strict=False):
            chain = self._chain(value)
            if isinstance(target, ast.Name) and chain and chain[0] in Params.model_fields:
                self._aliases[target.id] = chain
            else:
                self.visit(value)

    def visit_Call(self, node: ast.Call) -> None:
        chain = self._chain(node.func)
        if chain and chain[-1] == "model_dump" and len(chain) == 2:
            limits = {item.arg: ast.literal_eval(item.value) for item in node.keywords if item.arg != "mode"}
            section = Params.model_fields[chain[0]].annotation.model_fields
            wanted = set(limits.get("include", section)) - limits.get("exclude", set())
            self.keys |= {f"{chain[0]}.{name}" for name in wanted}
            return
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = self._chain(node)
        if chain is None:
            self.generic_visit(node)
        elif chain and chain[0] in METHODS:
            self.keys |= METHODS[chain[0]]
        elif chain:
            self.keys.add(".".join(name for name in chain if name not in METHODS))

    def visit_Name(self, node: ast.Name) -> None:
        chain = self._chain(node)
        if chain:
            self.keys.add(".".join(chain))
        self.names.add(node.id)


@functools.cache
def module_of(path: Path) -> tuple[dict[str, ast.stmt], dict[str, tuple[str, str]]]:
    """A module's definitions, and its imports from stages' modules."""
    tree = ast.parse(path.read_text())
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adpet.stages")
        for alias in node.names
    }
    return defined, imported


def parameters_read(stage: str, root: Path) -> set[str]:
    """The keys that ``run`` of a stage reads, directly or not."""
    keys, done, to_visit = set(), set(), [(f"adpet.stages.{stage}", "run")]
    while to_visit:
        module, name = to_visit.pop()
        path = root / f"src/{module.replace('.', '/')}"
        defined, imported = module_of(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
        if (module, name) in done or name not in defined:
            continue
        done.add((module, name))
        reads = Reads()
        reads.visit(defined[name])
        keys |= reads.keys
        to_visit += [imported.get(used, (module, used)) for used in reads.names]
    return keys


def undeclared_parameters(stage: str, declared: list[str], root: Path) -> set[str]:
    """The parameters that a stage reads outside of `declared`."""
    read = parameters_read(stage, root) - WITHOUT_RESULT - PLACES - LOGGED.get(stage, set())
    leaves = {
        leaf
        for leaf in load_params(root / "params.yaml").flat()
        for key in read
        if f"{leaf}.".startswith(f"{key}.")
    }
    assert all(any(f"{leaf}.".startswith(f"{key}.") for leaf in leaves) for key in read), read
    return {leaf for leaf in leaves if not f"{leaf}.".startswith(tuple(f"{key}." for key in declared))}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_and_the_parameters_that_it_computes_with(stages, stage, project_root):
    assert undeclared_modules(stage, stages[stage]["deps"]) == set()
    assert undeclared_parameters(stage, stages[stage]["params"], project_root) == set()


def test_these_checks_find_code_that_is_not_declared(stages):
    dependencies = [path for path in stages["leakage"]["deps"] if path != "src/adpet/evaluation"]
    assert "adpet.evaluation.bootstrap" in undeclared_modules("leakage", dependencies)


# The second is read in a class of another module than the stage's.
@pytest.mark.parametrize(
    ("stage", "entry", "missing"),
    [("tune", "train.mix", "train.mix"), ("explain", "explain", "explain.smooth_mm")],
)
def test_these_checks_find_a_parameter_that_is_not_declared(stages, project_root, stage, entry, missing):
    declared = [key for key in stages[stage]["params"] if key != entry]
    assert missing in undeclared_parameters(stage, declared, project_root)


def test_folds_of_all_subjects_follow_from_the_searched_values_not_from_the_space(stages):
    assert not [key for key in stages["cross_validate"]["params"] if key.startswith("tune")]


def test_tune_does_not_follow_from_how_long_the_folds_networks_are_trained(stages):
    assert not {"train", "train.epochs"} & set(stages["tune"]["params"])


@pytest.mark.parametrize("stage", ["simulate", "split"])
def test_cohort_and_split_stay_when_the_seed_of_the_training_changes(stages, project_root, stage):
    section = "simulation" if stage == "simulate" else stage
    assert {key for key in parameters_read(stage, project_root) if "seed" in key} == {f"{section}.seed"}
    assert stages[stage]["params"] == [section]


def test_every_dependency_on_code_exists(stages, project_root):
    paths = {path for stage in stages.values() for path in stage["deps"] if path.startswith("src/")}
    assert [path for path in sorted(paths) if not (project_root / path).exists()] == []


def test_every_stage_of_the_command_line_is_a_stage_of_dvc(stages):
    assert sorted(stages) == sorted(STAGES)


@pytest.mark.parametrize(
    ("key", "folder", "stages_with_it"),
    [
        ("model.weights", "data/weights", {"tune", "train", "cross_validate"}),
        ("normalize.template", "data/templates", {"normalize", "export"}),
        ("explain.atlas", "data/atlases", {"export", "explain"}),
    ],
)
def test_a_file_of_ones_own_lies_where_the_stages_notice_a_change(
    stages, project_root, key, folder, stages_with_it
):
    assert {name for name, stage in stages.items() if folder in stage["deps"]} == stages_with_it
    params = load_params(project_root / "params.yaml")
    inside = f"{folder}/sub/file"
    assert params.with_values({key: inside}).flat()[key] == inside
    with pytest.raises(ParameterError, match=rf"{key}: required .* or a file in {folder}/"):
        params.with_values({key: f"{folder}/../file"})
