"""Every setting stands in params.yaml, typed; what is wrong is refused by its key's path."""

import copy
from pathlib import Path
from typing import get_args

import pytest
from dvc.utils.hydra import apply_overrides

from adpet.cohort.adni import LEVELS
from adpet.errors import ParameterError
from adpet.params import AdniLevel, Params, flatten, load_params, read_yaml, set_by_key, validate_params


@pytest.fixture(scope="module")
def document(project_root):
    return read_yaml(project_root / "params.yaml")


def changed(document, key, value):
    other = copy.deepcopy(document)
    set_by_key(other, key, value)
    return other


def without_search(document):
    """The document with every tuned value fixed to its first one."""
    other = copy.deepcopy(document)
    for section in ("train", "augment"):
        for key, value in other[section].items():
            if value == "tuned":
                space = other["tune"]["space"][key]
                other[section][key] = space["first"] if "first" in space else space["choices"][0]
    return other


def refusal(document, key, value):
    with pytest.raises(ParameterError) as refused:
        validate_params(changed(document, key, value), source="params.yaml")
    return str(refused.value)


class TestTheFile:
    def test_every_key_can_be_overridden_by_an_experiment(self, project_root, tmp_path):
        file = tmp_path / "params.yaml"
        file.write_text((project_root / "params.yaml").read_text())
        for key, value in load_params(file).flat().items():
            spelled = {None: "null", True: "true", False: "false"}.get(
                value if value is None or isinstance(value, bool) else "", str(value)
            )
            apply_overrides(
                file, [f"{key}={str(spelled).replace(' ', '').replace('(', '[').replace(')', ']')}"]
            )
        assert load_params(file) == load_params(project_root / "params.yaml")

    def test_an_override_reaches_the_typed_value(self, project_root, tmp_path):
        file = tmp_path / "params.yaml"
        file.write_text((project_root / "params.yaml").read_text())
        apply_overrides(file, ["train.learning_rate=1e-3", "slice.range_mm=[-60,20]"])
        params = load_params(file)
        assert (params.train.learning_rate, params.slice.range_mm) == (0.001, (-60.0, 20.0))
        assert "train.learning_rate" not in params.tuned()

    def test_a_missing_file_says_where_to_stand(self, tmp_path):
        with pytest.raises(ParameterError, match=r"params.yaml: required, but not there; run this in"):
            load_params(tmp_path / "params.yaml")

    def test_a_file_that_is_no_yaml_is_refused_in_one_line(self, tmp_path):
        (tmp_path / "params.yaml").write_text("seed: [1,")
        with pytest.raises(ParameterError, match="required YAML") as refused:
            load_params(tmp_path / "params.yaml")
        assert "\n" not in str(refused.value)


class TestRefusals:
    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            (
                "train.learning_rate",
                "fast",
                "train.learning_rate: required a valid number or 'tuned'; received 'fast'",
            ),
            (
                "train.learning_rate",
                -1,
                "train.learning_rate: required greater than 0 or 'tuned'; received -1",
            ),
            ("train.epochs", 2.5, "train.epochs: required a valid integer; received 2.5"),
            ("train.epochs", True, "train.epochs: required a valid integer; received True"),
            ("augment.flip", "yes", "augment.flip: required a valid boolean or 'tuned'; received 'yes'"),
            ("cohort.layout", "dicom", "received 'dicom'"),
            ("cohort.diagnosis_map.AD", "MCI", "required 'AD' or 'CN'; received 'MCI'"),
            ("cohort.diagnosis", "last", "cohort.diagnosis: required 'visit', 'baseline' or 'stable-only'"),
            ("cohort.adni_level", ["smooth"], "received 'smooth'"),
            ("cohort.adni_level", ["raw", "raw"], "cohort.adni_level: required every level once"),
            ("cohort.adni_level", [], "cohort.adni_level: required"),
            ("slice.range_mm", [30.0, -30.0], "slice.range_mm: required the first less than the last"),
            ("model.input_size", 50, "model.input_size: required a multiple of 32; received 50"),
            ("tracking.model_name", "a/b", "tracking.model_name: required a name without / : and @"),
            (
                "simulation.ad_subjects",
                1,
                "simulation.ad_subjects: required greater than or equal to 2; received 1",
            ),
            (
                "evaluate.cross_validation",
                2,
                "evaluate.cross_validation: required 0 (none) or 3 to 5 folds; received 2",
            ),
            ("evaluate.cross_validation", 6, "required less than or equal to 5; received 6"),
            ("evaluate.aggregation", "median", "'mean_logit' or 'position_weights'; received 'median'"),
            (
                "simulation.max_visits",
                6,
                "simulation.max_visits: required less than or equal to 5; received 6",
            ),
            (
                "simulation.layout",
                "folder",
                "simulation.layout: required 'bids' or 'adni'; received 'folder'",
            ),
            (
                "simulation.scanners.HRRT",
                0.5,
                "simulation.scanners: required shares of HRRT, D690, TruePoint, HRplus",
            ),
            ("simulation.scanners", {"PETMR": 1.0}, "with the sum 1; received {'PETMR': 1.0} with the sum 1"),
        ],
    )
    def test_a_value_is_refused_with_key_what_is_allowed_and_what_was_given(
        self, document, key, value, message
    ):
        assert message in refusal(document, key, value)

    def test_an_unknown_key_is_refused_with_the_nearest_known_one(self, document):
        message = refusal(document, "train.learnin_rate", 0.1)
        assert message.startswith("params.yaml: train.learnin_rate: unknown key; allowed here: optimizer,")
        assert "did you mean train.learning_rate?" in message

    def test_a_missing_key_is_named(self, document):
        other = copy.deepcopy(document)
        del other["train"]["epochs"]
        with pytest.raises(ParameterError, match=r"train.epochs: required, but not there"):
            validate_params(other, source="params.yaml")

    def test_a_leaky_validation_must_be_asked_for_explicitly(self, document):
        assert "only with split.unit: slice" in refusal(document, "split.folds", 0)
        other = without_search(changed(document, "split.folds", 0))
        set_by_key(other, "split.unit", "slice")
        assert validate_params(other, source="params.yaml").split.folds == 0

    def test_tuned_values_need_trials(self, document):
        assert "tune.trials: required 1 or more" in refusal(document, "tune.trials", 0)

    def test_the_search_may_not_see_the_test_set(self, document):
        other = changed(document, "split.unit", "slice")
        assert "split.folds: required 2 or more while train.learning_rate" in refusal(other, "split.folds", 0)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("zoom.high", 1.5), ("shear.low", -0.1), ("rotation_degrees.low", -5.0), ("learning_rate.low", 0.0)],
    )
    def test_a_search_may_only_try_what_is_allowed(self, document, key, value):
        other = changed(document, "tune.space.learning_rate.log", False)
        name = key.partition(".")[0]
        assert refusal(other, f"tune.space.{key}", value).startswith(
            f"params.yaml: tune.space.{name}: required low"
        )

    def test_a_cross_validation_asks_for_a_model_of_all_training_subjects(self, document):
        assert not validate_params(document, source="params.yaml").refits()
        set_by_key(document, "evaluate.cross_validation", 5)
        assert validate_params(document, source="params.yaml").refits()

    def test_a_validation_fold_must_exist(self, document):
        assert "required less than split.folds (5); received 5" in refusal(
            document, "split.validation_fold", 5
        )

    def test_imagenet_weights_exist_for_some_widths_only(self, document):
        other = changed(document, "model.weights", "imagenet")
        assert "model.alpha: required one of 0.35, 0.5" in refusal(other, "model.alpha", 1.5)

    def test_the_first_trial_must_lie_in_its_range(self, document):
        assert "low <= first <= high" in refusal(document, "tune.space.zoom.first", 0.9)


def test_the_levels_of_adni_are_those_that_its_reader_knows(document):
    assert list(LEVELS) == list(get_args(AdniLevel)) == list(document["cohort"]["adni_level"])


class TestTunedValues:
    def test_the_best_trial_fills_what_is_tuned(self, document):
        params = validate_params(document, source="params.yaml")
        best = dict.fromkeys(params.tuned(), 0.01) | {"augment.flip": True}
        assert params.with_values(best).tuned() == ()

    def test_a_fixed_value_leaves_the_search(self, document):
        params = validate_params(changed(document, "augment.zoom", 0.1), source="params.yaml")
        assert "augment.zoom" not in params.tuned()


class TestPresets:
    def test_the_2019_protocol_is_expressed_whole(self, project_root, document):
        other = copy.deepcopy(document)
        for key, value in flatten(read_yaml(project_root / "presets" / "protocol-2019.yaml")).items():
            set_by_key(other, key, value)
        params = validate_params(other, source="protocol-2019")
        assert (params.model.alpha, params.model.feature_layer, params.model.input_size) == (
            1.5,
            "Conv_1",
            128,
        )
        assert (params.train.optimizer, params.train.learning_rate, params.train.schedule) == (
            "sgd",
            3e-4,
            "linear",
        )
        assert (params.train.epochs, params.train.batch_size, params.train.monitor) == (
            100,
            128,
            "val_accuracy",
        )
        assert (params.split.unit, params.split.test_fraction, params.split.folds) == ("slice", 0.2, 0)
        assert (params.augment.rotation_degrees, params.augment.flip, params.augment.fill) == (
            20,
            True,
            "nearest",
        )
        assert (params.augment.zoom, params.augment.shift, params.augment.shear) == (0.05, 0.05, 0.05)

    def test_the_default_file_does_not_leak(self, project_root):
        assert load_params(project_root / "params.yaml").split.unit == "subject"


def test_the_stages_name_only_parameters_that_exist(project_root, document):
    known = set(flatten(document)) | _sections(document)
    for file in (Path("dvc.yaml"), Path("data/simulated/dvc.yaml")):
        for stage in read_yaml(project_root / file)["stages"].values():
            assert set(stage.get("params", [])) <= known


def _sections(document, prefix=""):
    names = set()
    for key, value in document.items():
        if isinstance(value, dict):
            names |= {prefix + key} | _sections(value, f"{prefix}{key}.")
    return names


def test_params_are_frozen(document):
    params = validate_params(document, source="params.yaml")
    assert isinstance(params, Params)
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 3
