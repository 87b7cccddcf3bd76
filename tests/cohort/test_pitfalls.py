"""The pitfall zoo: each thing that real collections hold and a reader stumbles over, as a real file.

Every specimen lies beside two good scans in a collection, which must come whatever the specimen is. It is read
right, or it is set aside with its path and a reason that a technician understands. The finer points of a pitfall
are tested with the module: test_nifti.py, test_reader.py, test_adni.py, test_bids.py.
"""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from adpet.cohort.reader import read_collection
from adpet.cohort.scans import write_rejected, write_scans
from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.normalization import load_standard, normalize, to_suvr
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import SimulationRecipe, draw_cohort, simulate_scan
from adpet.simulation.scanner import HEAD_CENTRE

SHAPE = (10, 12, 9)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 2.0, 0, -20], [0, 0, 3.27, -11], [0, 0, 0, 1]])
DATA = np.random.default_rng(0).uniform(1, 900, SHAPE).round().astype(np.float32)
ANGLE = np.radians(20)
OBLIQUE = np.eye(4)
OBLIQUE[:2, :2] = [[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]
NAME = b"ROE^JANE^1931"


@pytest.fixture
def collection(flat):
    """Two good scans, one of each diagnosis; tests add a specimen."""
    return flat


def read_specimen(collection):
    """Return the specimen's volume; the good scans must be there too, and nothing rejected."""
    found = read(collection.root)
    assert list(found.scans["subject"]) == ["1", "2", "specimen"]
    assert found.rejected.empty
    return read_volume(Path(found.scans["path"].iloc[-1]))


def reason_of(collection, path):
    """Return why the specimen was rejected; the good scans must be there."""
    found = read(collection.root)
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


def big_endian():
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    return nib.Nifti1Image(DATA.astype(">i2"), AFFINE, header)


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


def flipped():
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, 0] * (SHAPE[0] - 1)
    affine[:3, 0] *= -1
    return image(DATA[::-1], affine)


def with_names():
    one = image()
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        one.header[field] = NAME
    for code in (2, 4, 6, 44):
        one.header.extensions.append(nib.nifti1.Nifti1Extension(code, NAME))
    return one


# What the file is called, how it is made, and the voxels and affine that must come of it (None: not compared).
READ = {
    "4D with a trailing axis of 1": ("scan.nii", saved(lambda: image(DATA[..., None])), DATA, AFFINE),
    "4D dynamic": ("scan.nii.gz", saved(lambda: image(np.stack([DATA, DATA + 6], -1))), DATA + 3, AFFINE),
    "NIfTI-2": ("scan.nii", saved(lambda: image(kind=nib.Nifti2Image)), DATA, AFFINE),
    "NIfTI pair": ("scan.img", saved(lambda: image(kind=nib.Nifti1Pair)), DATA, AFFINE),
    "ANALYZE pair": ("scan.img", saved(lambda: image(affine=None, kind=nib.AnalyzeImage)), DATA[::-1], None),
    "packed ANALYZE pair": (
        "scan.hdr.gz", saved(lambda: image(affine=None, kind=nib.AnalyzeImage)), DATA[::-1], None
    ),
    "big-endian": ("scan.nii", saved(big_endian), DATA, AFFINE),
    "scl_slope 0": ("scan.nii", patched(112, np.float32([0])), DATA, AFFINE),
    "scl_slope NaN": ("scan.nii", patched(112, np.float32([np.nan])), DATA, AFFINE),
    "NaN and infinite voxels": ("scan.nii", saved(with_holes), filled(), AFFINE),
    "negative voxels": ("scan.nii", saved(lambda: image(DATA - 300)), DATA - 300, AFFINE),
    "sform and qform absent": ("scan.nii", saved(without_affine), DATA[::-1], None),
    "sform and qform in conflict": ("scan.nii", saved(in_conflict), DATA, AFFINE),
    "oblique affine": ("scan.nii", saved(lambda: image(affine=OBLIQUE @ AFFINE)), DATA, OBLIQUE @ AFFINE),
    "left-right flipped storage": ("scan.nii", saved(flipped), DATA, AFFINE),
    "name with spaces, commas and letters of any language": (
        "Järvinen, пэт  1 (kopie).nii", saved(image), DATA, AFFINE
    ),
    "folder with such a name": ("Größe, neu/ 脳 .nii", saved(image), DATA, AFFINE),
    "names in the header and its extensions": ("scan.nii", saved(with_names), DATA, AFFINE),
}  # fmt: skip


@pytest.mark.parametrize("pitfall", READ)
def test_pitfall_is_read_right(collection, pitfall):
    name, build, data, affine = READ[pitfall]
    build(collection.row(name))
    volume = read_specimen(collection)
    np.testing.assert_allclose(volume.data, data, rtol=1e-6)
    if affine is not None:
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    assert volume.affine[2, 2] == pytest.approx(1 if pitfall.endswith("ANALYZE pair") else 3.27)


@pytest.mark.parametrize(
    "zooms", [(2.0, 2.0, 3.27), (2.57, 2.57, 2.43), (1.2, 1.2, 1.2), (1.0182, 1.0182, 2.027)]
)
def test_anisotropic_voxels_keep_their_edges(collection, zooms):
    nib.save(image(affine=np.diag([*zooms, 1])), collection.row("scan.nii"))
    np.testing.assert_allclose(np.diag(read_specimen(collection).affine)[:3], zooms, rtol=1e-6)


@pytest.mark.parametrize(
    "matrix", [(128, 128, 63), (256, 256, 207), (400, 400, 109), (336, 336, 109), (168, 168, 81)]
)
def test_matrices_of_all_scanners_are_read(collection, matrix):
    data = np.zeros(matrix, dtype=np.uint8)
    data[60:70, 60:70, 30:40] = 9
    path = collection.row("scan.nii")
    nib.save(image(data, np.diag([2.0, 2, 2, 1])), path)
    volume = read_specimen(collection)
    assert volume.data.shape == matrix
    assert volume.data.sum() == 9000


class TestFrames:
    def test_dynamic_scans_are_weighted_by_the_durations_that_are_known(self, bids_tree):
        bids_tree.json("pet.json", TracerName="FDG", FrameDuration=[300, 600])
        for number, diagnosis in enumerate(("AD", "CN")):
            bids_tree.person(f"0{number}", diagnosis)
        path = bids_tree.scan("sub-00_pet.nii")
        nib.save(image(np.stack([DATA, DATA + 9], -1)), path)
        bids_tree.scan("sub-01_pet.nii")
        scans = read(bids_tree.root).scans
        assert list(scans["diagnosis"]) == ["AD", "CN"]
        seconds = [float(value) for value in scans["frame_seconds"][0].split()]
        np.testing.assert_allclose(read_volume(path, frame_seconds=seconds).data, DATA + 6, rtol=1e-6)

    def test_one_scan_split_over_six_files_is_one_scan(self, adni_tree):
        raw = "ADNI Brain PET: Raw FDG"
        adni_tree.image("I1", "941_S_6962", "AD")
        adni_tree.row("I2", "002_S_0001", "CN", description=raw)
        for frame in range(6):
            name = f"ADNI_002_S_0001_PT_{frame + 1}_S9_I2.nii"
            nib.save(image(DATA + 2 * frame), adni_tree.file("I2", "002_S_0001", description=raw, name=name))
            folder = adni_tree.root / "ADNI/002_S_0001/ADNI_Brain_PET__Raw_FDG/2021-08-10_10_15_20.0/I2"
        collection = read(adni_tree.root)
        assert sorted(collection.scans["diagnosis"]) == ["AD", "CN"]
        assert Path(collection.scans.set_index("diagnosis")["path"]["CN"]) == folder
        np.testing.assert_allclose(read_volume(folder).data, DATA + 5, rtol=1e-6)


def cut(share):
    def build(path):
        nib.save(image(), path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return build


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
    "truncated file": ("scan.nii", cut(0.7), "truncated: the header claims 4320 bytes of voxels"),
    "truncated in the header": ("scan.nii", cut(0.05), "cannot be read as a NIfTI image"),
    "truncated gzip": ("scan.nii.gz", cut(0.7), "copy, decompress or convert the scan again"),
    "dim larger than the file": ("scan.nii", patched(42, np.int16([400, 400, 109])), "truncated"),
    "zero-byte file": ("scan.nii", content(b""), "cannot be read as a NIfTI image"),
    "zero-byte gzip": ("scan.nii.gz", content(b""), "cannot be read as a NIfTI image"),
    "text called .nii": ("scan.nii", content(b"Dear colleague, " * 99), "cannot be read as a NIfTI image"),
    "DICOM called .nii": (
        "scan.nii", content(bytes(128) + b"DICM" + bytes(9000)), "cannot be read as a NIfTI image"
    ),
    "header of zeros": ("scan.nii", content(bytes(5000)), "cannot be read as a NIfTI image"),
    "pair without its voxels": (
        "scan.hdr", content(image(kind=nib.Nifti1Pair).header.binaryblock), "a pair has two files"
    ),
    "header that claims terabytes": (
        "scan.nii", patched(42, np.int16([30000, 30000, 30000])), "27000000000000 voxels"
    ),
    "negative dim": ("scan.nii", patched(42, np.int16([-10])), "at least 8 voxels along each axis"),
    "single slice": ("scan.nii", saved(lambda: image(DATA[:, :, :1])), "give the whole volume"),
    "colours": (
        "scan.nii", saved(lambda: image(np.zeros(SHAPE, [(c, "u1") for c in "RGB"]))), "expected real voxels"
    ),
    "affine of NaN": ("scan.nii", patched(280, np.full(12, np.nan, np.float32)), "no usable affine"),
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
def test_pitfall_is_rejected_with_path_and_reason(collection, pitfall):
    name, build, words = SET_ASIDE[pitfall]
    path = collection.row(name)
    build(path)
    reason = reason_of(collection, path)
    assert reason
    assert words in reason


@pytest.mark.parametrize("value", [0, 7, np.nan], ids=["empty", "constant", "NaN everywhere"])
def test_constant_image_is_set_aside_when_its_voxels_are_read(collection, value):
    """Ingest reads headers alone; the next stage sets such a scan aside by this error."""
    path = collection.row("scan.nii")
    nib.save(image(np.full(SHAPE, value, np.float32)), path)
    with pytest.raises(InputError, match=r"scan\.nii: the image is constant .*: export the scan again"):
        read_specimen(collection)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 3e-7, 55000.0], ids=["Bq/mL", "kBq/mL", "SUV", "counts"])
def test_unit_cancels_out_of_suvr(collection, unit):
    nib.save(image(DATA * np.float32(unit)), collection.row("scan.nii"))
    everywhere = np.ones(SHAPE, dtype=bool)
    suvr = to_suvr(read_specimen(collection).data, everywhere)
    np.testing.assert_allclose(suvr, DATA / DATA.mean(), rtol=1e-5)


@pytest.fixture(scope="module")
def head():
    """A simulated head in MNI space."""
    recipe = SimulationRecipe(pose=0)
    row = draw_cohort(recipe).query("site == 'S03'").iloc[0].to_dict()
    volume = simulate_scan(row, recipe, load_anatomy()).volume
    affine = volume.affine.copy()
    affine[:3, 3] += HEAD_CENTRE
    return Volume(volume.data, affine)


class TestPartialHead:
    """A scanner's field of view that ends in the head, on a simulated head whose place is known."""

    def similarity(self, path):
        standard = load_standard(grid_mm=3.0, reference="global", align="affine")
        return normalize(read_volume(path), standard)[1].similarity

    def part(self, head, path, first, last):
        affine = head.affine.copy()
        affine[:3, 3] += affine[:3, 2] * first
        write_volume(path, Volume(head.data[:, :, first:last], affine), dtype=np.int16)
        return path

    def test_most_of_a_head_is_read_and_aligns(self, collection, head):
        path = self.part(head, collection.row("scan.nii"), 0, 52)
        read_specimen(collection)
        assert self.similarity(path) > 0.6

    def test_half_a_head_has_a_low_similarity(self, collection, head):
        """Below 0.5, normalize.min_similarity, the stage sets it aside."""
        path = self.part(head, collection.row("scan.nii"), 25, 63)
        read_specimen(collection)
        assert self.similarity(path) < 0.5

    def test_less_than_half_a_head_is_refused_with_the_share_in_view(self, collection, head):
        path = self.part(head, collection.row("scan.nii"), 0, 18)
        read_specimen(collection)
        with pytest.raises(InputError, match=r"\d+% of the brain lies in the scanner's view"):
            self.similarity(path)


class TestNames:
    def test_names_in_a_header_reach_no_table_and_no_volume(self, collection, tmp_path):
        nib.save(with_names(), collection.row("read.nii"))
        whole = (collection.root / "read.nii").read_bytes()
        assert whole.count(NAME) == 8
        # Cut short, or of an impossible type: error texts like to quote what they found.
        for number, keep in enumerate((120, 340, 700)):
            collection.row(f"cut{number}.nii", f"cut{number}").write_bytes(whole[:keep])
        odd = bytearray(whole)
        odd[70:74] = np.int16([999, 99]).tobytes()
        collection.row("odd.nii", "odd").write_bytes(odd)
        collection.row("pure.nii", "pure").write_bytes(NAME * 400)
        found = read(collection.root)
        assert len(found.scans) == 3
        assert len(found.rejected) == 5
        write_scans(tmp_path / "scans.csv", found.scans)
        write_rejected(tmp_path / "rejected.csv", found.rejected)
        write_volume(tmp_path / "out.nii", read_volume(collection.root / "read.nii"))
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
def test_headers_that_claim_gigabytes_take_no_memory(collection):
    """All of them together, read in a process of their own: the limit asked for is 2 GiB."""
    traps = {
        "cube": np.int16([30000, 30000, 30000]),
        "slab": np.int16([4000, 4000, 400]),
        "plate": np.int16([512, 512, 250]),
    }
    for name, dim in traps.items():
        plain = collection.row(f"{name}.nii", name)
        patched(42, dim)(plain)
        packed = collection.row(f"{name}.nii.gz", f"{name}-packed")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
    # Many frames, and bytes without end behind a small image.
    patched(40, np.int16([4, 10, 12, 9, 32000]))(collection.row("frames.nii", "frames"))
    with gzip.open(collection.row("bomb.nii.gz", "bomb"), "wb") as file:
        file.write((collection.root / "ad.nii").read_bytes())
        for _ in range(200):
            file.write(bytes(2**20))
    # An archive that lies about its length is caught when it is read, which takes what it claims.
    plain = collection.row("liar.nii", "liar")
    saved(lambda: image(DATA.astype(np.float64)))(plain)
    claimed = bytearray(plain.read_bytes())
    claimed[42:48] = np.int16([512, 512, 250]).tobytes()
    archive = bytearray(gzip.compress(bytes(claimed)))
    archive[-4:] = np.uint32([352 + 8 * 512 * 512 * 250]).tobytes()
    collection.row("liar.nii.gz", "liar-packed").write_bytes(archive)
    done = subprocess.run(
        [sys.executable, "-c", READ_COLLECTION, str(collection.root)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    scans, rejected, peak_mib = map(int, done.stdout.split())
    # The image before the bomb is whole, and read; so are both of the liar to ingest, which reads no voxel.
    assert (scans, rejected) == (5, 7)
    assert peak_mib < 800
