"""Nothing half-written takes the place of something whole."""

import pytest

from adpet.errors import InputError
from adpet.storage import atomic_write, fingerprint, move, read_json, work_dir, write_json


class TestWrittenAside:
    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = tmp_path / "scans.csv"
        path.write_text("old")
        with pytest.raises(RuntimeError), atomic_write(path) as aside:
            aside.write_text("ne")
            raise RuntimeError
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_finished_write_replaces_the_file(self, tmp_path):
        path = tmp_path / "new" / "scans.csv"
        with atomic_write(path) as aside:
            aside.write_text("new")
        assert path.read_text() == "new"

    def test_a_folder_is_replaced_as_a_whole(self, tmp_path):
        path = tmp_path / "volumes"
        path.mkdir()
        (path / "stale.nii").touch()
        with atomic_write(path) as aside:
            aside.mkdir()
            (aside / "fresh.nii").touch()
        assert [file.name for file in path.iterdir()] == ["fresh.nii"]

    def test_what_a_killed_writer_left_is_not_taken_for_the_file(self, tmp_path):
        path = tmp_path / "volumes"
        with atomic_write(path) as aside:
            aside.mkdir()
            left_over = aside
        left_over.mkdir()
        (left_over / "half.nii").touch()
        with atomic_write(path) as aside:
            assert not aside.exists()
            aside.mkdir()
        assert list(path.iterdir()) == []


class TestResumable:
    def test_a_stage_that_failed_finds_its_finished_work(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt), work_dir("normalize", {"grid": 3}) as work:
            (work / "scan.nii").touch()
            raise KeyboardInterrupt
        with work_dir("normalize", {"grid": 3}) as work:
            assert (work / "scan.nii").exists()
        assert not work.exists()

    def test_work_for_other_facts_is_not_taken_over(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(KeyboardInterrupt), work_dir("normalize", {"grid": 3}) as other:
            raise KeyboardInterrupt
        with work_dir("normalize", {"grid": 2}) as work:
            assert list(work.iterdir()) == []
        assert not other.exists()


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_json_holds_no_nan(tmp_path):
    write_json(tmp_path / "metrics.json", {"auc": 0.9, "site": "Zürich"})
    assert read_json(tmp_path / "metrics.json") == {"auc": 0.9, "site": "Zürich"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auc": float("nan")})
    assert read_json(tmp_path / "metrics.json")["auc"] == 0.9


@pytest.mark.parametrize(("content", "required"), [(None, "not there"), ("{", "required JSON")])
def test_json_that_cannot_be_read_is_one_line_that_says_what_to_do(tmp_path, content, required):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=f"run.json: .*{required}.* run: dvc repro") as refused:
        read_json(tmp_path / "run.json")
    assert "\n" not in str(refused.value)


def test_move_replaces_a_folder(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "stale").touch()
    move(tmp_path / "new", tmp_path / "old")
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]
    assert list((tmp_path / "old").iterdir()) == []
