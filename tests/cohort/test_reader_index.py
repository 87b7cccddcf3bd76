"""A file is opened and hashed once; whatever could have changed it has it read again."""

import hashlib
import os
from pathlib import Path

import pytest

from adpet.cohort import reader
from adpet.cohort.reader import Contents, Unreadable, read_contents


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(files, notes=None, *, workers=1):
    return list(read_contents(files, workers=workers, notes=notes))


@pytest.fixture
def files(tmp_path, scan_file):
    return [scan_file(tmp_path / f"{number}.nii.gz", number) for number in range(4)]


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "work" / "notes.tsv"


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened."""
    names = []
    read_header = reader.read_header

    def counted(file):
        names.append(file.name)
        return read_header(file)

    monkeypatch.setattr(reader, "read_header", counted)
    return names


def overwrite(path, other, *, same_time=False):
    """Give a file the bytes of another one of the same size, in place."""
    before = path.stat()
    content = other.read_bytes()
    assert len(content) == before.st_size
    path.write_bytes(content)
    after = before.st_mtime_ns if same_time else before.st_mtime_ns + 1
    os.utime(path, ns=(before.st_atime_ns, after))


@pytest.fixture
def plain(tmp_path, scan_file):
    """Three uncompressed scans, all of the same size."""
    return [scan_file(tmp_path / f"{name}.nii", seed) for seed, name in enumerate("abc")]


class TestReading:
    def test_frames_and_hash_are_those_of_the_file(self, tmp_path, scan_file):
        dynamic = scan_file(tmp_path / "dynamic.nii", 1, frames=6)
        assert read([dynamic]) == [Contents(6, sha256(dynamic))]

    def test_what_cannot_be_read_is_told_in_its_place(self, files):
        files[1].write_bytes(b"text")
        first, second, *_ = read(files)
        assert first == Contents(1, sha256(files[0]))
        assert isinstance(second, Unreadable)
        assert "cannot be read as a NIfTI image" in second.reason

    def test_processes_change_nothing(self, tmp_path, scan_file, monkeypatch):
        monkeypatch.setattr(reader, "BATCH_FILES", 3)
        files = [scan_file(tmp_path / f"{number}.nii", number) for number in range(10)]
        files[4].write_bytes(b"text")
        assert read(files, workers=2) == read(files)


class TestNotes:
    def test_a_second_reading_opens_nothing_and_finds_the_same(self, files, notes, opened):
        first = read(files, notes)
        assert len(opened) == 4
        assert read(files, notes) == first
        assert len(opened) == 4

    def test_of_one_more_scan_that_one_is_opened_alone(self, files, notes, opened):
        read(files[:3], notes)
        opened.clear()
        assert read(files, notes) == read(files)
        assert opened[:1] == ["3.nii.gz"]
        opened.clear()
        read(files, notes)
        assert opened == []

    def test_the_files_behind_the_notes_are_not_looked_into(self, plain, notes):
        before = read(plain[:2], notes)
        overwrite(plain[0], plain[2], same_time=True)
        assert read(plain[:2], notes) == before

    def test_a_new_time_of_change_is_enough(self, plain, notes):
        read(plain, notes)
        overwrite(plain[0], plain[2])
        assert read(plain, notes)[0].sha256 == sha256(plain[2])

    def test_another_file_of_the_same_size_and_time_is_read(self, plain, notes):
        read(plain, notes)
        times = plain[0].stat().st_mtime_ns
        plain[2].rename(plain[0])
        os.utime(plain[0], ns=(times, times))
        assert read(plain[:1], notes) == [Contents(1, sha256(plain[0]))]
        assert read(plain[:1], notes) == read(plain[:1])

    def test_another_size_is_enough(self, plain, notes, scan_file):
        read(plain, notes)
        before = plain[0].stat().st_mtime_ns
        scan_file(plain[0], 9, frames=2)
        os.utime(plain[0], ns=(before, before))
        assert read(plain, notes)[0] == Contents(2, sha256(plain[0]))

    def test_the_other_file_of_a_pair_counts(self, tmp_path, notes, opened):
        import nibabel as nib
        import numpy as np

        header, image = tmp_path / "pair.hdr", tmp_path / "pair.img"
        nib.save(nib.Nifti1Pair(np.ones((8, 9, 10), np.float32), np.eye(4)), image)
        (before,) = read([header], notes)
        image.write_bytes(image.read_bytes()[:-1] + b"\1")
        assert read([header], notes) != [before]

    def test_damage_is_looked_at_again(self, files, notes, opened):
        files[1].write_bytes(b"text")
        read(files, notes)
        opened.clear()
        assert isinstance(read(files, notes)[1], Unreadable)
        assert opened == ["1.nii.gz"]

    def test_a_killed_reading_continues(self, files, notes, opened):
        reading = read_contents(files, notes=notes)
        next(reading), next(reading)
        reading.close()
        with notes.open("a") as half:
            half.write('["half a li')
        opened.clear()
        outcome = read(files, notes)
        assert opened == ["2.nii.gz", "3.nii.gz"]
        assert outcome == read(files)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: "",
            lambda text: "other code" + text,
            lambda text: text.replace("\t", " "),
            lambda text: text[:80],
            lambda text: text.replace("\t1\t", "\tone\t"),
        ],
    )
    def test_what_is_damaged_or_of_other_code_counts_for_nothing(self, files, notes, opened, damage):
        first = read(files, notes)
        notes.write_text(damage(notes.read_text()))
        opened.clear()
        assert read(files, notes) == first
        assert len(opened) == 4

    def test_bytes_that_are_no_text_count_for_nothing(self, files, notes):
        notes.parent.mkdir()
        notes.write_bytes(b"\xff\xfe\0")
        assert read(files, notes) == read(files)

    def test_scans_that_have_gone_are_forgotten(self, files, notes):
        read(files, notes)
        read(files[:1], notes)
        read(files[:1], notes)
        assert notes.read_text().count("nii.gz") == 2

    def test_the_code_that_reads_headers_belongs_to_them(self, files, notes, opened, monkeypatch):
        read(files, notes)
        reader._code.cache_clear()
        monkeypatch.setattr(reader, "version", lambda _: "another nibabel")
        opened.clear()
        read(files, notes)
        reader._code.cache_clear()
        assert len(opened) == 4


def test_a_process_that_reads_imports_no_tables():
    import subprocess
    import sys

    check = "import sys, adpet.cohort.reader; sys.exit('pandas' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(reader.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", check], env=environment, check=False).returncode == 0
