"""Settings are typed, have defaults, and are refused by key in one line."""

from pathlib import Path
from typing import get_args

import pytest
from dvc.utils.hydra import apply_overrides

from adpet.cohort.adni import LEVELS
from adpet.errors import ParameterError
from adpet.param_types import AdniLevel
from adpet.params import OLD_SECTIONS, Params, load_params, validate_params
from adpet.storage import flatten, read_yaml, set_by_key


def params_with(**values):
    """Return parameters with values by section."""
    return validate_params(values, source="params.yaml")


def refusal(key, value, document=None):
    document = document or {}
    set_by_key(document, key, value)
    with pytest.raises(ParameterError) as refused:
        validate_params(document, source="params.yaml")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def without_search():
    """Return a document in which no hyperparameter is tuned."""
    fractions = dict.fromkeys(("zoom", "shift", "shear", "intensity"), 0.1)
    augment = {"rotation_degrees": 5.0, "flip": True, **fractions}
    return {"train": {"learning_rate": 0.001}, "augment": augment}


class TestDefaults:
    def test_params_file_holds_every_default(self, project_root):
        file = project_root / "params.yaml"
        assert load_params(file) == Params()
        assert set(flatten(read_yaml(file))) == set(Params().flat())

    def test_missing_key_takes_its_default(self):
        params = params_with(
            seed=7,
            train={"epochs": 3},
            tune={"space": {"zoom": {"high": 0.12}}},
            cohort={"diagnosis_map": {"Patient": "AD"}},
        )
        assert (params.train.epochs, params.train.batch_size) == (3, 32)
        assert (params.seed, params.split.seed, params.simulation.seed) == (7, 2019, 2019)
        assert (params.tune.space.zoom.low, params.tune.space.zoom.high) == (0.0, 0.12)
        assert params.cohort.diagnosis_map == {"Patient": "AD"}

    def test_defaults_keep_subjects_apart(self):
        assert Params().split.unit == "subject"

    def test_stages_name_existing_parameters_only(self, project_root):
        known = set(Params().flat())
        known |= {key.rsplit(".", depth)[0] for key in known for depth in range(1, key.count(".") + 1)}
        for file in (Path("dvc.yaml"), Path("data/simulated/dvc.yaml")):
            for stage in read_yaml(project_root / file)["stages"].values():
                assert set(stage.get("params", [])) <= known


class TestOldSections:
    @pytest.mark.parametrize(("old", "new"), OLD_SECTIONS.items())
    def test_old_name_is_accepted_with_a_warning(self, tmp_path, capsys, old, new):
        value = {"simulation": "noise", "normalize": "grid_mm", "leakage": "step_mm"}[new]
        (tmp_path / "params.yaml").write_text(f"{old}: {{{value}: 1.5}}\n")
        assert load_params(tmp_path / "params.yaml").flat()[f"{new}.{value}"] == 1.5
        assert f"{old} is now named {new}" in capsys.readouterr().err

    def test_both_names_are_refused(self):
        assert "audit: required once; it is the old name of leakage" in refusal(
            "audit.epochs", 3, {"leakage": {}}
        )


class TestTheFile:
    @pytest.fixture
    def file(self, project_root, tmp_path):
        file = tmp_path / "params.yaml"
        file.write_text((project_root / "params.yaml").read_text())
        return file

    def test_experiment_overrides_every_key(self, file):
        spelled = {
            key: str(value).translate(str.maketrans("()", "[]", " ")).replace("None", "null")
            for key, value in load_params(file).flat().items()
        }
        apply_overrides(file, [f"{key}={value}" for key, value in spelled.items()])
        assert load_params(file) == Params()

    def test_override_reaches_the_typed_value(self, file):
        apply_overrides(file, ["train.learning_rate=1e-3", "slice.range_mm=[-60,20]"])
        params = load_params(file)
        assert (params.train.learning_rate, params.slice.range_mm) == (0.001, (-60.0, 20.0))
        assert "train.learning_rate" not in params.tuned()

    @pytest.mark.parametrize(
        ("text", "message"), [(None, "required, but not there; run this in"), ("seed: [1,", "required YAML")]
    )
    def test_unreadable_file_is_refused_in_one_line(self, tmp_path, text, message):
        if text is not None:
            (tmp_path / "params.yaml").write_text(text)
        with pytest.raises(ParameterError, match=message) as refused:
            load_params(tmp_path / "params.yaml")
        assert "\n" not in str(refused.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("train.learning_rate", "fast", "required a valid number or 'tuned'; received 'fast'"),
            ("train.epochs", 2.5, "required a valid integer; received 2.5"),
            ("augment.flip", "yes", "required a valid boolean or 'tuned'; received 'yes'"),
            ("cohort.diagnosis_map.AD", "MCI", "required 'AD' or 'CN'; received 'MCI'"),
            ("cohort.diagnosis", "last", "required 'visit', 'baseline' or 'stable-only'"),
            ("cohort.adni_level", ["raw", "raw"], "required each of them once"),
            ("normalize.target_fwhm_mm", 8.0, "required native_fwhm_mm, as {ECAT"),
            ("evaluate.residualise", ["age", "age"], "required each of them once; received age, age"),
            ("slice.range_mm", [30.0, -30.0], "required the first less than the last; received [30.0, -30.0]"),
            ("quality.asymmetry", [None, 0.3, 0.2, None], "required ascending limits, null for none"),
            ("model.input_size", 50, "required a multiple of 32; received 50"),
            ("tracking.model_name", "a/b", "required a name without / : and @"),
            ("evaluate.cross_validation", 2, "required 0 (none) or 3 to 5 folds; received 2"),
            ("evaluate.cross_validation", 6, "required less than or equal to 5 or 'site' or 'scanner'; received 6"),
            ("simulation.scanners", {"HRRT": 0.5}, "required shares of HRRT, D690, TruePoint, HRplus"),
            ("simulation.scanners", {"PETMR": 1.0}, "received {'PETMR': 1.0} with the sum 1"),
            ("simulation.subtypes", {"limbic": 0.4}, "required shares with the sum 1"),
            ("simulation.other_subjects", {"FTD": -1}, "required greater than or equal to 0; received -1"),
            ("split.folds", 0, "only with split.unit: slice"),
            ("tune.trials", 0, "required 1 or more while train.learning_rate"),
            ("tune.space.zoom.first", 0.9, "low <= first <= high"),
            ("tune.space.zoom", {"high": 1.5}, "zoom: required less than or equal to 1; received 1.5"),
            ("tune.space.learning_rate", {"low": 0.0, "log": False}, "required greater than 0; received 0.0"),
            ("tune.space", {"train.batchsize": {"choices": [16]}}, "train.batchsize: unknown key; of train, augment and model, did you mean train.batch_size?"),
            ("tune.space", {"dropuot": {"low": 0.1, "high": 0.2}}, "did you mean dropout?"),
            ("tune.space", {"model.optimizer": {"choices": ["sgd"]}}, "did you mean train.optimizer?"),
            ("tune.space", {"train.optimizer": {"choices": ["adamw", "adam"]}}, "optimizer: required 'adamw' or 'sgd'; received 'adam'"),
            ("tune.space", {"batch_size": {"low": 0, "high": 8}}, "batch_size: required greater than or equal to 1; received 0"),
            ("tune.space", {"train.epochs": {"low": 1, "high": 8}}, "train.epochs: required a key that can be searched; a trial lasts tune.epochs"),
            ("tune.space", {"zoom": {"high": 0.1}, "augment.zoom": {"high": 0.1}}, "augment.zoom: required once"),
            ("tune.space.zoom", {"hihg": 0.1}, "zoom.hihg: unknown key; allowed here: low, high, log, first; did you mean high?"),
            ("tune.space.zoom", 0.1, "required {low: , high: } or {choices: []}; received 0.1"),
            ("tune.space", {1: {"low": 0, "high": 1}}, "1: unknown key; of train, augment and model"),
            ("train.batch_size", "tuned", "required a valid integer; received 'tuned'"),
            ("compute.cluster", "host:8786", "required null, local, slurm, or the address of a Dask scheduler"),
            ("compute.cluster", "tcp://host", "such as tcp://host:8786; received 'tcp://host'"),
            ("tune.storage", "optuna.db", "required the address of a database without a password"),
            ("tune.storage", "postgresql://me:secret@host/optuna", "received 'postgresql://...@host/optuna'"),
            ("tune.storage", "postgresql://me:sec/ret@host/optuna", "received 'postgresql://...@host/optuna'"),
            ("tune.storage", "postgresql://me@host/optuna?password=s@e", "received 'postgresql://...@host/optuna?...'"),
            ("tune.storage", "mysql+pymysql://host/optuna?user=me&passwd=s", "received 'mysql+pymysql://host/optuna?user=me&...'"),
            ("simulation.cn_subjects", 5_001, "required less than or equal to 5000; received 5001"),
        ],
    )  # fmt: skip
    def test_value_is_refused_with_its_key_and_what_is_allowed(self, key, value, message):
        refused = refusal(key, value)
        assert refused.startswith(f"params.yaml: {'.'.join(key.split('.')[:2])}")
        assert message in refused

    def test_unknown_key_is_refused_with_the_nearest_known_one(self):
        message = refusal("train.learnin_rate", 0.1)
        assert message.startswith("params.yaml: train.learnin_rate: unknown key; allowed here: optimizer,")
        assert "did you mean train.learning_rate?" in message

    def test_validation_on_the_test_set_needs_a_slice_split_without_search(self):
        slices = {"split": {"unit": "slice", "folds": 0}}
        assert params_with(**slices, **without_search()).split.folds == 0
        assert "split.folds: required 2 or more while train.learning_rate" in refusal("seed", 1, slices)

    def test_imagenet_weights_exist_for_some_widths_only(self):
        message = refusal("model", {"weights": "imagenet", "alpha": 1.1})
        assert "model.alpha: required one of 0.35, 0.5" in message
        searched = {"model": {"weights": "imagenet", "alpha": 1.0}}
        assert "received 0.66" in refusal("tune.space", {"alpha": {"low": 0.5, "high": 1.0}}, searched)

    def test_message_names_where_a_value_was_read(self):
        with pytest.raises(ParameterError, match=r"^trial 3: train.mix: required less"):
            Params().with_values({"train.mix": 2.0}, source="trial 3")


def test_adni_levels_are_those_of_the_reader():
    assert list(LEVELS) == list(get_args(AdniLevel)) == list(Params().cohort.adni_level)


def test_setting_of_an_earlier_release_that_nothing_follows_from_is_passed_over():
    assert params_with(split={"validation_fold": 3}) == Params()


@pytest.mark.parametrize(
    "searched",
    [
        {"tune": {"space": {"train.batch_size": {"choices": [16, 64]}, "dropout": {"low": 0, "high": 0.5}}}},
        {"tune": {"space": {"train": {"batch_size": {"choices": [16, 64]}}, "model": {"dropout": {"low": 0, "high": 0.5}}}},
         "train": {"batch_size": "tuned"}},
    ],
    ids=["by name", "by section"],
)  # fmt: skip
def test_any_key_that_the_space_names_is_searched_and_filled(searched):
    params = params_with(**searched)
    assert set(params.tuned()) - set(Params().tuned()) == {"train.batch_size", "model.dropout"}
    first = {key: first for key, (_, first) in params.searched().items()}
    # Its own value is tried first if the space has it, a rate's is that of the default space.
    assert (first["train.batch_size"], first["model.dropout"], first["train.learning_rate"]) == (
        16,
        0.2,
        0.003,
    )
    assert params.with_values({"train.epochs": 3}).tuned() == params.tuned()
    filled = params.with_values(first | {"train.batch_size": 64})
    assert (filled.train.batch_size, filled.tuned()) == (64, ())


def test_whole_numbers_are_tried_for_a_key_that_takes_no_others():
    params = params_with(tune={"space": {"batch_size": {"low": 8, "high": 16}}})
    assert repr(params.searched()["train.batch_size"][1]) == "8"


def test_best_trial_fills_what_is_tuned():
    best = dict.fromkeys(Params().tuned(), 0.01) | {"augment.flip": True}
    assert Params().with_values(best).tuned() == ()
    assert "augment.zoom" not in params_with(augment={"zoom": 0.1}).tuned()


SMALL_2019 = {
    "model.input_size": 64, "model.alpha": 0.5, "train.epochs": 12, "train.learning_rate": 0.02,
}  # fmt: skip


@pytest.mark.parametrize(("name", "changed"), [("protocol-2019", {}), ("protocol-2019-small", SMALL_2019)])
def test_2019_preset_expresses_the_protocol_whole(project_root, name, changed):
    params = validate_params(read_yaml(project_root / f"presets/{name}.yaml"), source="preset")
    protocol = {
        "model.alpha": 1.5, "model.feature_layer": "Conv_1", "model.input_size": 128,
        "train.optimizer": "sgd", "train.learning_rate": 3e-4, "train.schedule": "linear", "train.epochs": 100,
        "train.batch_size": 128, "train.monitor": "val_accuracy",
        "split.unit": "slice", "split.test_fraction": 0.2, "split.folds": 0,
        "augment.rotation_degrees": 20.0, "augment.flip": True, "augment.fill": "nearest",
        "augment.zoom": 0.05, "augment.shift": 0.05, "augment.shear": 0.05,
    }  # fmt: skip
    assert (protocol | changed).items() <= params.flat().items()
