"""A line is in the journal whole or not at all, and a damaged journal is named."""

import json
import resource
import subprocess
from contextlib import contextmanager

import pytest

from adpet.errors import TrackingError
from adpet.tracking import journal


@pytest.fixture
def session(tmp_path):
    session = journal.begin(tmp_path / "outbox", do="open", kind="train", lineage="a1")
    yield session
    session.release()


@contextmanager
def full_disk(path, *, room):
    """A disk on which this file may grow by a few bytes more: then it takes the beginning of a line."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFullDisk:
    def test_a_line_that_does_not_fit_is_not_there_at_all(self, session):
        file = session.folder / "journal.jsonl"
        session.append("tags", values={"a": "1"})
        whole = file.read_bytes()
        with full_disk(file, room=20), pytest.raises(OSError, match="File too large"):
            session.append("tags", values={"b": "2" * 100})
        assert file.read_bytes() == whole
        session.append("tags", values={"c": "3"})
        assert [line["do"] for line, _ in session.lines(0)] == ["open", "tags", "tags"]

    def test_a_session_that_does_not_fit_is_not_there_at_all(self, session):
        with full_disk(session.folder / "journal.jsonl", room=-50), pytest.raises(OSError, match="too large"):
            journal.begin(session.folder.parent, do="open", kind="train", lineage="b2")
        assert journal.names(session.folder.parent) == [session.name]


class TestDamaged:
    def test_a_line_in_the_middle_that_is_no_json_is_named_with_its_journal(self, session):
        file = session.folder / "journal.jsonl"
        file.write_bytes(file.read_bytes() + b'{"do": "met{"do": "end"}\n{}\n')
        with pytest.raises(TrackingError, match=r"train-a1/journal\.jsonl: required whole lines of JSON"):
            list(journal.read_lines(session.folder, 0))

    @pytest.mark.parametrize("content", [b"", b"\0\0\0\n", b'{"do": "op', b"{}\n"])
    def test_a_journal_without_its_first_line_is_named(self, session, content):
        (session.folder / "journal.jsonl").write_bytes(content)
        with pytest.raises(TrackingError, match=r"train-a1/journal\.jsonl: required whole lines of JSON"):
            journal.glance(session.folder.parent, session.name)

    @pytest.mark.parametrize("content", [b"\0\0", b"[1]", b'{"other": 1}'])
    def test_a_session_whose_state_is_damaged_is_sent_again(self, session, content):
        session.confirm(journal.State(20, "r1"))
        assert session.state() == journal.State(20, "r1")
        (session.folder / "state.json").write_bytes(content)
        assert session.state() == journal.State()


class TestUnsent:
    def test_lines_behind_the_position_are_counted_but_for_one_that_is_cut_off(self, session):
        for step in range(3):
            session.append("metrics", values={"loss": 1.0}, step=step)
        position = [behind for _, behind in session.lines(0)][1]
        session.confirm(journal.State(position, "r1"))
        with (session.folder / "journal.jsonl").open("ab") as file:
            file.write(b'{"do": "met')
        assert journal.unsent(session.folder.parent, session.name) == 2
        assert journal.unsent(session.folder.parent, "gone") == 0

    def test_no_line_but_the_first_is_parsed(self, session, monkeypatch):
        session.append("tags", values={})
        parsed = []
        monkeypatch.setattr(json, "loads", lambda text, loads=json.loads: parsed.append(text) or loads(text))
        journal.glance(session.folder.parent, session.name)
        assert journal.unsent(session.folder.parent, session.name) == 2
        assert len(parsed) == 1


def test_make_clean_keeps_what_waits_and_what_was_refused(project_root, tmp_path):
    for place in (journal.OUTBOX, journal.REFUSED, journal.WORK / "train"):
        (tmp_path / place).mkdir(parents=True)
    subprocess.run(
        ["make", "--file", project_root / "Makefile", "clean"], cwd=tmp_path, check=True, capture_output=True
    )
    kept = {path.relative_to(tmp_path) for path in (tmp_path / journal.WORK).iterdir()}
    assert kept == {journal.OUTBOX, journal.REFUSED}
