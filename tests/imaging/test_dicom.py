"""DICOM and other formats become the same volume as NIfTI, and nothing of the patient stays."""

import json
import tempfile
import zipfile
from pathlib import Path

import dicom_files
import nibabel as nib
import numpy as np
import pytest
from dicom_files import NAMES, write_series
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging import dicom
from adpet.imaging.dicom import as_nifti, dicom_scans
from adpet.imaging.nifti import Volume, read_volume, to_ras, write_volume
from adpet.imaging.sidecar import read_facts, require_fdg

STRAIGHT = np.array([[-2.5, 0, 0, 20], [0, -2.5, 0, 18], [0, 0, 3.0, -15], [0, 0, 0, 1]])
OBLIQUE = np.eye(4)
OBLIQUE[:3] = np.c_[
    Rotation.from_euler("xyz", (12, -8, 6), degrees=True).as_matrix() * (-2.4, 2.6, 3.1), (20, 9, -15)
]
AMYLOID = ("C-E8A03", "SRT", "Florbetapir F^18^")
# What a patient's folder holds next to the scan: a CT, the same without attenuation correction, another tracer.
OTHER_SERIES = {
    1: {"modality": "CT"}, 4: {"corrections": ("DECY", "NORM")}, 5: {"tracer": AMYLOID},
    6: {"corrections": ("DECY",), "method": "NONE, 0.000000 cm-1,"}, 8: {"drug": "PiB"},
}  # fmt: skip


def image(affine=STRAIGHT):
    data = np.random.default_rng(3).uniform(0, 9000, (16, 14, 12)).astype(np.float32)
    stored, slope = dicom_files.encoded(Volume(data, affine))
    return Volume(stored * np.float32(slope), affine)


def straight(volume):
    return to_ras(volume.data, volume.affine)


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory, monkeypatch):
    """Where temporary files go; none may stay."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def scan(tmp_path):
    """A patient's series of FDG-PET."""
    return write_series(tmp_path / "DOE_JANE" / "pet", image())


def zipped(folder, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return path


def read(path, **options):
    with as_nifti(path, **options) as found:
        return read_volume(found)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"name": "{}"}, {"enhanced": True}, {"preamble": False, "syntax": ImplicitVRLittleEndian},
        {"syntax": ExplicitVRBigEndian}, {"syntax": RLELossless}, {"syntax": JPEG2000Lossless},
        {"syntax": RLELossless, "enhanced": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("affine", [STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def test_series_is_the_volume_that_was_written(tmp_path, affine, options):
    wanted, found = image(affine), read(write_series(tmp_path / "scan", image(affine), **options))
    np.testing.assert_allclose(found.affine, straight(wanted).affine, atol=2e-5)
    np.testing.assert_allclose(found.data, straight(wanted).data, rtol=1e-6, atol=1e-3)


def test_folder_zip_and_file_of_many_frames_give_one_volume(tmp_path, scan):
    (enhanced,) = write_series(tmp_path / "one", image(), enhanced=True).iterdir()
    found = [read(path) for path in (scan, scan.parent, zipped(scan.parent, tmp_path / "a.zip"), enhanced)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.data, found[0].data)


def test_dynamic_series_has_its_frame_times_and_the_injection(tmp_path):
    path = write_series(tmp_path / "scan", image(), seconds=(300, 300, 600), start=1800)
    with as_nifti(path) as found:
        facts = json.loads(found.with_suffix(".json").read_text())
        volume = read_volume(found, frame_seconds=facts["FrameDuration"])
    assert (facts["FrameTimesStart"], facts["FrameDuration"]) == ([0, 300, 600], [300, 300, 600])
    assert (facts["InjectionStart"], facts["TracerName"]) == (-1800, "Fluorodeoxyglucose F^18^")
    assert facts["Units"] == "Bq/mL"
    assert facts["AttenuationCorrectionMethod"] == "measured,CT"
    np.testing.assert_allclose(
        volume.data, straight(image()).data * (1 + 1.1 + 1.2 * 2) / 4, rtol=1e-5, atol=1e-3
    )


def test_conversion_holds_no_name_id_or_date(scan):
    with as_nifti(scan) as found:
        kept = b"".join(file.read_bytes() for file in found.parent.glob("scan.*"))
        assert not any(word.encode() in f"{found} {kept}".encode() + kept for word in NAMES)


class TestChoice:
    @pytest.fixture
    def patient(self, scan):
        """The scan, and everything next to it, in one folder and below it."""
        for number, options in OTHER_SERIES.items():
            place = scan if number == 1 else scan.parent / str(number)
            write_series(place, image(OBLIQUE), series=number, name=f"other{number}_{{}}", **options)
        return scan.parent

    def test_corrected_fdg_of_a_patient_is_chosen(self, patient):
        np.testing.assert_allclose(read(patient).affine, straight(image()).affine)
        assert dicom_scans(patient.parent) == [patient]

    def test_two_that_fit_are_listed_and_one_can_be_named(self, patient):
        write_series(patient / "again", image(OBLIQUE), series=7)
        with pytest.raises(
            InputError, match=r"received series 1 \(CT, .*, 3 \(PT, Fluoro.*--series"
        ) as error:
            read(patient)
        assert "4 (PT, Fluorodeoxyglucose F^18^, 12 slices, not attenuation-corrected)" in str(error.value)
        assert not any(word in str(error.value).replace(str(patient), "") for word in NAMES)
        np.testing.assert_allclose(
            read(patient, series="7").affine, straight(image(OBLIQUE)).affine, atol=1e-5
        )
        with pytest.raises(InputError, match="required series 9; received series 1"):
            read(patient, series="9")

    @pytest.mark.parametrize("number", OTHER_SERIES)
    def test_what_is_no_corrected_fdg_is_not_taken_by_itself(self, tmp_path, number):
        path = write_series(tmp_path / "scan", image(), series=number, **OTHER_SERIES[number])
        with pytest.raises(
            InputError, match=rf"required one series of FDG-PET, corr.*received series {number} \("
        ):
            read(path)
        assert read(path, series=str(number)).data.shape == (16, 14, 12)

    def test_uncorrected_series_is_refused_though_it_is_named(self, tmp_path):
        path = write_series(tmp_path / "scan", image(), **OTHER_SERIES[4])
        with (
            as_nifti(path, series="3") as found,
            pytest.raises(InputError, match="corrected for attenuation"),
        ):
            require_fdg(read_facts(found))

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"half_life": "1224"}, "RadionuclideHalfLife of scan.json says 1224 s"),
            ({"description": "ADNI3_AV45 (AC)"}, "SeriesDescription of scan.json says AV45"),
            ({"description": "PET NAC", "corrections": (), "method": ""}, "corrected for attenuation"),
        ],
    )
    def test_header_that_names_no_tracer_may_tell_of_another_one(self, tmp_path, facts, reason):
        path = write_series(tmp_path / "scan", image(), tracer=("C-1", "99X", "Unspecified"), **facts)
        with as_nifti(path) as found, pytest.raises(InputError, match=reason):
            require_fdg(read_facts(found))

    def test_tracer_that_is_unspecified_is_not_given(self, tmp_path):
        assert read(write_series(tmp_path / "scan", image(), tracer=("C-1", "99X", "Unspecified"))).data.any()

    def test_each_study_below_a_folder_is_a_scan(self, tmp_path, scan):
        other = write_series(tmp_path / "ROE_RICHARD" / "deep" / "pet", image())
        assert dicom_scans(tmp_path) == [scan, other]


def spoiled(change):
    """Change a file of the series: one in its middle, or all."""

    def write(scan):
        for file in sorted(scan.iterdir())[change.get("files", slice(5, 6))]:
            content = file.read_bytes()
            file.unlink()
            if "bytes" in change:
                file.write_bytes(content[: change["bytes"]])
        return scan

    return write


def in_other_folder(name, write):
    """Write a file into another folder of the patient."""

    def make(scan):
        path = scan.parent / "other" / name
        path.parent.mkdir()
        write(path)
        return path if path.suffix == ".zip" else path.parent

    return make


def archive(*members):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members:
                packed.writestr(name, content)

    return in_other_folder("a.zip", write)


def write_damaged_lzma(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("a.dcm", np.random.default_rng(0).bytes(5000))
    content = bytearray(path.read_bytes())
    content[60:400] = bytes(340)
    path.write_bytes(content)


NONE = "required images in NIfTI or DICOM .*; received none"
BAD = {
    "cut slice": (spoiled({"bytes": -200}), "series 3 cannot be converted|slices of series 3 are missing"),
    "slice missing": (spoiled({}), "slices of series 3 are missing or damaged"),
    "headers alone": (spoiled({"bytes": 400, "files": slice(None)}), "received none|missing or damaged|cannot be"),
    "no images": (in_other_folder("note.txt", Path.touch), NONE),
    "DICOMDIR alone": (in_other_folder("DICOMDIR", dicom_files.write_directory), NONE),
    "damaged ZIP": (in_other_folder("a.zip", lambda path: path.write_bytes(b"PK\3\4 and no more")), "the ZIP is damaged"),
    "damaged LZMA": (in_other_folder("a.zip", write_damaged_lzma), "the ZIP is damaged"),
    "ZIP without images": (archive(("a.txt", "text")), NONE),
    "ZIP that leads out": (archive(("../../a.dcm", "x")), "paths leads out of the ZIP"),
    "ZIP of another root": (archive(("C:\\a.dcm", "x")), "paths leads out of the ZIP"),
    "ZIP too large": (archive(("a.dcm", bytes(2_000_001))), "and 2000000 bytes at most; received 1 and 2000001"),
    "ZIP of too many": (archive(*((f"{n}", "") for n in range(101))), "of 100 files and .*; received 101 and 0"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line_that_names_it(scan, monkeypatch, make, reason):
    monkeypatch.setattr(dicom, "MAX_FILES", 100)
    path = make(scan)
    with pytest.raises(InputError, match=reason) as error:
        read(path, max_bytes=2_000_000)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert "adpet-converted" not in str(error.value)


class TestOtherFormats:
    def test_what_nibabel_reads_is_read_with_its_sidecar(self, tmp_path):
        name = "scan.mgz"
        wanted = image(OBLIQUE)
        nib.save(nib.MGHImage(wanted.data, wanted.affine), tmp_path / name)
        (tmp_path / "scan.json").write_text('{"TracerName": "FDG"}')
        with as_nifti(tmp_path / name) as found:
            assert json.loads(found.with_suffix(".json").read_text()) == {"TracerName": "FDG"}
            volume = read_volume(found)
        np.testing.assert_allclose(volume.affine, straight(wanted).affine, atol=1e-4)
        np.testing.assert_array_equal(volume.data, straight(wanted).data)

    def test_minc_is_read(self):
        path = Path(nib.__file__).parent / "tests/data/small.mnc"
        np.testing.assert_allclose(read(path).data.sum(), np.asarray(nib.load(path).dataobj).sum(), rtol=1e-5)

    @pytest.mark.parametrize(
        ("name", "tool"),
        [
            ("a.v", "ecat2nii"), ("a.mnc", "mnc2nii"), ("a.PAR", "dcm2niix"), ("a.nrrd", "Slicer"), ("a.7z", "7z"),
        ],
    )  # fmt: skip
    def test_others_are_named_with_the_tool(self, tmp_path, name, tool):
        path = tmp_path / name
        path.write_bytes(b"MATRIX72v" + bytes(2000))
        with pytest.raises(InputError, match=f"{path}: .*{tool}"):
            read(path)


def test_nifti_is_yielded_as_it_is(tmp_path):
    write_volume(tmp_path / "scan.nii", image())
    for path in (tmp_path / "scan.nii", tmp_path, tmp_path / "missing.nii"):
        with as_nifti(path) as found:
            assert found == path
