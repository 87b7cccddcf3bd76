import gzip
import hashlib
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adpet.cohort.reader import content_hash, detect_layout, read_collection
from adpet.cohort.scans import read_scans, require_usable, write_rejected, write_scans
from adpet.errors import InputError
from adpet.imaging.nifti import read_volume

DIAGNOSES = {"AD": "AD", "Dementia": "AD", "CN": "CN"}
LAS = np.diag([-4.0, 4.0, 4.0, 1.0])


def read(root, *, layout="auto", table=None, **options):
    return read_collection(
        root, layout=layout, table=table, diagnosis_column="diagnosis", diagnosis_map=DIAGNOSES, **options
    )


def reasons(collection):
    return {Path(row.file).name: (row.kind, row.reason) for row in collection.rejected.itertuples()}


class FlatFolder:
    """A flat folder that grows row by row; one sound scan of each diagnosis is there."""

    def __init__(self, root, save):
        self.root, self.save = root, save
        root.mkdir()
        (root / "scans.csv").write_text("path,subject,session,diagnosis\n")
        self.sound("ad.nii", "1", "AD", seed=1)
        self.sound("cn.nii.gz", "2", "CN", seed=2)

    def row(self, path, subject, diagnosis, session="1"):
        with (self.root / "scans.csv").open("a", encoding="utf-8") as file:
            file.write(f'"{path}",{subject},{session},{diagnosis}\n')
        return self.root / path

    def sound(self, path, subject, diagnosis, session="1", **options):
        return self.save(self.row(path, subject, diagnosis, session), **options)


@pytest.fixture
def flat(tmp_path, scan_file):
    return FlatFolder(tmp_path / "flat", scan_file)


class TestReadable:
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
            write_scans(root / "out.csv", collection.scans)
            assert read_scans(root / "out.csv").equals(collection.scans)

    def test_orientation_dtype_and_frames_are_no_obstacle(self, flat):
        flat.sound("las.nii", "3", "AD", seed=3, affine=LAS)
        flat.sound("4d.nii.gz", "4", "CN", seed=4, frames=6)
        flat.sound("trailing.nii", "5", "CN", seed=5, frames=1)
        nib.save(
            nib.Nifti2Image(np.arange(720, dtype=">i2").reshape(8, 9, 10), LAS),
            flat.row("two.nii", "6", "AD"),
        )
        collection = read(flat.root)
        assert len(collection.scans) == 6
        assert collection.rejected.empty

    def test_names_may_have_spaces_commas_and_letters_of_any_language(self, flat):
        flat.sound("Järvenpää, scan 1/пэт  1.nii", "Äiti 3", "AD", seed=3)
        scans = read(flat.root).scans
        (scan,) = scans[scans["subject"] == "Äiti 3"].to_dict("records")
        assert scan["path"].endswith("Järvenpää, scan 1/пэт  1.nii")
        assert scan["scan"].isascii()

    def test_an_analyze_pair_is_hashed_with_both_files(self, flat):
        image = nib.AnalyzeImage(np.ones((8, 9, 10), np.float32), LAS)
        path = flat.row("pair.img", "3", "AD")
        nib.save(image, path)
        before = content_hash(path)
        assert len(read(flat.root).scans) == 3
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
        assert content_hash(path) != before
        assert content_hash(path) == content_hash(path.with_suffix(".hdr"))

    def test_packed_pairs_of_one_scanner_are_told_apart_by_their_voxels(self, flat):
        for number in (3, 4):
            data = np.random.default_rng(number).random((8, 9, 10), dtype=np.float32)
            path = flat.row(f"pair{number}.hdr.gz", str(number), "AD")
            nib.save(nib.Nifti1Pair(data, LAS), path)
        assert list(read(flat.root).scans["subject"]) == ["1", "2", "3", "4"]

    def test_a_folder_of_frames_is_hashed_with_all_of_them(self, flat):
        folder = flat.row("frames", "3", "AD")
        for number in (1, 2, 10):
            flat.save(folder / f"{number}.nii", number)
        before = content_hash(folder)
        (scan,) = read(flat.root).scans.query("subject == '3'").to_dict("records")
        assert scan["content"] == before
        assert scan["path"].endswith("flat/frames")
        flat.save(folder / "10.nii", 11)
        assert content_hash(folder) != before

    def test_durations_are_kept_where_there_are_frames_to_weight(self, bids_tree):
        bids_tree.json("pet.json", TracerName="FDG", FrameDuration=[300, 600])
        bids_tree.person("01", "AD")
        bids_tree.person("02", "CN")
        bids_tree.scan("sub-01_pet.nii", 1, frames=2)
        bids_tree.scan("sub-02_pet.nii", 2)
        assert list(read(bids_tree.root).scans["frame_seconds"]) == ["300 600", ""]

    def test_the_content_is_the_hash_of_the_bytes(self, flat):
        scans = read(flat.root).scans.set_index("subject")
        expected = hashlib.sha256((flat.root / "ad.nii").read_bytes()).hexdigest()
        assert scans.loc["1", "content"] == expected

    def test_paths_in_the_working_directory_are_relative_to_it(self, flat, monkeypatch):
        monkeypatch.chdir(flat.root.parent)
        for root in (Path("flat"), flat.root, Path("flat/../flat")):
            assert list(read(root).scans["path"]) == ["flat/ad.nii", "flat/cn.nii.gz"]
        monkeypatch.chdir(flat.root.anchor)
        assert not Path(read(flat.root).scans["path"][0]).is_absolute()

    def test_paths_elsewhere_are_absolute(self, flat, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert read(Path("../flat")).scans["path"][0] == (flat.root / "ad.nii").as_posix()

    def test_progress_sees_every_file_that_is_opened(self, flat):
        seen = []

        def progress(items, *, total):
            for number, item in enumerate(items, 1):
                seen.append(f"{number} of {total}")
                yield item

        read(flat.root, progress=progress)
        assert seen == ["1 of 2", "2 of 2"]


class TestSetAside:
    def check(self, flat, name, kind, reason):
        collection = read(flat.root)
        assert list(collection.scans["subject"]) == ["1", "2"]
        found_kind, found_reason = reasons(collection)[name]
        assert found_kind == kind
        assert reason in found_reason
        assert str(flat.root) not in found_reason
        assert "\n" not in found_reason

    def check_kept(self, flat, subjects):
        collection = read(flat.root)
        assert list(collection.scans["subject"]) == subjects
        assert len(collection.rejected) == 1

    def test_a_truncated_file(self, flat):
        path = flat.sound("bad.nii", "3", "AD")
        path.write_bytes(path.read_bytes()[:1000])
        self.check(flat, "bad.nii", "unusable", "truncated")

    def test_an_archive_cut_off_in_the_header(self, flat):
        flat.row("bad.nii.gz", "3", "AD").write_bytes(gzip.compress(bytes(1000))[:15])
        self.check(flat, "bad.nii.gz", "unusable", "cannot be read as a NIfTI image")

    def test_an_archive_cut_off_in_its_voxels(self, flat):
        path = flat.sound("bad.nii.gz", "3", "AD")
        path.write_bytes(path.read_bytes()[:-100])
        self.check(flat, "bad.nii.gz", "unusable", "ended before")

    def test_an_empty_file(self, flat):
        flat.row("bad.nii", "3", "AD").write_bytes(b"")
        self.check(flat, "bad.nii", "unusable", "cannot be read as a NIfTI image")

    def test_a_text_called_nii(self, flat):
        flat.row("bad.nii", "3", "AD").write_text("Dear colleague, " * 100)
        self.check(flat, "bad.nii", "unusable", "cannot be read as a NIfTI image")

    def test_a_file_that_is_not_there(self, flat):
        flat.row("gone.nii", "3", "AD")
        self.check(flat, "gone.nii", "unusable", "listed, but not there")

    def test_a_folder_without_frames(self, flat):
        flat.row("folder.nii", "3", "AD").mkdir()
        self.check(flat, "folder.nii", "unusable", "received a folder without any")

    def test_a_frame_that_leaves_the_collection(self, flat):
        outside = flat.save(flat.root.parent / "outside.nii", 9)
        folder = flat.row("frames", "3", "AD")
        flat.save(folder / "1.nii", 8)
        (folder / "2.nii").symlink_to(outside)
        assert "leads out of" in reasons(read(flat.root))["frames"][1]

    @pytest.mark.parametrize("path", ["../outside.nii", "a/../../outside.nii"])
    def test_a_path_that_leaves_the_collection(self, flat, path):
        flat.save(flat.root.parent / "outside.nii", 9)
        (flat.root / "a").mkdir()
        flat.row(path, "3", "AD")
        collection = read(flat.root)
        assert len(collection.scans) == 2
        assert "leads out of" in reasons(collection)["outside.nii"][1]

    def test_an_absolute_path_to_elsewhere(self, flat):
        outside = flat.save(flat.root.parent / "outside.nii", 9)
        flat.row(outside, "3", "AD")
        assert "leads out of" in reasons(read(flat.root))["outside.nii"][1]

    def test_a_link_that_leaves_the_collection(self, flat):
        outside = flat.save(flat.root.parent / "outside.nii", 9)
        flat.row("link.nii", "3", "AD").symlink_to(outside)
        assert "leads out of" in reasons(read(flat.root))["link.nii"][1]

    def test_a_link_inside_of_the_collection_is_followed(self, flat):
        store = flat.save(flat.root / ".store" / "abc.nii", 9)
        flat.row("link.nii", "3", "AD").symlink_to(store)
        assert len(read(flat.root).scans) == 3

    def test_a_link_to_itself(self, flat):
        path = flat.row("loop.nii", "3", "AD")
        path.symlink_to(path)
        collection = read(flat.root)
        assert len(collection.scans) == 2
        assert reasons(collection)["loop.nii"][0] == "unusable"

    def test_other_diagnoses_are_skipped_without_opening_the_file(self, flat):
        flat.row("mci.nii", "3", "MCI").write_bytes(b"")
        self.check(flat, "mci.nii", "skipped", "diagnosis 'MCI' is neither AD nor CN")

    def test_a_diagnosis_is_known_in_any_case(self, flat):
        flat.sound("third.nii", "3", "DEMENTIA", seed=3)
        assert list(read(flat.root).scans["diagnosis"]) == ["AD", "CN", "AD"]

    def test_a_missing_diagnosis(self, flat):
        flat.sound("third.nii", "3", "n/a", seed=3)
        self.check(flat, "third.nii", "unusable", "no diagnosis is given")

    def test_a_second_file_of_one_session(self, flat):
        flat.sound("second.nii", "1", "AD", seed=3)
        self.check(flat, "second.nii", "unusable", "same subject and session as ad.nii")

    def test_subjects_that_differ_in_case_alone(self, flat):
        flat.sound("lower.nii", "s", "AD", seed=3)
        flat.sound("upper.nii", "S", "AD", seed=4)
        self.check_kept(flat, ["1", "2", "s"])

    def test_one_file_in_two_rows(self, flat):
        flat.row("ad.nii", "3", "AD")
        self.check(flat, "ad.nii", "unusable", "listed twice")

    def test_durations_that_do_not_fit_the_frames(self, bids_tree):
        bids_tree.json("pet.json", TracerName="FDG", FrameDuration=[300, 600, "x"])
        bids_tree.person("01", "AD")
        bids_tree.scan("sub-01_pet.nii", 1, frames=3)
        kind, reason = reasons(read(bids_tree.root))["sub-01_pet.nii"]
        assert kind == "unusable"
        assert "required FrameDuration in s for 3 frames; received '300 600 x'" in reason

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
    def test_a_name_that_is_no_text(self, bids_tree, tmp_path):
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
        write_rejected(tmp_path / "rejected.csv", collection.rejected)

    def test_subjects_that_share_an_image_and_subjects_of_two_diagnoses(self, flat):
        flat.sound("twin-a.nii", "3", "AD", seed=3)
        flat.sound("twin-b.nii", "4", "CN", seed=3)
        flat.sound("then.nii", "5", "CN", "1", seed=5)
        flat.sound("later.nii", "5", "AD", "2", seed=6)
        collection = read(flat.root)
        assert list(collection.scans["subject"]) == ["1", "2"]
        assert set(reasons(collection)) == {"twin-a.nii", "twin-b.nii", "then.nii", "later.nii"}

    def test_bad_files_never_stop_the_others(self, flat):
        for number, content in enumerate((b"", b"text", b"\x1f\x8b", bytes(348), os.urandom(400))):
            flat.row(f"bad{number}.nii", f"bad{number}", "AD").write_bytes(content)
            flat.row(f"bad{number}.nii.gz", f"badgz{number}", "CN").write_bytes(content)
        collection = read(flat.root)
        assert list(collection.scans["subject"]) == ["1", "2"]
        assert len(collection.rejected) == 10
        with pytest.raises(InputError, match="10 of 12 scans cannot be used"):
            require_usable(collection, max_rejected_fraction=0.5)


class TestNothingToRead:
    def test_a_missing_folder_tells_what_to_do(self, tmp_path):
        with pytest.raises(InputError, match=r"gone: required a folder of scans; .*cohort\.raw"):
            read(tmp_path / "gone")

    @pytest.mark.parametrize("layout", ["bids", "adni", "folder"])
    def test_no_scans_at_all_tells_what_to_do(self, bids_tree, adni_tree, tmp_path, layout):
        (tmp_path / "scans.csv").write_text("path,subject,session,diagnosis\n")
        bids_tree.participants("participant_id\tdiagnosis\n")
        root = {"bids": bids_tree.root, "adni": adni_tree.root, "folder": tmp_path}[layout]
        with pytest.raises(InputError, match=r"required scans .*; received none; check cohort\.raw"):
            read(root, layout=layout)

    def test_a_folder_of_no_layout_names_the_signs(self, tmp_path):
        with pytest.raises(InputError, match=r"received none; set cohort\.layout"):
            detect_layout(tmp_path)

    def test_signs_of_two_layouts_are_a_question(self, bids_tree):
        (bids_tree.root / "scans.csv").write_text("path,subject,session,diagnosis\n")
        with pytest.raises(InputError, match="received bids and folder"):
            detect_layout(bids_tree.root)

    def test_a_table_tells_its_layout(self, adni_tree, flat):
        assert detect_layout(adni_tree.root, table=adni_tree.table) == "adni"
        assert detect_layout(flat.root, table=flat.root / "scans.csv") == "folder"


def test_the_outcome_does_not_depend_on_the_order_of_rows(flat):
    flat.sound("a.nii", "3", "AD", seed=3)
    flat.row("b.nii", "0", "MCI").write_bytes(b"")
    before = read(flat.root)
    table = flat.root / "scans.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *reversed(rows)]))
    after = read(flat.root)
    assert after.scans.equals(before.scans)
    assert after.rejected.equals(before.rejected)


class TestAdni:
    """What reader and collection do together with a download."""

    def test_only_ad_and_cn_of_all_groups_are_used(self, adni_tree):
        for number, group in enumerate(["CN", "SMC", "EMCI", "MCI", "LMCI", "AD", "Patient"]):
            adni_tree.image(f"I{number}", f"00{number}_S_0001", group)
        collection = read(adni_tree.root)
        assert list(collection.scans["diagnosis"]) == ["CN", "AD"]
        assert set(collection.rejected["kind"]) == {"skipped"}

    def test_six_frames_are_one_scan_with_a_level(self, adni_tree):
        adni_tree.row("I1", "941_S_6962", description="ADNI Brain PET: Raw FDG")
        for n in range(6):
            adni_tree.file("I1", "941_S_6962", name=f"ADNI_941_S_6962_PT_Br_2021_{n}_S9_I1.nii", seed=n)
        (scan,) = read(adni_tree.root).scans.to_dict("records")
        assert scan["level"] == "raw"
        assert read_volume(Path(scan["path"])).data.shape == (8, 9, 10)

    def test_one_image_under_two_ids_of_a_subject_is_kept_once(self, adni_tree):
        adni_tree.image("I1", "941_S_6962", date="2020-08-10", visit="1", seed=5)
        adni_tree.image("I2", "941_S_6962", date="2021-08-10", visit="2", seed=5)
        collection = read(adni_tree.root)
        assert list(collection.scans["session"]) == ["1"]
        assert list(collection.rejected["reason"]) == ["the same image as another scan of this subject"]

    def test_one_image_of_two_subjects_is_no_ones(self, adni_tree):
        adni_tree.image("I1", "941_S_6962", seed=5)
        adni_tree.image("I2", "002_S_0001", seed=5)
        collection = read(adni_tree.root)
        assert collection.scans.empty
        assert set(collection.rejected["kind"]) == {"unusable"}

    def test_diagnoses_by_visit_decide_with_the_policy(self, adni_tree):
        for number, (subject, year) in enumerate(
            [("941_S_6962", 2019), ("941_S_6962", 2021), ("002_S_0001", 2020)]
        ):
            adni_tree.image(f"I{number}", subject, "MCI", date=f"{year}-08-10", visit=str(year))
        table = adni_tree.root / "DXSUM.csv"
        table.write_text("RID,EXAMDATE,DIAGNOSIS\n6962,8/1/2019,1\n6962,8/1/2021,2\n1,8/1/2020,3\n")
        used = {
            policy: list(read(adni_tree.root, diagnosis=policy, diagnosis_table=table).scans["scan"])
            for policy in ("visit", "baseline", "stable-only")
        }
        assert used == {
            "visit": ["sub-002S0001_ses-2020", "sub-941S6962_ses-2019"],
            "baseline": ["sub-002S0001_ses-2020", "sub-941S6962_ses-2019", "sub-941S6962_ses-2021"],
            "stable-only": ["sub-002S0001_ses-2020"],
        }


class TestPolicies:
    @pytest.mark.parametrize(
        ("policy", "kept", "kinds"),
        [
            ("visit", [], ["unusable", "unusable"]),
            ("baseline", ["1", "2"], []),
            ("stable-only", [], ["skipped", "skipped"]),
        ],
    )
    def test_no_subject_is_ever_in_both_classes(self, bids_tree, policy, kept, kinds):
        bids_tree.person("01", "n/a")
        for session in "12":
            bids_tree.scan(f"sub-01_ses-{session}_pet.nii", int(session))
        (bids_tree.root / "sub-01/sub-01_sessions.tsv").write_text(
            "session_id\tdiagnosis\nses-1\tCN\nses-2\tAD\n"
        )
        collection = read(bids_tree.root, diagnosis=policy)
        assert list(collection.scans["session"]) == kept
        assert collection.scans["diagnosis"].nunique() <= 1
        assert list(collection.rejected["kind"]) == kinds

    def test_a_flat_folder_follows_its_dates(self, flat):
        flat.sound("late.nii", "3", "MCI", "1", seed=3)
        flat.sound("early.nii", "3", "CN", "2", seed=4)
        table = flat.root / "scans.csv"
        header, *rows = table.read_text().splitlines()
        dates = {"late.nii": "2021-01-01", "early.nii": "2020-01-01"}
        dated = [f"{row},{dates.get(row.split(',')[0].strip(chr(34)), '2020-01-01')}" for row in rows]
        table.write_text("\n".join([f"{header},date", *dated]))
        scans = read(flat.root, diagnosis="baseline").scans
        assert list(scans[scans["subject"] == "3"]["diagnosis"]) == ["CN", "CN"]

    def test_a_table_of_adni_is_refused_where_another_layout_is(self, flat):
        with pytest.raises(
            InputError, match=r"cohort\.diagnosis_table: required ADNI's layout; received folder"
        ):
            read(flat.root, diagnosis_table=flat.root / "DXSUM.csv")
