"""Preset: its values in params.yaml, comments and all else untouched."""

import shutil

import pytest
from workspace import PROJECT

from adpet.commands.preset import main
from adpet.errors import ParameterError
from adpet.params import Params, load_params, validate_params
from adpet.storage import flatten, read_yaml


@pytest.fixture
def project(project_root, tmp_path, monkeypatch):
    shutil.copy(project_root / "params.yaml", tmp_path)
    shutil.copytree(project_root / "presets", tmp_path / "presets")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_preset_changes_its_values_alone_and_once(project):
    assert "model.alpha: 0.5 -> 1.5" in main(name="protocol-2019")
    params = load_params()
    assert (params.model.alpha, params.split.unit, params.tuned()) == (1.5, "slice", ())
    assert params.simulation.ad_subjects == 150
    text = (project / "params.yaml").read_text()
    assert "# the simulated cohort" in text
    assert "holds these values already" in main(name="protocol-2019")
    assert (project / "params.yaml").read_text() == text


@pytest.mark.parametrize("name", [path.stem for path in (PROJECT / "presets").glob("*.yaml")])
def test_every_preset_of_the_project_is_applied_whole_after_one_that_searches(project, name):
    main(name="adni")
    main(name=name)
    written = load_params().flat()
    for key, value in flatten(read_yaml(project / f"presets/{name}.yaml")).items():
        assert written[key] == (tuple(value) if isinstance(written[key], tuple) else value)


def test_adni_preset_searches_a_whole_network_on_a_gpu(project):
    main(name="adni")
    params = load_params()
    assert 128 <= params.model.input_size <= 224
    assert (params.model.alpha, params.model.weights, params.cohort) == (1.0, "imagenet", Params().cohort)
    assert params.tune.trials >= 40
    assert {"train.batch_size", "train.weight_decay", "model.dropout"} <= set(params.tuned())


def test_unknown_preset_is_refused_with_the_known_ones(project):
    known = "defaults, adni, protocol-2019, protocol-2019-small"
    with pytest.raises(ParameterError, match=f"required one of {known}; received 'protocol-2020'"):
        main(name="protocol-2020")


def test_preset_with_an_unknown_key_changes_nothing(project):
    before = (project / "params.yaml").read_text()
    for text, key in (("train: {epoch: 3}\n", "train.epoch"), ("tune: {space: {zom: {high: 0.1}}}", "zom")):
        (project / "presets" / "typo.yaml").write_text(text)
        with pytest.raises(ParameterError, match=rf"{key}: unknown key"):
            main(name="typo")
    assert (project / "params.yaml").read_text() == before


def test_no_name_lists_the_presets(project):
    assert main(name=None).splitlines() == ["defaults", "adni", "protocol-2019", "protocol-2019-small"]


def test_defaults_add_missing_keys_and_rename_old_sections_after_an_upgrade(project):
    (project / "params.yaml").write_text(
        "seed: 7\nstandardize: {grid_mm: 4.0}\ncohort: {diagnosis_map: {P: AD}}\n"
    )
    main(name="defaults")
    written = read_yaml(project / "params.yaml")
    assert written.keys() == Params().model_dump().keys()
    assert load_params() == validate_params(
        {"seed": 7, "normalize": {"grid_mm": 4.0}, "cohort": {"diagnosis_map": {"P": "AD"}}},
        source="expected",
    )
    assert set(written["train"]) == set(Params().train.model_dump())
