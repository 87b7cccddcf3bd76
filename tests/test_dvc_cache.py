"""DVC's cache may have all of the raw scans, a part, or none; it is told which, and how to get the rest."""

import json

import pytest

from adpet.dvc_cache import cache_folder, files_in_cache, how_to_get, lacking
from adpet.errors import InputError

LIST, ONE, TWO = f"{'c' * 32}.dir", "a" * 32, "b" * 32


@pytest.fixture
def cache(tmp_path):
    """A cache with the list of a folder of two files, and one of them."""
    for digest, content in {
        LIST: json.dumps([{"md5": ONE, "relpath": "one.nii"}, {"md5": TWO, "relpath": "sub-2/two.nii"}]),
        ONE: "one",
    }.items():
        path = tmp_path / "files/md5" / digest[:2] / digest[2:]
        path.parent.mkdir(parents=True)
        path.write_text(content)
    return tmp_path


def test_each_file_of_a_folder_has_its_place(cache):
    files = files_in_cache(cache, LIST)
    assert list(files) == ["one.nii", "sub-2/two.nii"]
    assert files["one.nii"].read_text() == "one"
    assert files_in_cache(cache, f"{'d' * 32}.dir") is None


@pytest.mark.parametrize(
    "listing",
    [
        "{}",
        "[1]",
        "[{}]",
        '[{"md5": "../../outside", "relpath": "x"}]',
        '[{"md5": 1, "relpath": "x"}]',
        "no JSON",
    ],
)
def test_what_is_no_list_of_files_is_refused_in_one_line(cache, listing):
    (cache / "files/md5" / LIST[:2] / LIST[2:]).write_text(listing)
    with pytest.raises(InputError, match=r"c\.dir: required") as refused:
        files_in_cache(cache, LIST)
    assert "\n" not in str(refused.value)


def test_it_is_told_how_much_is_lacking(cache):
    files = files_in_cache(cache, LIST)
    assert lacking(files, "data/raw").startswith(
        "1 of 2 files are missing in the DVC cache; get them with: dvc"
    )
    assert lacking({"one.nii": files["one.nii"]}, "data/raw") == ""
    assert lacking(None, "data/raw").startswith("not in the DVC cache; get them with: dvc")


def test_scans_of_ones_own_may_not_be_in_the_remote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my raw.dvc").touch()
    assert how_to_get("a raw") == "get them with: dvc fetch --all-commits 'a raw'"
    assert how_to_get("my raw/").endswith("copy them to my raw/ and run: dvc add 'my raw/'")


def test_outside_of_dvc_there_is_no_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="required a DVC project"):
        cache_folder()


@pytest.mark.parametrize(
    ("text", "place"), [("", ".dvc/cache"), ("[cache]\n    dir = ../../shared\n", "../shared")]
)
def test_it_lies_where_dvc_is_told(tmp_path, text, place):
    root = tmp_path / "a project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text(text)
    assert cache_folder(root) == (root / place).resolve()


def test_a_configuration_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[no config")
    with pytest.raises(InputError, match="required DVC's configuration; received") as refused:
        cache_folder(tmp_path)
    assert "\n" not in str(refused.value)
