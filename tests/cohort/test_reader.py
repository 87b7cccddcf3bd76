"""Collections of any layout become one table; files are opened once; diagnoses follow the policy."""

import hashlib
import math
import os
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest

from adpet.cohort import reader
from adpet.cohort.adni import LEVELS
from adpet.cohort.reader import (
    FileEntry,
    apply_policy,
    chronological,
    detect_layout,
    index_files,
    read_collection,
)
from adpet.cohort.scans import read_scans, require_usable, write_table
from adpet.cohort.summary import ingest_report, report_text
from adpet.cohort.tables import Candidate, Findings, Visit
from adpet.errors import InputError
from adpet.imaging.nifti import content_hash, read_header
from adpet.parallel import map_in_processes

DIAGNOSES = {"AD": "AD", "Dementia": "AD", "CN": "CN"}
LAS = np.diag([-4.0, 4.0, 4.0, 1.0])


def read(root, *, layout="auto", table=None, **options):
    return read_collection(
        root, layout=layout, table=table, diagnosis_column="diagnosis", diagnosis_map=DIAGNOSES, **options
    )


def reasons(collection):
    return {Path(row.file).name: (row.kind, row.reason) for row in collection.rejected.itertuples()}


class TestReadCollection:
    def test_every_layout_gives_the_same_table(self, bids_tree, adni_tree, flat):
        for number, diagnosis in enumerate(("AD", "CN")):
            bids_tree.person(f"0{number}", diagnosis)
            bids_tree.scan(f"sub-0{number}_pet.nii.gz", number)
            adni_tree.image(f"I{number}", f"00{number}_S_0001", diagnosis)
        for root in (bids_tree.root, adni_tree.root, flat.root):
            collection = read(root)
            assert list(collection.scans["diagnosis"]) == ["AD", "CN"]
            assert collection.rejected.empty
            require_usable(collection, max_rejected_fraction=0)
            write_table(root / "out.csv", collection.scans)
            assert read_scans(root / "out.csv").equals(collection.scans)

    def test_path_is_relative_inside_the_working_directory_and_absolute_elsewhere(self, flat, monkeypatch):
        monkeypatch.chdir(flat.root.parent)
        for root in (Path("collection"), flat.root, Path("collection/../collection")):
            assert list(read(root).scans["path"]) == ["collection/ad.nii", "collection/cn.nii.gz"]
        (flat.root.parent / "elsewhere").mkdir()
        monkeypatch.chdir(flat.root.parent / "elsewhere")
        assert read(Path("../collection")).scans["path"][0] == (flat.root / "ad.nii").as_posix()

    def test_order_of_rows_does_not_matter(self, flat):
        flat.sound("a.nii", "3", "AD", seed=3)
        flat.row("b.nii", "0", "MCI").write_bytes(b"")
        before = read(flat.root)
        table = flat.root / "scans.csv"
        header, *rows = table.read_text().splitlines()
        table.write_text("\n".join([header, *reversed(rows)]))
        after = read(flat.root)
        assert after.scans.equals(before.scans)
        assert after.rejected.equals(before.rejected)


class TestRejections:
    """What concerns rows and places; damaged files are in test_pitfalls.py."""

    def check(self, flat, name, kind, reason):
        collection = read(flat.root)
        assert list(collection.scans["subject"]) == ["1", "2"]
        found_kind, found_reason = reasons(collection)[name]
        assert found_kind == kind
        assert reason in found_reason
        assert "\n" not in found_reason

    @pytest.mark.parametrize("path", ["../outside.nii", "a/../../outside.nii", "{root}/outside.nii"])
    def test_path_that_leaves_the_collection(self, flat, scan_file, path):
        scan_file(flat.root.parent / "outside.nii", 9)
        (flat.root / "a").mkdir()
        flat.row(path.format(root=flat.root.parent), "3", "AD")
        self.check(flat, "outside.nii", "unusable", "leads out of")

    def test_frame_that_leaves_the_collection(self, flat, scan_file):
        outside = scan_file(flat.root.parent / "outside.nii", 9)
        folder = flat.row("frames", "3", "AD")
        scan_file(folder / "1.nii", 8)
        (folder / "2.nii").symlink_to(outside)
        self.check(flat, "frames", "unusable", "leads out of")

    def test_folder_that_cannot_be_listed(self, bids_tree, monkeypatch):
        bids_tree.person("01", "AD")
        bids_tree.scan("sub-01_pet.nii")
        monkeypatch.setattr(reader, "scan_files", Mock(side_effect=PermissionError(13, "Permission denied")))
        said = reasons(read(bids_tree.root))["sub-01_pet.nii"]
        assert said == ("unusable", "cannot be listed: Permission denied")

    @pytest.mark.parametrize("store", ["annex", "parameter", "elsewhere"])
    def test_link_into_a_store_is_followed_where_it_is_known(self, flat, scan_file, store):
        project = flat.root.parent
        folder = project / (".git/annex/objects" if store == "annex" else "shared")
        key = scan_file(folder / "ab/cd/SHA256E-s9--ef.nii", 9)
        flat.row("link.nii", "3", "AD").symlink_to(os.path.relpath(key, flat.root))
        targets = [str(folder)] if store == "parameter" else []
        found = read(flat.root, link_targets=targets)
        assert len(found.scans) == 2 + (store != "elsewhere")
        assert store != "elsewhere" or "cohort.link_targets" in reasons(found)["link.nii"][1]

    @pytest.mark.parametrize("layout", ["flat", "adni"])
    def test_sidecar_in_a_store_is_read_where_it_is_known(self, flat, adni_tree, layout):
        root = {"flat": flat, "adni": adni_tree}[layout].root
        file = adni_tree.image("I1", "941_S_6962") if layout == "adni" else flat.sound("x.nii", "3", "AD")
        (store := root.parent / "shared").mkdir()
        (store / "key").write_text('{"TracerName": "AV45"}')
        file.with_suffix(".json").symlink_to(store / "key")
        assert "cohort.link_targets" in reasons(read(root))[file.name][1]
        assert "AV45 is not FDG" in reasons(read(root, link_targets=[str(store)]))[file.name][1]

    @pytest.mark.dvc
    @pytest.mark.parametrize("cache_dir", ["", "../outer-cache"])
    @pytest.mark.parametrize("kind", ["symlink", "hardlink"])
    def test_files_that_dvc_links_into_its_cache_are_the_collections(
        self, flat, monkeypatch, kind, cache_dir
    ):
        before = read(flat.root)
        monkeypatch.chdir(flat.root.parent)
        settings = [("cache.type", kind), *([("cache.dir", cache_dir)] if cache_dir else [])]
        for command in (
            ["init", "--no-scm"], *(["config", *pair] for pair in settings), ["add", "collection"],
            ["checkout", "--relink"],
        ):  # fmt: skip
            subprocess.run([sys.executable, "-m", "dvc", "-q", *command], check=True)
        assert (flat.root / "ad.nii").is_symlink() == (kind == "symlink")
        assert (flat.root / "ad.nii").stat().st_nlink > (kind == "hardlink")
        found = read(flat.root)
        assert found.rejected.empty
        assert list(found.scans["content"]) == list(before.scans["content"])

    def test_link_inside_the_collection_is_followed(self, flat, scan_file):
        store = scan_file(flat.root / ".store" / "abc.nii", 9)
        flat.row("link.nii", "3", "AD").symlink_to(store)
        assert len(read(flat.root).scans) == 3

    def test_other_diagnosis_is_skipped_without_opening_the_file(self, flat):
        flat.row("mci.nii", "3", "MCI").write_bytes(b"")
        self.check(flat, "mci.nii", "skipped", "diagnosis 'MCI' is neither AD nor CN")

    def test_diagnosis_is_known_in_any_case(self, flat):
        flat.sound("third.nii", "3", "DEMENTIA", seed=3)
        assert list(read(flat.root).scans["diagnosis"]) == ["AD", "CN", "AD"]

    @pytest.mark.parametrize(
        ("file", "subject", "diagnosis", "reason"),
        [
            ("third.nii", "3", "n/a", "no diagnosis is given"),
            ("third.nii", "1", "AD", "same subject and session as ad.nii"),
            ("ad.nii", "1", "AD", "listed twice"),
        ],
    )
    def test_row_that_says_too_little_or_is_repeated(self, flat, file, subject, diagnosis, reason):
        flat.sound(file, subject, diagnosis, seed=3)
        self.check(flat, file, "unusable", reason)

    def test_subjects_that_differ_in_case_alone(self, flat):
        flat.sound("lower.nii", "s", "AD", seed=3)
        flat.sound("upper.nii", "S", "AD", seed=4)
        collection = read(flat.root)
        assert list(collection.scans["subject"]) == ["1", "2", "s"]
        assert len(collection.rejected) == 1

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ([("a.nii", "3", "AD"), ("a.nii", "4", "AD")], "listed for 3 and 4; correct one of the rows"),
            ([("a.nii", "3", "AD"), ("b.nii", "3", "CN")], "subject 3 is AD in one scan and CN in another"),
        ],
    )
    def test_rows_that_differ_on_one_file_or_visit_are_all_set_aside(self, flat, rows, reason):
        for seed, (file, subject, diagnosis) in enumerate(rows, 3):
            flat.sound(file, subject, diagnosis, seed=seed)
        for file, *_ in rows:
            self.check(flat, file, "unusable", reason)

    def test_person_in_three_spellings_is_one_subject_and_never_in_both_classes(self, flat):
        for number, subject in enumerate(("S003", "S 003", "s003", "014", "14")):
            flat.sound(f"{number}.nii", subject, "CN" if subject == "s003" else "AD", number, seed=5 + number)
        found = read(flat.root)
        assert found.scans["subject"].value_counts().to_dict() == {"1": 1, "2": 1, "14": 2}
        assert sorted(found.spellings) == [["14", "014"], ["s003", "S003", "S 003"]]
        assert {reason for _, reason in reasons(found).values()} == {
            "subject s003 is AD in one scan and CN in another"
        }
        report = ingest_report(found)
        assert "14 and 014: taken as one person" in report_text(report)
        assert not any("014" in warning for warning in report["warnings"])

    @pytest.mark.parametrize("layout", ["bids", "adni"])
    def test_damaged_version_gives_way_to_the_next_intact_one(self, bids_tree, adni_tree, layout):
        tree = {"bids": bids_tree, "adni": adni_tree}[layout]
        if layout == "bids":
            bids_tree.person("01", "AD")
            files = [bids_tree.scan(f"sub-01_ses-1_rec-{rec}_pet.nii", n) for n, rec in enumerate("abcd")]
        else:
            texts = [LEVELS[level] for level in ("uniform-8mm", "uniform-6mm", "standardized", "averaged")]
            files = [tree.image(f"I{n}", "941_S_6962", description=text) for n, text in enumerate(texts)]
        for file in files[:2]:
            file.write_bytes(file.read_bytes()[:900])
        collection = read(tree.root)
        assert [Path(path).name for path in collection.scans["path"]] == [files[2].name]
        assert list(collection.scans["level"]) == ["rec-c" if layout == "bids" else "standardized"]
        said = reasons(collection)
        for file, following in pairwise(files[:3]):
            kind, reason = said[file.name]
            assert kind == "skipped"
            assert "truncated" in reason
            assert reason.endswith(f"; the next version is used, {following.name}")
        assert set(said) == {files[0].name, files[1].name, files[3].name}

    def test_next_version_is_of_the_person_in_the_spelling_that_the_others_have(self, bids_tree):
        bids_tree.person("01", "AD")
        for number, name in enumerate(("sub-01_ses-1", "sub-01_ses-2", "sub-1_ses-3_rec-b")):
            bids_tree.scan(f"{name}_pet.nii", number)
        bids_tree.scan("sub-1_ses-3_rec-a_pet.nii", 3).write_bytes(b"")
        assert list(read(bids_tree.root).scans["subject"]) == ["01"] * 3

    def test_frames_count_by_their_time_after_injection(self, bids_tree):
        bids_tree.json(
            "pet.json", TracerName="FDG", FrameTimesStart=[0, 1200, 2400], FrameDuration=[1200, 1200, 1800]
        )
        bids_tree.person("01", "AD")
        bids_tree.scan("sub-01_pet.nii", 1, frames=3)
        assert list(read(bids_tree.root).scans["frame_seconds"]) == ["0 600 1200"]
        assert list(read(bids_tree.root, frames_minutes=(0, 30)).scans["frame_seconds"]) == ["1200 600 0"]

    def test_durations_that_do_not_fit_the_frames(self, bids_tree):
        bids_tree.json("pet.json", TracerName="FDG", FrameDuration=[300, 600, "x"])
        bids_tree.person("01", "AD")
        bids_tree.scan("sub-01_pet.nii", 1, frames=3)
        kind, reason = reasons(read(bids_tree.root))["sub-01_pet.nii"]
        assert kind == "unusable"
        assert "required FrameDuration in s for 3 frames; received '300 600 x'" in reason

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
    def test_name_that_is_not_utf_8(self, bids_tree, tmp_path):
        bids_tree.person("01", "AD")
        good = bids_tree.scan("sub-01_pet.nii")
        bad = bids_tree.root / "sub-02" / "pet" / os.fsdecode(b"sub-02_rec-\xff_pet.nii")
        bids_tree.person("02", "CN")
        bad.parent.mkdir(parents=True)
        try:
            bad.write_bytes(good.read_bytes())
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        collection = read(bids_tree.root)
        assert len(collection.scans) == 1
        assert "not valid UTF-8" in collection.rejected["reason"][0]
        write_table(tmp_path / "rejected.csv", collection.rejected)


class TestNothingToRead:
    def test_missing_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"gone: required a folder of scans; .*cohort\.raw"):
            read(tmp_path / "gone")

    @pytest.mark.parametrize("layout", ["bids", "adni", "folder"])
    def test_collection_without_scans(self, bids_tree, adni_tree, tmp_path, layout):
        (tmp_path / "scans.csv").write_text("path,subject,session,diagnosis\n")
        root = {"bids": bids_tree.root, "adni": adni_tree.root, "folder": tmp_path}[layout]
        with pytest.raises(InputError, match=r"required scans .*; received none; check the folder"):
            read(root, layout=layout)

    def test_layout_without_signs_or_with_those_of_two(self, tmp_path, bids_tree):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"received none; set cohort\.layout"):
            detect_layout(tmp_path / "empty")
        (bids_tree.root / "scans.csv").write_text("path,subject,session,diagnosis\n")
        with pytest.raises(InputError, match="received bids and folder"):
            detect_layout(bids_tree.root)


class TestAdni:
    def test_diagnoses_by_visit_follow_the_policy(self, adni_tree):
        for number, (subject, year) in enumerate(
            [("941_S_6962", 2019), ("941_S_6962", 2021), ("002_S_0001", 2020)]
        ):
            adni_tree.image(f"I{number}", subject, "MCI", date=f"{year}-08-10", visit=str(year))
        table = adni_tree.root / "DXSUM.csv"
        table.write_text("RID,EXAMDATE,DIAGNOSIS\n6962,2019-08-01,1\n6962,2021-08-01,2\n1,2020-08-01,3\n")
        used = {
            policy: list(read(adni_tree.root, diagnosis=policy, diagnosis_table=table).scans["scan"])
            for policy in ("visit", "baseline", "stable-only")
        }
        assert used == {
            "visit": ["sub-002S0001_ses-2020", "sub-941S6962_ses-2019"],
            "baseline": ["sub-002S0001_ses-2020", "sub-941S6962_ses-2019", "sub-941S6962_ses-2021"],
            "stable-only": ["sub-002S0001_ses-2020"],
        }

    def test_diagnosis_table_of_another_layout_is_refused(self, flat):
        with pytest.raises(InputError, match=r"required ADNI's layout; received folder"):
            read(flat.root, diagnosis_table=flat.root / "DXSUM.csv")


def candidate(session, diagnosis="CN", *, subject="1", date="", age=math.nan):
    file = Path(f"{subject}_{session}.nii")
    return Candidate(file, subject, session, diagnosis=diagnosis, date=date, age=age)


def settle(policy, *scans, visits=None):
    found = Findings(candidates=list(scans), visits=visits or {})
    kept = apply_policy(found, policy=policy, diagnosis_map=DIAGNOSES)
    return {(scan.subject, scan.session): scan.diagnosis for scan in kept}, found.rejected


class TestPolicy:
    def test_baseline_gives_all_scans_the_diagnosis_of_the_first(self):
        kept, rejected = settle(
            "baseline", candidate("m12", "AD"), candidate("m6", "MCI"), candidate("1", "CN", subject="2")
        )
        assert kept == {("1", "m6"): "MCI", ("1", "m12"): "MCI", ("2", "1"): "CN"}
        assert not rejected

    def test_baseline_rejects_subjects_whose_first_diagnosis_is_unknown(self):
        kept, rejected = settle("baseline", candidate("m6", ""), candidate("m12", "AD"))
        assert not kept
        assert [item.kind for item in rejected] == ["unusable"] * 2
        assert "no diagnosis of the subject's first scan" in rejected[0].reason

    @pytest.mark.parametrize("pair", [("CN", "MCI"), ("MCI", "AD"), ("AD", "CN"), ("EMCI", "LMCI")])
    def test_stable_only_skips_subjects_who_change(self, pair):
        scans = candidate("1", pair[0]), candidate("2", pair[1]), candidate("1", subject="2")
        kept, rejected = settle("stable-only", *scans)
        assert [*kept] == [("2", "1")]
        assert [item.kind for item in rejected] == ["skipped"] * 2
        assert f"diagnosis changes ({', '.join(sorted(pair))})" in rejected[0].reason

    def test_stable_only_ignores_synonyms_and_unknown_diagnoses(self):
        words = ("AD", "dementia", "ad", "")
        kept, _ = settle("stable-only", *(candidate(str(n), word) for n, word in enumerate(words)))
        assert len(kept) == 4

    def test_stable_only_counts_visits_without_a_scan(self):
        assert not settle("stable-only", candidate("1", "CN"), visits={"1": {Visit("", 0.0, "MCI")}})[0]


@pytest.mark.parametrize(
    ("scans", "order"),
    [
        ([("a", "20210101", 60), ("b", "20200101", 70)], ["b", "a"]),
        ([("a", "", 71.5), ("b", "20200101", 70)], ["b", "a"]),
        ([("m12", "", 70), ("m6", "", 70)], ["m6", "m12"]),
        ([("m12", "", 60), ("m6", "", math.nan), ("m108", "", 50)], ["m6", "m12", "m108"]),
        ([(label, "", math.nan) for label in ("1", "m06", "Baseline", "sc")], ["sc", "Baseline", "1", "m06"]),
    ],
    ids=["dates", "ages", "labels of one age", "natural order", "names of a first session"],
)
def test_order_is_by_dates_ages_or_labels(scans, order):
    found = chronological([candidate(session, date=date, age=age) for session, date, age in scans])
    assert [scan.session for scan in found] == order


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def index(files, notes=None, **options):
    return list(index_files(files, notes=notes, **options))


@pytest.fixture
def files(tmp_path, scan_file):
    """Four scans, two of one size."""
    return [
        scan_file(tmp_path / name, seed)
        for seed, name in enumerate(("0.nii", "1.nii", "2.nii.gz", "3.nii.gz"))
    ]


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


class TestIndexFiles:
    def test_entry_has_frames_and_checksum_or_the_problem(self, tmp_path, scan_file):
        dynamic, text = scan_file(tmp_path / "dynamic.nii", 1, frames=6), tmp_path / "text.nii"
        text.write_bytes(b"text")
        first, second = index([dynamic, text])
        assert first == FileEntry(6, sha256(dynamic))
        assert "cannot be read as a NIfTI image" in second.problem

    def test_broken_sidecar_of_another_format_is_left_to_the_layout(self, tmp_path):
        nib.save(nib.MGHImage(np.ones((8, 9, 10), np.float32), LAS), tmp_path / "a.mgz")
        (tmp_path / "a.json").write_text("{broken")
        (entry,) = index([tmp_path / "a.mgz"])
        assert (entry.n_frames, entry.times, entry.problem) == (1, "", "")

    def test_checksum_covers_both_files_of_a_pair(self, tmp_path):
        path = tmp_path / "pair.img"
        nib.save(nib.AnalyzeImage(np.ones((8, 9, 10), np.float32), LAS), path)
        before = content_hash(path)
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
        assert content_hash(path) == content_hash(path.with_suffix(".hdr")) != before

    def test_checksum_and_index_cover_the_matrix_next_to_an_analyze_image(self, tmp_path, notes):
        path = tmp_path / "spm.img"
        nib.save(nib.Spm99AnalyzeImage(np.ones((8, 9, 10), np.float32), LAS), path)
        affine, (before,) = read_header(path).affine, index([path], notes)
        nib.save(nib.Spm99AnalyzeImage(np.ones((8, 9, 10), np.float32), 2 * LAS), tmp_path / "other.img")
        (tmp_path / "other.mat").replace(tmp_path / "spm.mat")
        assert not np.array_equal(read_header(path).affine, affine)
        (after,) = index([path], notes)
        assert after.sha256 == content_hash(path.with_suffix(".hdr")) != before.sha256

    def test_checksum_covers_all_frames_of_a_folder(self, tmp_path, scan_file):
        for number in (1, 2, 10):
            scan_file(tmp_path / "frames" / f"{number}.nii", number)
        before = content_hash(tmp_path / "frames")
        scan_file(tmp_path / "frames" / "10.nii", 11)
        assert content_hash(tmp_path / "frames") != before

    def test_workers_change_nothing(self, tmp_path, scan_file, monkeypatch):
        monkeypatch.setattr(reader, "BATCH_FILES", 3)
        files = [scan_file(tmp_path / f"{number}.nii", number) for number in range(10)]
        files[4].write_bytes(b"text")
        assert index(files, each=partial(map_in_processes, workers=2)) == index(files)

    def test_second_call_opens_only_new_files(self, files, notes, opened):
        index(files[:3], notes)
        opened.clear()
        assert index(files, notes)[-1] == FileEntry(1, sha256(files[3]))
        assert opened == ["3.nii.gz"]
        index(files, notes)
        assert opened == ["3.nii.gz"]

    @pytest.mark.parametrize("change", ["time", "inode", "size"])
    def test_changed_file_is_read_again(self, files, notes, change, scan_file):
        index(files, notes)
        times = files[0].stat().st_mtime_ns
        if change == "time":
            files[0].write_bytes(files[1].read_bytes())
            times += 1
        elif change == "inode":
            files[1].rename(files[0])
        else:
            scan_file(files[0], 9, frames=2)
        os.utime(files[0], ns=(times, times))
        assert index(files[:1], notes)[0].sha256 == sha256(files[0])

    def test_damaged_file_is_read_again(self, files, notes, opened):
        files[1].write_bytes(b"text")
        index(files, notes)
        opened.clear()
        assert index(files, notes)[1].problem
        assert opened == ["1.nii"]

    def test_killed_call_continues(self, files, notes, opened):
        reading = index_files(files, notes=notes)
        next(reading), next(reading)
        reading.close()
        with notes.open("a") as half:
            half.write('["half a li')
        opened.clear()
        outcome = index(files, notes)
        assert opened == ["2.nii.gz", "3.nii.gz"]
        assert outcome == index(files)

    def test_notes_are_of_one_code_of_the_sidecars(self, monkeypatch):
        before = reader._code.__wrapped__()
        monkeypatch.setattr(reader.sidecar, "__file__", reader.nifti.__file__)
        assert reader._code.__wrapped__() != before

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: b"",
            lambda text: b"other code" + text,
            lambda text: text.replace(b"\t", b" "),
            lambda text: text.replace(b"\t1\t", b"\tone\t"),
            lambda text: b"\xff\xfe\0",
        ],
    )
    def test_damaged_index_or_one_of_other_code_is_ignored(self, files, notes, opened, damage):
        first = index(files, notes)
        notes.write_bytes(damage(notes.read_bytes()))
        opened.clear()
        assert index(files, notes) == first
        assert len(opened) == 4


class TestScoreOnly:
    def scored(self, root, **options):
        collection = read(root, score_only=["MCI", "FTD"], **options)
        return collection, collection.score_only.set_index("scan")

    @pytest.fixture
    def sessions(self, bids_tree):
        """AD and CN, and a person who goes from CN over MCI to AD, which a visit without a scan tells."""
        for number, diagnosis in enumerate(("AD", "CN", "CN")):
            bids_tree.person(f"0{number}", diagnosis)
        for number, name in enumerate(("sub-00", "sub-01", "sub-02_ses-1", "sub-02_ses-2")):
            bids_tree.scan(f"{name}_pet.nii", number)
        (bids_tree.root / "sub-02/sub-02_sessions.tsv").write_text(
            "session_id\tacq_time\tdiagnosis\nses-1\t2009-01-01\tCN\nses-2\t2010-01-01\tmci\n"
            "ses-3\t2011-01-01\tMCI\nses-4\t2012-01-01\tDementia\nses-5\t2013-07-01\tDementia\n"
        )
        return bids_tree

    @pytest.mark.parametrize("diagnosis", ["visit", "baseline", "stable-only"])
    def test_all_visits_of_a_person_are_listed_apart_with_what_came_of_them(self, sessions, diagnosis):
        collection, scored = self.scored(sessions.root, diagnosis=diagnosis)
        assert list(collection.scans["subject"]) == ["00", "01"]
        assert collection.rejected.empty
        assert list(scored["diagnosis"]) == ["CN", "MCI"]
        assert list(scored["group"]) == ["MCI", "MCI"]
        assert list(scored["baseline"]) == [False, True]
        assert list(scored["years"]) == pytest.approx([-1.0, 0.0], abs=0.01)
        assert scored.iloc[1][["ad_years", "followed_years"]].tolist() == pytest.approx([2.0, 3.5], abs=0.01)
        assert ingest_report(collection)["score_only"] == {"MCI": {"subjects": 1, "scans": 2, "ad_or_cn": 1}}
        assert "2 scans of 1 subjects with MCI" in " ".join(report_text(ingest_report(collection)).split())

    def test_who_had_ad_before_is_no_outcome_and_exams_of_the_same_visit_are_not_later(self, sessions):
        table = sessions.root / "sub-02/sub-02_sessions.tsv"
        text = table.read_text()
        for changed in (
            text.replace("\tCN\n", "\tDementia\n"),
            text[: text.index("ses-3")] + "x\t2010-02-01\tAD\n",
        ):
            table.write_text(changed)
            _, scored = self.scored(sessions.root)
            assert scored[["ad_years", "followed_years"]].isna().all(axis=None)

    def test_of_two_scans_with_one_image_the_baseline_is_kept(self, sessions):
        sessions.scan("sub-02_ses-10_pet.nii", 3)
        table = sessions.root / "sub-02/sub-02_sessions.tsv"
        table.write_text(table.read_text() + "ses-10\t2011-06-01\tMCI\n")
        collection, scored = self.scored(sessions.root)
        assert list(scored["session"]) == ["1", "2"]
        assert list(scored["baseline"]) == [False, True]
        assert "the same image" in collection.rejected["reason"].item()

    def test_without_it_nothing_is_apart(self, sessions):
        assert read(sessions.root).score_only.empty

    def test_without_diagnoses_by_visit_nothing_came_of_anyone(self, adni_tree):
        for number, (subject, group) in enumerate(zip("1233", ("AD", "CN", "MCI", "MCI"), strict=True)):
            adni_tree.image(
                f"I{number}", f"00{subject}_S_0001", group, visit=str(number), date=f"201{number}-01-01"
            )
        _, scored = self.scored(adni_tree.root)
        assert list(scored["years"]) == pytest.approx([0, 1], abs=0.01)
        assert scored[["ad_years", "followed_years"]].isna().all(axis=None)

    def test_adni_exams_without_a_scan_count(self, adni_tree):
        for subject, group in (("1", "AD"), ("2", "CN"), ("3", "MCI")):
            adni_tree.image(
                f"I{subject}", f"00{subject}_S_000{subject}", group, visit="bl", date="2010-01-01"
            )
        exams = adni_tree.root / "DXSUM.csv"
        exams.write_text(
            "RID,VISCODE2,EXAMDATE,DIAGNOSIS\n1,bl,2010-01-02,3\n2,bl,2010-01-02,1\n3,bl,2010-01-02,2\n3,m24,2012-01-01,3\n"
        )
        _, scored = self.scored(adni_tree.root, diagnosis_table=exams)
        assert scored.iloc[0][["ad_years", "followed_years"]].tolist() == pytest.approx([2.0, 2.0], abs=0.01)

    def test_same_image_of_a_trained_and_a_scored_person_leaves_both(self, flat):
        flat.sound("mci.nii", "3", "MCI", seed=1)
        flat.sound("cn2.nii", "4", "AD", seed=4)
        collection, scored = self.scored(flat.root)
        assert scored.empty
        assert list(collection.scans["subject"]) == ["2", "4"]
        assert {kind for kind, _ in reasons(collection).values()} == {"unusable"}

    def test_person_without_a_usable_scan_of_the_diagnosis_is_left_out(self, flat):
        flat.row("mci.nii", "3", "MCI").write_bytes(b"")
        flat.sound("later.nii", "3", "AD", session="2", seed=5)
        collection, scored = self.scored(flat.root)
        assert scored.empty
        assert "no scan of this subject" in reasons(collection)["later.nii"][1]
