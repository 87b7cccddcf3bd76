"""The stage reads a collection, and says in one line what it cannot use."""

import shutil

import pytest

from adpet.errors import InputError
from adpet.params import load_params, read_yaml, set_by_key, validate_params
from adpet.stages.ingest import run


@pytest.fixture
def params(project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(project_root / "params.yaml", tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)

    def with_cohort(values):
        document = read_yaml(tmp_path / "params.yaml")
        for key, value in ({"raw": "data/raw"} | values).items():
            set_by_key(document, f"cohort.{key}", value)
        return validate_params(document, source="params.yaml")

    return with_cohort


@pytest.mark.parametrize("key", ["table", "diagnosis_table"])
def test_a_table_that_dvc_would_not_version_is_refused(params, tmp_path, key):
    (tmp_path / "data/collection.csv").write_text("path,subject,session,diagnosis\n")
    with pytest.raises(InputError, match=rf"cohort.{key}: required a path inside cohort.raw \(data/raw\)"):
        run(params({key: "../collection.csv"}))


def test_an_empty_folder_is_one_line_and_writes_nothing(params, tmp_path):
    with pytest.raises(InputError) as refused:
        run(params({}))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "data/interim").exists()


class TestScansUnderDvc:
    """``data/raw.dvc``, as ``dvc add data/raw`` makes it."""

    def refusal(self, params, tmp_path, options):
        (tmp_path / "data/raw.dvc").write_text(f"outs:\n- md5: 0a.dir\n  hash: md5\n  path: raw\n{options}")
        with pytest.raises(InputError) as refused:
            run(params({}))
        return str(refused.value)

    def test_scans_that_would_go_to_the_default_remote_are_refused_with_the_cure(self, params, tmp_path):
        message = self.refusal(params, tmp_path, "")
        assert message.startswith("data/raw.dvc: required `remote: lab`")
        assert message.endswith("run: echo '  remote: lab' >> data/raw.dvc")
        assert "\n" not in message

    @pytest.mark.parametrize("options", ["  remote: lab\n", "  push: false\n"])
    def test_scans_for_the_lab_or_for_no_remote_are_read(self, params, tmp_path, options):
        assert "data/raw: required one layout" in self.refusal(params, tmp_path, options)


def test_the_projects_own_parameters_name_no_table(project_root):
    assert load_params(project_root / "params.yaml").cohort.table is None
