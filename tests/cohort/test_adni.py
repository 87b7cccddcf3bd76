import pytest

from adpet.cohort.adni import FDG_DESCRIPTIONS, find_adni, has_adni_folders, is_collection_table, parse_date
from adpet.errors import InputError

UNIFORM, SIX_MM, STANDARD, AVERAGED, DYNAMIC, RAW = FDG_DESCRIPTIONS


def find(tree, table=None):
    found = find_adni(tree.root, table=table)
    return found.candidates, {item.file.name: (item.kind, item.reason) for item in found.rejected}


def test_a_row_and_its_file_are_a_scan(adni_tree):
    file = adni_tree.image("I1480670", "941_S_6962", "AD")
    candidates, rejected = find(adni_tree)
    (scan,) = candidates
    assert not rejected
    assert scan.file == file
    assert (scan.subject, scan.session, scan.site) == ("941_S_6962", "2", "941")
    assert (scan.diagnosis, scan.age, scan.sex) == ("AD", 75, "F")
    assert scan.key == "sub-941S6962_ses-2"


@pytest.mark.parametrize("image", ["1480670", "I1480670", "i1480670", " I1480670 "])
def test_image_ids_are_read_with_and_without_their_letter(adni_tree, image):
    adni_tree.row(image, "941_S_6962")
    adni_tree.file("I1480670", "941_S_6962")
    assert len(find(adni_tree)[0]) == 1


@pytest.mark.parametrize("leaf", ["I1480670", "S1072345"])
def test_both_forms_of_leaf_folders_are_read(adni_tree, leaf):
    adni_tree.row("I1480670", "941_S_6962")
    adni_tree.file("I1480670", "941_S_6962", leaf=leaf)
    assert len(find(adni_tree)[0]) == 1


def test_the_folder_tells_the_image_of_a_converted_file(adni_tree):
    adni_tree.row("I1480670", "941_S_6962")
    adni_tree.file("I1480670", "941_S_6962", name="converted scan.nii.gz")
    assert len(find(adni_tree)[0]) == 1


def test_other_headers_of_the_archive_are_understood(adni_tree):
    adni_tree.table.write_text(
        f'image_id,PTID,Research Group,Description\n7,941_S_6962,CN,"{STANDARD}"\n', encoding="utf-8"
    )
    adni_tree.file("I7", "941_S_6962", date="2011-02-03")
    (scan,) = find(adni_tree)[0]
    assert (scan.diagnosis, scan.session) == ("CN", "20110203")


class TestLevels:
    def test_the_most_processed_level_of_an_acquisition_is_used(self, adni_tree):
        for number, description in enumerate((AVERAGED, UNIFORM, STANDARD, DYNAMIC)):
            adni_tree.image(f"I{number}", "941_S_6962", description=description)
        candidates, rejected = find(adni_tree)
        assert [scan.file.parent.name for scan in candidates] == ["I1"]
        assert [kind for kind, _ in rejected.values()] == ["skipped"] * 3
        assert {reason for _, reason in rejected.values()} == {"another processing level or copy of image I1"}

    def test_a_level_that_was_not_downloaded_gives_way(self, adni_tree):
        adni_tree.row("I1", "941_S_6962", description=UNIFORM)
        adni_tree.image("I2", "941_S_6962", description=AVERAGED)
        candidates, rejected = find(adni_tree)
        assert [scan.file.parent.name for scan in candidates] == ["I2"]
        assert not rejected

    def test_visits_are_acquisitions_of_their_own(self, adni_tree):
        adni_tree.image("I1", "941_S_6962", visit="bl", date="2010-01-05", description=AVERAGED)
        adni_tree.image("I2", "941_S_6962", visit="m12", date="2011-01-09")
        candidates, _ = find(adni_tree)
        assert [scan.session for scan in candidates] == ["bl", "m12"]

    def test_of_two_images_of_one_level_the_newer_is_used(self, adni_tree):
        adni_tree.image("I99", "941_S_6962")
        adni_tree.image("I100", "941_S_6962")
        candidates, _ = find(adni_tree)
        assert [scan.file.parent.name for scan in candidates] == ["I100"]

    @pytest.mark.parametrize("description", ["AV45 " + STANDARD, "ADNI Brain PET: Raw AV45", "PIB PET"])
    def test_other_tracers_are_skipped(self, adni_tree, description):
        adni_tree.image("I1", "941_S_6962", description=description)
        candidates, rejected = find(adni_tree)
        assert not candidates
        assert [*rejected.values()] == [("skipped", f"description '{description}' is none of FDG")]

    def test_other_modalities_are_skipped(self, adni_tree):
        adni_tree.row("I1", "941_S_6962", modality="MRI")
        adni_tree.file("I1", "941_S_6962")
        candidates, rejected = find(adni_tree)
        assert not candidates
        assert [*rejected.values()] == [("skipped", "modality MRI is not PET")]

    def test_frames_in_separate_files_are_not_taken_for_a_scan(self, adni_tree):
        adni_tree.row("I1", "941_S_6962", description=RAW)
        for frame in range(6):
            adni_tree.file("I1", "941_S_6962", name=f"ADNI_941_S_6962_PT_Br_2021_{frame}_S9_I1.nii")
        candidates, rejected = find(adni_tree)
        assert not candidates
        ((kind, reason),) = rejected.values()
        assert kind == "unusable"
        assert reason.startswith("6 files for one image")


class TestSessions:
    def test_the_date_stands_in_where_visits_repeat(self, adni_tree):
        adni_tree.image("I1", "941_S_6962", visit="2", date="2010-01-05")
        adni_tree.image("I2", "941_S_6962", visit="2", date="2011-01-09")
        candidates, _ = find(adni_tree)
        assert [scan.session for scan in candidates] == ["20100105", "20110109"]

    @pytest.mark.parametrize("text", ["8/9/2021", "08/09/2021", "2021-08-09", "2021-8-9 00:00:00.0"])
    def test_dates_are_read_in_their_variants(self, text):
        assert parse_date(text) == "20210809"

    @pytest.mark.parametrize("text", ["", "August", "8/9/21", "20210809"])
    def test_what_is_no_date_is_not_guessed(self, text):
        assert parse_date(text) == ""


class TestContradictions:
    def test_a_file_without_a_row_is_set_aside(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        file = adni_tree.file("I2", "941_S_6962")
        candidates, rejected = find(adni_tree)
        assert len(candidates) == 1
        assert rejected == {
            file.name: (
                "unusable", "image I2 has no row in FDG_1_02_2024.csv; add it, or remove the file"
            )
        }  # fmt: skip

    def test_a_row_without_a_file_is_set_aside(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        adni_tree.row("I2", "002_S_0001")
        _, rejected = find(adni_tree)
        assert rejected["I2"] == ("unusable", "listed in the CSV, but not there; download it again")

    def test_a_file_that_tells_no_image_is_set_aside(self, adni_tree, scan_file):
        adni_tree.image("I1", "941_S_6962")
        scan_file(adni_tree.root / "stray.nii")
        _, rejected = find(adni_tree)
        assert rejected["stray.nii"][0] == "unusable"

    def test_a_path_and_a_row_of_two_subjects_are_set_aside(self, adni_tree):
        adni_tree.row("I1", "002_S_0001")
        file = adni_tree.file("I1", "941_S_6962")
        candidates, rejected = find(adni_tree)
        assert not candidates
        assert rejected[file.name] == ("unusable", "the CSV says 002_S_0001, the path 941_S_6962")

    def test_a_copy_in_another_folder_is_skipped(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        adni_tree.file("I1", "941_S_6962", leaf="copy")
        candidates, rejected = find(adni_tree)
        assert len(candidates) == 1
        assert [kind for kind, _ in rejected.values()] == ["skipped"]

    def test_twins_that_macos_leaves_are_no_scans(self, adni_tree):
        file = adni_tree.image("I1", "941_S_6962")
        file.with_name("._" + file.name).write_bytes(b"macOS")
        candidates, rejected = find(adni_tree)
        assert len(candidates) == 1
        assert not rejected


class TestCollectionTable:
    def test_outside_of_the_folder_none_is_looked_for(self, adni_tree):
        """DVC versions the folder: a table beside it could change without anyone seeing."""
        adni_tree.image("I1", "941_S_6962")
        with pytest.raises(InputError, match="required ADNI's collection CSV"):
            find_adni(adni_tree.root / "ADNI")

    def test_other_tables_are_left_alone(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        (adni_tree.root / "DXSUM.csv").write_text("PTID,VISCODE,DIAGNOSIS\n941_S_6962,bl,3\n")
        assert len(find(adni_tree)[0]) == 1
        assert not is_collection_table(adni_tree.root / "DXSUM.csv")

    def test_two_of_them_are_a_question_for_the_user(self, adni_tree):
        adni_tree.image("I1", "941_S_6962")
        twin = adni_tree.root / "other.csv"
        twin.write_bytes(adni_tree.table.read_bytes())
        with pytest.raises(InputError, match=r"received FDG_1_02_2024\.csv, other\.csv; set cohort\.table"):
            find(adni_tree)
        assert len(find(adni_tree, table=twin)[0]) == 1

    def test_none_of_them_is_said(self, adni_tree):
        adni_tree.table.unlink()
        with pytest.raises(InputError, match="required ADNI's collection CSV"):
            find(adni_tree)

    def test_missing_columns_are_named(self, adni_tree):
        adni_tree.table.write_text("Image Data ID,Subject\n1,941_S_6962\n")
        with pytest.raises(InputError, match="required the columns Group, Description"):
            find(adni_tree, table=adni_tree.table)


def test_folders_named_by_subjects_tell_a_download(adni_tree, tmp_path):
    assert not has_adni_folders(tmp_path)
    adni_tree.image("I1", "941_S_6962")
    assert has_adni_folders(adni_tree.root)
    assert has_adni_folders(adni_tree.root / "ADNI")
