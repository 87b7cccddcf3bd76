"""Odd files of real collections are read right or set aside with a reason, next to two good scans."""

import gzip
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_series
from programs import run_code

from adpet.cohort.reader import read_collection
from adpet.cohort.scans import write_table
from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume, write_volume

SHAPE = (10, 12, 9)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 2.0, 0, -20], [0, 0, 3.27, -11], [0, 0, 0, 1]])
DATA = np.random.default_rng(0).uniform(1, 900, SHAPE).round().astype(np.float32)
NAME = b"ROE^JANE^1931"


def read_specimen(flat):
    """Return the specimen's volume; the good scans must be there too, and nothing rejected."""
    found = read(flat.root)
    assert list(found.scans["subject"]) == ["1", "2", "specimen"]
    assert found.rejected.empty
    return read_volume(Path(found.scans["path"].iloc[-1]))


def reason_of(flat, path):
    """Return why the specimen was rejected; the good scans must be there."""
    found = read(flat.root)
    assert list(found.scans["subject"]) == ["1", "2"]
    (row,) = found.rejected.to_dict("records")
    assert Path(row["file"]) == path
    assert row["kind"] == "unusable"
    assert "\n" not in row["reason"]
    return row["reason"]


def read(root):
    return read_collection(
        root, layout="auto", table=None, diagnosis_column="diagnosis", diagnosis_map={"AD": "AD", "CN": "CN"}
    )


def image(data=DATA, affine=AFFINE, kind=nib.Nifti1Image):
    return kind(data, affine)


def patched(where, values):
    """Return a builder of a plain scan some of whose header's bytes are others."""

    def build(path):
        nib.save(image(), path)
        content = bytearray(path.read_bytes())
        content[where : where + len(values.tobytes())] = values.tobytes()
        path.write_bytes(content)

    return build


def saved(make):
    """Return a builder that saves the image that `make` returns."""
    return lambda path: nib.save(make(), path)


def with_holes():
    data = DATA.copy()
    data[0, 0, 0], data[1, 1, 1], data[2, 2, 2] = np.nan, np.inf, -np.inf
    return image(data)


def filled():
    data = DATA.copy()
    data[0, 0, 0] = data[1, 1, 1] = data[2, 2, 2] = 0
    return data


def in_conflict():
    one = image()
    one.set_qform(np.diag([1.0, 1, 1, 1]), code=1)
    one.set_sform(AFFINE, code=1)
    return one


def without_affine():
    one = image(affine=None)
    one.header.set_zooms((2, 2, 3.27))
    return one


def with_names():
    one = image()
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        one.header[field] = NAME
    for code in (2, 4, 6, 44):
        one.header.extensions.append(nib.nifti1.Nifti1Extension(code, NAME))
    return one


# What the file is called, how it is made, and the voxels and affine that must come of it (None: not compared).
READ = {
    "ANALYZE pair": ("scan.img", saved(lambda: image(affine=None, kind=nib.AnalyzeImage)), DATA[::-1], None),
    "packed ANALYZE pair": (
        "scan.hdr.gz", saved(lambda: image(affine=None, kind=nib.AnalyzeImage)), DATA[::-1], None
    ),
    "scl_slope 0": ("scan.nii", patched(112, np.float32([0])), DATA, AFFINE),
    "scl_slope NaN": ("scan.nii", patched(112, np.float32([np.nan])), DATA, AFFINE),
    "NaN and infinite voxels": ("scan.nii", saved(with_holes), filled(), AFFINE),
    "negative voxels": ("scan.nii", saved(lambda: image(DATA - 300)), DATA - 300, AFFINE),
    "sform and qform absent": ("scan.nii", saved(without_affine), DATA[::-1], None),
    "sform and qform in conflict": ("scan.nii", saved(in_conflict), DATA, AFFINE),
    "name with spaces, commas and letters of any language": (
        "Järvinen, пэт  1 (kopie).nii", saved(image), DATA, AFFINE
    ),
    "folder with such a name": ("Größe, neu/ 脳 .nii", saved(image), DATA, AFFINE),
    "names in the header and its extensions": ("scan.nii", saved(with_names), DATA, AFFINE),
}  # fmt: skip


@pytest.mark.parametrize("pitfall", READ)
def test_pitfall_is_read_right(flat, pitfall):
    name, build, data, affine = READ[pitfall]
    build(flat.row(name))
    volume = read_specimen(flat)
    np.testing.assert_allclose(volume.data, data, rtol=1e-6)
    if affine is not None:
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    assert volume.affine[2, 2] == pytest.approx(1 if pitfall.endswith("ANALYZE pair") else 3.27)


def content(content):
    return lambda path: path.write_bytes(content)


def pipe(path):
    os.mkfifo(path)


def outside(path):
    """Return a good scan outside of the collection."""
    root = next(parent for parent in path.parents if parent.name == "collection")
    nib.save(image(), root.parent / "outside.nii")
    return root.parent / "outside.nii"


def relinked(folder, target):
    folder.rmdir()
    folder.symlink_to(target)


# What the file is called, how it is made, and words of the reason for which it is set aside ("": any).
SET_ASIDE = {
    "dim larger than the file": ("scan.nii", patched(42, np.int16([400, 400, 109])), "truncated"),
    "pair without its voxels": (
        "scan.hdr", content(image(kind=nib.Nifti1Pair).header.binaryblock), "a pair has two files"
    ),
    "header that claims terabytes": (
        "scan.nii", patched(42, np.int16([30000, 30000, 30000])), "27000000000000 voxels"
    ),
    "negative dim": ("scan.nii", patched(42, np.int16([-10])), "at least 8 voxels along each axis"),
    "colours": (
        "scan.nii", saved(lambda: image(np.zeros(SHAPE, [(c, "u1") for c in "RGB"]))), "expected real voxels"
    ),
    "nothing there": ("scan.nii", lambda path: None, "listed, but not there"),
    "folder called .nii": ("scan.nii", lambda path: path.mkdir(), "name"),
    "pipe called .nii": ("scan.nii", pipe, ""),
    "link that leaves the tree": (
        "link.nii", lambda path: path.symlink_to(outside(path)), "leads out of"
    ),
    "linked folder that leaves the tree": (
        "folder/outside.nii", lambda path: relinked(path.parent, outside(path).parent), "leads out of"
    ),
    "link to itself": ("link.nii", lambda path: path.symlink_to(path), ""),
}  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither pipes nor links for everybody")
@pytest.mark.parametrize("pitfall", SET_ASIDE)
def test_pitfall_is_rejected_with_path_and_reason(flat, pitfall):
    name, build, words = SET_ASIDE[pitfall]
    path = flat.row(name)
    build(path)
    reason = reason_of(flat, path)
    assert reason
    assert words in reason


@pytest.mark.parametrize("value", [0, 7, np.nan], ids=["empty", "constant", "NaN everywhere"])
def test_constant_image_is_set_aside_when_its_voxels_are_read(flat, value):
    """Ingest reads headers alone; the next stage sets such a scan aside by this error."""
    path = flat.row("scan.nii")
    nib.save(image(np.full(SHAPE, value, np.float32)), path)
    with pytest.raises(InputError, match=r"scan\.nii: the image is constant .*: export the scan again"):
        read_specimen(flat)


def test_names_in_a_header_reach_no_table_and_no_volume(flat, tmp_path):
    nib.save(with_names(), flat.row("read.nii"))
    whole = (flat.root / "read.nii").read_bytes()
    assert whole.count(NAME) == 8
    # Cut short, or of an impossible type: error texts like to quote what they found.
    for number, keep in enumerate((120, 340, 700)):
        flat.row(f"cut{number}.nii", f"cut{number}").write_bytes(whole[:keep])
    odd = bytearray(whole)
    odd[70:74] = np.int16([999, 99]).tobytes()
    flat.row("odd.nii", "odd").write_bytes(odd)
    flat.row("pure.nii", "pure").write_bytes(NAME * 400)
    found = read(flat.root)
    assert len(found.scans) == 3
    assert len(found.rejected) == 5
    write_table(tmp_path / "scans.csv", found.scans)
    write_table(tmp_path / "rejected.csv", found.rejected)
    write_volume(tmp_path / "out.nii", read_volume(flat.root / "read.nii"))
    for name in ("scans.csv", "rejected.csv", "out.nii"):
        written = (tmp_path / name).read_bytes()
        assert not [part for part in (NAME, b"ROE", b"JANE") if part in written]


READ_COLLECTION = """
import re, sys
from pathlib import Path
from adpet.cohort.reader import read_collection
from adpet.errors import InputError
from adpet.imaging.nifti import read_volume
found = read_collection(Path(sys.argv[1]), layout="folder", table=None, diagnosis_column="",
                        diagnosis_map={"AD": "AD", "CN": "CN"})
for path in sorted(Path(sys.argv[1]).glob("*.nii*")):
    try:
        read_volume(path)
    except InputError as error:
        assert path.name in str(error)
# Of this process alone: getrusage also counts what the process that started it had in memory.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(len(found.scans), len(found.rejected), int(peak) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_headers_that_claim_gigabytes_take_no_memory(flat):
    """All of them together, read in a process of their own: the limit asked for is 2 GiB."""
    traps = {
        "cube": np.int16([30000, 30000, 30000]),
        "slab": np.int16([4000, 4000, 400]),
        "plate": np.int16([512, 512, 250]),
    }
    for name, dim in traps.items():
        plain = flat.row(f"{name}.nii", name)
        patched(42, dim)(plain)
        packed = flat.row(f"{name}.nii.gz", f"{name}-packed")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
    # Many frames, and bytes without end behind a small image.
    patched(40, np.int16([4, 10, 12, 9, 32000]))(flat.row("frames.nii", "frames"))
    with gzip.open(flat.row("bomb.nii.gz", "bomb"), "wb") as file:
        file.write((flat.root / "ad.nii").read_bytes())
        for _ in range(200):
            file.write(bytes(2**20))
    scans, rejected, peak_mib = map(int, run_code(READ_COLLECTION, flat.root).stdout.split())
    # The image before the bomb is whole, and read.
    assert (scans, rejected) == (3, 7)
    assert peak_mib < 800


class TestDicom:
    @pytest.fixture
    def series(self, flat):
        """Write a series for the specimen; returns the function that does."""

        def write(place, **options):
            write_series(flat.root / place, Volume(DATA, AFFINE), **options)

        return write

    def test_dynamic_series_of_a_folder_is_read_with_its_frame_times(self, flat, series):
        series("DOE", seconds=(300, 600))
        flat.row("DOE", "specimen")
        found = read(flat.root).scans.iloc[-1]
        assert (found["path"][-4:], found["frame_seconds"]) == ("/DOE", "300 600")

    def test_one_image_under_two_patients_names_is_found(self, flat, series):
        for name, subject in (("DOE", "3"), ("ROE", "4")):
            series(name, series=int(subject))
            flat.row(name, subject)
        found = read(flat.root)
        assert list(found.scans["subject"]) == ["1", "2"]
        assert {row["reason"] for row in found.rejected.to_dict("records")} == {
            "subject 3 has the same image as another subject", "subject 4 has the same image as another subject"
        }  # fmt: skip

    def test_folder_without_fdg_is_set_aside_with_what_it_has(self, flat, series):
        series("DOE", modality="CT")
        flat.row("DOE", "specimen")
        assert "received series 3 (CT, 9 slices)" in reason_of(flat, flat.root / "DOE")

    def test_folder_whose_header_tells_of_another_nuclide_is_set_aside(self, flat, series):
        series("DOE", tracer=("C-1", "99X", "Unspecified"), half_life="1224")
        flat.row("DOE", "specimen")
        assert "RadionuclideHalfLife of its header says 1224 s" in reason_of(flat, flat.root / "DOE")
