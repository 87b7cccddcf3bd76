"""The stage reads a collection, and says in one line what it cannot use."""

import pytest

from adpet.errors import InputError
from adpet.params import load_params
from adpet.stages.ingest import run


@pytest.fixture
def params(project_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return load_params(project_root / "params.yaml").with_values({"cohort.raw": "data/raw"})


@pytest.mark.parametrize("key", ["table", "diagnosis_table"])
def test_a_table_that_dvc_would_not_version_is_refused(params, tmp_path, key):
    (tmp_path / "data/collection.csv").write_text("path,subject,session,diagnosis\n")
    with pytest.raises(InputError, match=rf"cohort.{key}: required a path inside cohort.raw \(data/raw\)"):
        run(params.with_values({f"cohort.{key}": "../collection.csv"}))


def test_an_empty_folder_is_one_line_and_writes_nothing(params, tmp_path):
    with pytest.raises(InputError) as refused:
        run(params)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "data/interim").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", r"^data/raw.dvc: required `remote: lab`.*run: echo '  remote: lab' >> data/raw.dvc$"),
        ("  remote: lab\n", "data/raw: required one layout"),
        ("  push: false\n", "data/raw: required one layout"),
    ],
)
def test_scans_that_would_go_to_the_default_remote_are_refused_with_the_cure(params, tmp_path, options, said):
    (tmp_path / "data/raw.dvc").write_text(f"outs:\n- md5: 0a.dir\n  hash: md5\n  path: raw\n{options}")
    with pytest.raises(InputError, match=said):
        run(params)
