"""Preset: its values in params.yaml, comments and all else untouched."""

import shutil

import pytest

from adpet.commands.preset import main
from adpet.errors import ParameterError
from adpet.params import Params, load_params, validate_params
from adpet.storage import read_yaml


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
    assert params.simulation.ad_subjects == 120
    text = (project / "params.yaml").read_text()
    assert "# the simulated cohort" in text
    assert "holds these values already" in main(name="protocol-2019")
    assert (project / "params.yaml").read_text() == text


def test_unknown_preset_is_refused_with_the_known_ones(project):
    known = "defaults, protocol-2019, protocol-2019-small"
    with pytest.raises(ParameterError, match=f"required one of {known}; received 'protocol-2020'"):
        main(name="protocol-2020")


def test_preset_with_an_unknown_key_changes_nothing(project):
    before = (project / "params.yaml").read_text()
    (project / "presets" / "typo.yaml").write_text("train: {epoch: 3}\n")
    with pytest.raises(ParameterError, match=r"train.epoch: unknown key"):
        main(name="typo")
    assert (project / "params.yaml").read_text() == before


def test_no_name_lists_the_presets(project):
    assert main(name=None).splitlines() == ["defaults", "protocol-2019", "protocol-2019-small"]


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
