import json
from pathlib import Path

import pytest

from adpet.errors import InputError
from adpet.inference.inputs import frame_seconds, scans_at, stem_of


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(paths, **options):
    return [scan.path.name for scan in scans_at(paths, **options)]


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            ["scan_10.nii", "scan_2.nii.gz", "deep/scan_3.img", "deep/scan_3.hdr", "note.txt", ".hidden.nii"],
            ["scan_3.hdr", "scan_2.nii.gz", "scan_10.nii"],
        ),
        (["a.nii.gz", "a_adpet/a_cam.nii.gz", "a_adpet/a_space-scan_cam.nii.gz"], ["a.nii.gz"]),
        (["a_z.nii.gz", "o/a_cam.nii.gz", "o/a_z.nii.gz"], ["a_z.nii.gz"]),
        (
            [
                "sub-01/ses-1/pet/sub-01_ses-1_pet.nii.gz",
                "sub-01/anat/sub-01_T1w.nii.gz",
                "derivatives/x/sub-01/pet/sub-01_pet.nii.gz",
            ],
            ["sub-01_ses-1_pet.nii.gz"],
        ),
    ],
    ids=["folder", "own CAM", "own z-map", "BIDS"],
)
def test_folder_gives_its_scans_in_natural_order(tmp_path, files, found):
    touch(tmp_path, *files)
    assert names([tmp_path]) == found


@pytest.mark.parametrize(
    ("named", "stems"),
    [
        (["a/pet/scan.nii.gz", "b/pet/scan.nii.gz"], ["a_pet_scan", "b_pet_scan"]),
        (["a/x/scan.nii", "b/x/scan.nii", "b/y/scan.nii"], ["a_x_scan", "b_x_scan", "y_scan"]),
        (["scan.nii", "deep/scan.nii"], ["scan", "deep_scan"]),
        (["/data/a/scan.nii", "/data/b/scan.nii"], ["a_scan", "b_scan"]),
        (["deep/scan.nii", "deep/scan.nii.gz", "scan.nii"], ["deep_scan", "deep_scan_2", "scan"]),
        (["anna_scan.nii", "anna/scan.nii", "bert/scan.nii"], ["anna_scan", "anna_scan_2", "bert_scan"]),
        (["a.nii", "a.nii.gz", "a_2.nii"], ["a", "a_3", "a_2"]),
        (["../scan.nii", "../../scan.nii"], ["scan", "scan_2"]),
        (["a/Scan.nii", "b/scan.nii"], ["Scan", "scan_2"]),
        (["scan.nii", "scan.nii"], ["scan"]),
    ],
)
def test_named_scans_are_distinguished_by_folders_or_numbers(named, stems):
    assert [scan.stem for scan in scans_at(map(Path, named))] == stems


def test_folder_of_frames_is_one_scan(tmp_path):
    touch(tmp_path, "frame_1.nii", "frame_2.nii")
    assert names([tmp_path], frames=True) == [tmp_path.name]


def test_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="required a folder with images in NIfTI or DICOM; received one without any"
    ):
        scans_at([tmp_path])


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.NII", "a.b.hdr", "a.b.img.gz"])
def test_stem_is_the_name_without_the_suffix(tmp_path, name):
    assert stem_of(tmp_path / name) == "a.b"


class TestFrameDurations:
    def test_durations_are_read_from_the_sidecar(self, tmp_path):
        (tmp_path / "a_pet.json").write_text(json.dumps({"FrameDuration": [60, 300]}))
        assert frame_seconds(tmp_path / "a_pet.nii.gz", 2) == [60.0, 300.0]

    @pytest.mark.parametrize("content", ["", "[]", "{}"])
    def test_frames_weigh_the_same_without_durations(self, tmp_path, content):
        (tmp_path / "a_pet.json").write_text(content)
        if content == "{}":
            assert frame_seconds(tmp_path / "a_pet.nii.gz", 2) is None
        else:
            with pytest.raises(InputError, match=r"a_pet\.json .*; mend it"):
                frame_seconds(tmp_path / "a_pet.nii.gz", 2)

    @pytest.mark.parametrize("content", ['{"FrameDuration": "long"}', '{"FrameDuration": ["a"]}'])
    def test_durations_that_are_no_numbers_are_refused_as_by_ingest(self, tmp_path, content):
        (tmp_path / "a_pet.json").write_text(content)
        with pytest.raises(InputError, match="required FrameDuration in s for 2 frames"):
            frame_seconds(tmp_path / "a_pet.nii.gz", 2)

    def test_sidecar_of_another_tracer_refuses_the_scan(self, tmp_path):
        (tmp_path / "a_pet.json").write_text('{"TracerName": "AV45"}')
        with pytest.raises(InputError, match=r"required FDG; TracerName of a_pet.json says AV45"):
            frame_seconds(tmp_path / "a_pet.nii.gz", 1)
