import base64
import gzip
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_files import write_series

from adpet.errors import InputError
from adpet.imaging.dicom import as_nifti
from adpet.imaging.nifti import read_volume
from adpet.imaging.template import fdg_template
from adpet.inference import http
from adpet.inference.exported_model import open_model
from adpet.inference.http import Limits, answer_encoded
from adpet.inference.predictor import answer


@pytest.fixture(scope="module")
def model(small_export):
    return open_model(small_export)


@pytest.fixture(scope="module")
def sent(small_scans):
    return [base64.b64encode(path.read_bytes()).decode() for path in small_scans]


@pytest.fixture(scope="module")
def known(small_scans, model):
    """What the same code answers for the files."""
    return [
        answer(read_volume(path), model, name=f"scan {number}").document
        for number, path in enumerate(small_scans, 1)
    ]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where temporary files go; none may stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def as_text(content):
    return base64.b64encode(content).decode()


def test_scans_are_answered_in_order_as_predict_does(sent, model, known):
    assert answer_encoded(sent[0], model, Limits()) == known[:1]
    broken = "\n".join(sent[1][at : at + 76] for at in range(0, len(sent[1]), 76))
    assert answer_encoded([sent[0], broken, sent[2]], model, Limits()) == known


def test_answers_of_threads_are_not_mixed_up(sent, model, known):
    assert len({document["probability_of_ad"] for document in known}) == 3
    numbers = [0, 1, 2] * 6
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda number: answer_encoded(sent[number], model, Limits()), numbers))
    wanted = [known[number]["probability_of_ad"] for number in numbers]
    assert [one["probability_of_ad"] for (one,) in found] == wanted


def test_sent_sidecar_tells_the_scanners_resolution(sent, export_by_scanner, small_scans):
    model = open_model(export_by_scanner)
    one = {"scan": sent[0], "sidecar": {"ManufacturersModelName": "Discovery 690"}}
    known = answer(read_volume(small_scans[0]), model, name="scan 1", fwhm_mm=11.0)
    assert answer_encoded([one], model, Limits()) == [known.document]
    with pytest.raises(InputError, match="scan 1: scans are smoothed to 12 mm by scanner"):
        answer_encoded(sent[0], model, Limits())


def test_age_and_maps_are_those_of_predict(sent, model, small_scans):
    (found,) = answer_encoded(sent[0], model, Limits(), age=85.0, maps=True)
    known = answer(read_volume(small_scans[0]), model, name="scan 1", age=85.0)
    maps = found.pop("maps")
    assert found == known.document
    assert found["compared_at_age"] == 85.0
    for name, volume in known.volumes.items():
        image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(maps[name])))
        np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), volume.data)


@pytest.mark.parametrize(("scans", "age"), [(1, 300.0), (2, 70.0)])
def test_impossible_age_or_one_for_several_scans_is_refused(sent, model, scans, age):
    with pytest.raises(InputError, match=r"^age: required .*; received"):
        answer_encoded(sent[:scans], model, Limits(), age=age)


def test_refused_scan_is_answered_by_force_alone(model, small_scans, folder):
    image = nib.load(small_scans[2])
    turned = nib.Nifti1Image(image.get_fdata(dtype=np.float32)[:, ::-1], image.affine)
    text = as_text(turned.to_bytes())
    with pytest.raises(InputError, match=r"^scan 1: refused as unlike .*: similarity 0\.\d+, required 0\.5"):
        answer_encoded(text, model, Limits())
    (found,) = answer_encoded(text, model, Limits(), force=True)
    assert found["forced"]
    assert 0 < found["probability_of_ad"] < 1


def giant(content):
    """The same file with a header that claims 2,700 gigavoxels."""
    changed = bytearray(content)
    changed[42:48] = np.array([30000, 30000, 3000], dtype="<i2").tobytes()
    return bytes(changed)


def placed(content, affine):
    """The same file with another affine, as its sform has it."""
    changed = bytearray(content)
    changed[280:328] = affine[:3].astype("<f4").tobytes()
    return bytes(changed)


# Voxels of 8 mm by 8 mm by 30 mm that lie across the axes of the world.
ACROSS = np.eye(4)
ACROSS[:3, :3] = ([[2, -2, 1], [1, 2, 2], [-2, -1, 2]] @ np.diag([8, 8, 30])) / 3


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: "no base64 !", "required a NIfTI file or a ZIP of DICOM in base64; received other text"),
        (lambda _: "AAAA\u00e9", "required a NIfTI file or a ZIP of DICOM in base64; received other text"),
        (lambda _: "", "cannot be read as a NIfTI image"),
        (lambda _: as_text(b"hello" * 200), "cannot be read as a NIfTI image"),
        (lambda plain: as_text(plain[: len(plain) // 2]), "truncated: the header claims"),
        (lambda plain: as_text(gzip.compress(plain)[:-500]), "cannot be read as a NIfTI image"),
        (lambda plain: as_text(giant(plain)), "the header claims 2700000000000 voxels a frame, more than"),
        (
            lambda plain: as_text(placed(plain, np.diag([30.0, 30.0, 30.0, 1]))),
            "required a field of view of 490 litres (700 x 700 x 1000 mm) at most; received 1055 litres (990 x 1110 x 960 mm); cut",
        ),
        (lambda plain: as_text(placed(plain, ACROSS)), "required a field of view of 490 litres"),
        (lambda plain: as_text(plain[:352] + bytes(len(plain) - 352)), "the image is constant"),
    ],
)
def test_other_content_is_refused_in_one_line_without_a_path(make, reason, small_scans, model):
    with pytest.raises(InputError) as refused:
        answer_encoded(make(small_scans[2].read_bytes()), model, Limits())
    message = str(refused.value)
    assert message.startswith(f"scan 1: {reason}")
    assert "\n" not in message
    assert "/" not in message.replace("scan.nii", "")


def test_bad_scan_refuses_all_with_the_reason_for_each(sent, model, monkeypatch):
    monkeypatch.setattr(http, "answer", lambda *_, **__: pytest.fail("computed before all were looked at"))
    with pytest.raises(InputError) as refused:
        answer_encoded([sent[0], "no", sent[1], as_text(b"x" * 400)], model, Limits())
    assert "scan 2: required a NIfTI file or a ZIP of DICOM in base64" in str(refused.value)
    assert " | scan 4: cannot be read" in str(refused.value)
    assert "scan 1" not in str(refused.value)


@pytest.mark.parametrize(
    "other",
    [
        None,
        5,
        [],
        [1],
        {"scan": "x"},
        ["x", None],
        [{"scan": 1}],
        [{"name": "x"}],
        [{"scan": "x", "age": "7"}],
        pd.DataFrame({"scan": ["x"]}),
    ],
)
def test_other_types_are_refused(other, model):
    with pytest.raises(
        InputError, match="required a NIfTI file or a ZIP of DICOM in base64, or a list of them"
    ):
        answer_encoded(other, model, Limits())


class TestFacts:
    """Name and sidecar count over HTTP as they do for a file."""

    def test_sidecar_of_fdg_changes_nothing(self, sent, model, known):
        about = {"name": "sub-01_trc-18FFDG_pet.nii.gz", "sidecar": {"TracerName": "FDG"}}
        assert answer_encoded([{"scan": sent[0], **about}, sent[1]], model, Limits()) == known[:2]

    @pytest.mark.parametrize(
        ("about", "reason"),
        [
            ({"name": "sub-01_trc-18FAV45_pet.nii"}, "scan 1: required FDG; its name says 18FAV45"),
            ({"sidecar": {"Radiopharmaceutical": "PiB"}}, "Radiopharmaceutical of its sidecar says PiB"),
            ({"name": "a_NAC.nii"}, "required an image corrected for attenuation"),
        ],
    )
    def test_other_tracer_is_refused(self, sent, model, about, reason):
        with pytest.raises(InputError) as refused:
            answer_encoded([{"scan": sent[0], **about}], model, Limits())
        assert reason in str(refused.value)

    def test_late_frames_alone_are_answered_for_and_early_ones_without_times_refused(
        self, small_scans, model, known
    ):
        image = nib.load(small_scans[0])
        data = image.get_fdata(dtype=np.float32)
        frames = np.stack([data**2 * 0.1, data * 0.5, data], -1)
        scan = as_text(nib.Nifti1Image(frames, image.affine).to_bytes())
        times = {"FrameTimesStart": [0, 600, 1800], "FrameDuration": [600, 1200, 1800]}
        (found,) = answer_encoded([{"scan": scan, "sidecar": times}], model, Limits())
        assert found["probability_of_ad"] == pytest.approx(known[0]["probability_of_ad"], abs=1e-6)
        with pytest.raises(InputError, match="uptake grows more than"):
            answer_encoded(scan, model, Limits())


class TestLimits:
    def test_too_many_or_too_large_scans_are_refused_undecoded(self, model, sent):
        with pytest.raises(
            InputError, match=r"required 2 scans at most; received 3; .*ADPET_SERVE_MAX_SCANS"
        ):
            answer_encoded(["x"] * 3, model, Limits(scans=2))
        with pytest.raises(InputError, match=r"scan 1: required 1 MB at most; received more; .*MAX_MB"):
            answer_encoded("x" * 1_500_000, model, Limits(megabytes=1))

    def test_gzip_bomb_is_refused(self, model):
        bomb = as_text(gzip.compress(bytes(3_000_000)))
        with pytest.raises(InputError, match=r"required 2 MB at most when unpacked; .*MAX_UNPACKED_MB"):
            answer_encoded(bomb, model, Limits(unpacked_megabytes=2))

    def test_limits_are_set_by_the_environment(self, monkeypatch):
        monkeypatch.setenv("ADPET_SERVE_MAX_SCANS", "3")
        monkeypatch.setenv("ADPET_SERVE_MAX_MB", " 5 ")
        assert Limits.from_environment() == Limits(scans=3, megabytes=5)

    @pytest.mark.parametrize("wrong", ["0", "-1", "many", ""])
    def test_wrong_limit_is_refused_by_name(self, monkeypatch, wrong):
        monkeypatch.setenv("ADPET_SERVE_MAX_MB", wrong)
        with pytest.raises(InputError, match="ADPET_SERVE_MAX_MB: required a whole number above 0"):
            Limits.from_environment()


def test_zip_of_dicom_is_answered_as_its_folder_and_refused_alike(model, tmp_path_factory):
    template = fdg_template(6.0)
    patient = tmp_path_factory.mktemp("patient")
    write_series(patient / "pet", template, seconds=(300, 900))
    (patient / "pet" / "report.pdf").write_bytes(bytes(1_000_000))
    packed = Path(shutil.make_archive(f"{patient}/sent", "zip", patient / "pet"))
    with as_nifti(patient / "pet") as image:
        wanted = answer(read_volume(image, frame_seconds=[300, 900]), model, name="scan 1").document
    assert answer_encoded(as_text(packed.read_bytes()), model, Limits()) == [wanted]
    with pytest.raises(InputError, match=r"^scan 1: the ZIP is damaged"):
        answer_encoded(as_text(packed.read_bytes()[:-50]), model, Limits())
    with pytest.raises(InputError, match="and 1000000 bytes at most; received 65 and"):
        answer_encoded(as_text(packed.read_bytes()), model, Limits(unpacked_megabytes=1))
