"""The browser reads the files that Python reads, to the same voxels, and refuses the others in the same words."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_volume, write_volume

SHAPE = (10, 12, 9)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 2.5, 0, -20], [0, 0, 3.0, -11], [0, 0, 0, 1]])
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
AXES = ("RAS", "LAS", "LPS", "PIR", "SLA", "IAL", "ARS")


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).uniform(0, 50, SHAPE).astype(np.float32)


def oblique(degrees, shear=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[0, 1] += shear
    return matrix


class Files:
    """Writes files one by one, and keeps their names."""

    def __init__(self, folder):
        self.folder = folder
        self.paths = {}

    def add(self, name, content, *, ending="nii"):
        path = self.folder / f"{len(self.paths):03d}.{ending}"
        path.write_bytes(content)
        self.paths[name] = path

    def image(self, name, data, affine, *, kind=nib.Nifti1Image, change=None, ending="nii"):
        self.add(name, nifti(data, affine, kind=kind, change=change), ending=ending)

    def read_by(self, run_port):
        found = run_port(self.folder / "out", [(path.name, path, {}) for path in self.paths.values()])
        return {name: Both(path, found) for name, path in self.paths.items()}


class Both:
    """What both sides make of one file: voxels and affine, or a sentence."""

    def __init__(self, path, found):
        self.path = path
        scan = found.scan(path.name)
        self.browser_says = scan.get("refused")
        self.python_says = None
        try:
            self.expected = read_volume(path)
        except InputError as error:
            self.python_says = str(error).replace(str(path), path.name)
        if self.browser_says is None:
            self.data, self.affine = found.ras(path.name), np.array(scan["affine"])

    def agree(self):
        assert (self.browser_says, self.python_says) == (None, None)
        np.testing.assert_array_equal(self.data, self.expected.data)
        np.testing.assert_allclose(self.affine, self.expected.affine, rtol=1e-7, atol=1e-6)


def nifti(data, affine, *, kind=nib.Nifti1Image, change=None):
    """Return a file's bytes, its header changed before it is written."""
    image = kind(data, affine, dtype=data.dtype)
    image.set_sform(affine, code=1)
    content = bytearray(image.to_bytes())
    header = kind.header_class(bytes(content[: kind.header_class.sizeof_hdr]))
    if change:
        change(header)
    content[: len(header.binaryblock)] = header.binaryblock
    return bytes(content)


def setting(**fields):
    def change(header):
        for field, value in fields.items():
            header[field] = value

    return change


def quaternion(affine, *, broken=False):
    """Leave the place to the qform; or to the sform, where the quaternion is no turn."""

    def change(header):
        header.set_sform(None, code=1 if broken else 0)
        header.set_qform(affine, code=1)
        if broken:
            header["quatern_b"] = 1.5

    return change


@pytest.fixture(scope="module")
def good(run_port, tmp_path_factory, data):
    files = Files(tmp_path_factory.mktemp("good"))
    counts = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    for dtype in DTYPES:
        stored = (counts % 120).astype(dtype)
        files.image(f"voxels {dtype}", stored, AFFINE)
        files.image(f"voxels {dtype}, big-endian and scaled", stored, AFFINE)
        path = files.paths[f"voxels {dtype}, big-endian and scaled"]
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(np.dtype(dtype).newbyteorder(">"))
        header.set_data_shape(SHAPE)
        header.set_sform(AFFINE, code=1)
        header.set_slope_inter(0.3, -2)
        header["vox_offset"] = 352
        voxels = stored.astype(np.dtype(dtype).newbyteorder(">"))
        path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes(order="F"))
    for axes in AXES:
        for name, turn in (
            ("straight", np.eye(4)),
            ("oblique", oblique((20, -15, 30))),
            # Halfway between two axes, the last bits of an affine decide, and either order is right.
            ("nearly halfway about x", oblique((44.99, 0, 0))),
            ("nearly halfway about z", oblique((0, 0, 45.01))),
            ("sheared", oblique((5, 5, 5), shear=0.4)),
        ):
            ornt = axcodes2ornt(axes)
            shape = [SHAPE[int(axis)] for axis in np.argsort(ornt[:, 0])]
            affine = turn @ AFFINE @ np.linalg.inv(inv_ornt_aff(ornt, SHAPE)) if shape else turn
            files.image(f"{axes}, {name}", data, affine)
    files.image("NIfTI-2", data, AFFINE, kind=nib.Nifti2Image)
    files.image("a quaternion", data, AFFINE, change=quaternion(oblique((10, 160, -40)) @ AFFINE))
    mirrored = oblique((10, 20, -40)) @ AFFINE @ np.diag([1, 1, -1, 1])
    files.image("a mirrored quaternion", data, AFFINE, change=quaternion(mirrored))
    files.image("half a turn", data, AFFINE, change=quaternion(oblique((180, 0, 0)) @ AFFINE))
    files.image("a quaternion in NIfTI-2", data, AFFINE, kind=nib.Nifti2Image, change=quaternion(mirrored))
    files.image("a broken quaternion beside an sform", data, AFFINE, change=quaternion(AFFINE, broken=True))
    files.image("no place at all", data, AFFINE, change=setting(sform_code=0, qform_code=0))
    files.image("an unknown code", data, AFFINE, change=setting(sform_code=77, qform_code=0))
    files.image(
        "a broken sform beside a qform",
        data,
        AFFINE,
        change=lambda header: (header.set_qform(AFFINE, code=1), setting(srow_x=0)(header)),
    )
    files.image(
        "edges of 0 and below 0",
        data,
        AFFINE,
        change=setting(sform_code=0, qform_code=0, pixdim=[5, 0, -2, 3, 1, 1, 1, 1]),
    )
    for slope in (0, np.nan, np.inf):
        files.image(f"slope {slope}", data, AFFINE, change=setting(scl_slope=slope, scl_inter=3))
    odd = data.copy()
    odd[1, 2, 3], odd[4, 5, 6], odd[7, 8, 0] = np.nan, np.inf, -np.inf
    files.image("voxels that are no numbers", odd, AFFINE)
    files.image("voxels too large for single precision", odd.astype(np.float64) * 1e38, AFFINE)
    frames = np.stack([data, data**1.5, 3 - data], axis=-1)
    files.image("frames", frames, AFFINE)
    files.image("frames and a trailing axis", frames[..., None], AFFINE)
    for trailing in ((1,), (1, 1), (1, 1, 1, 1)):
        files.image(f"trailing axes {trailing}", data.reshape(SHAPE + trailing), AFFINE)
    whole = nifti(data, AFFINE)
    files.add("gzipped", gzip.compress(whole), ending="nii.gz")
    files.add("gzipped in pieces", gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]), ending="nii.gz")
    files.add(
        "gzipped with a name",
        b"\x1f\x8b\x08\x08" + bytes(6) + b"a\0" + gzip.compress(whole)[10:],
        ending="NII.GZ",
    )
    noisy = np.random.default_rng(5).normal(0, 1, (70, 80, 60)).astype(np.float32)
    files.add("gzipped, large", gzip.compress(nifti(noisy, AFFINE), 1), ending="nii.gz")
    image = nib.Nifti1Image(data, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    files.add("an extension", image.to_bytes())
    files.add("more bytes than voxels", whole + b"more")
    files.add(
        "a gap before the voxels",
        whole[:108] + np.float32(1000).tobytes() + whole[112:352] + bytes(648) + whole[352:],
    )
    return files.read_by(run_port)


def test_what_python_reads_is_read_to_the_same_voxels_and_place(good):
    for name, both in good.items():
        try:
            both.agree()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


@pytest.fixture(scope="module")
def bad(run_port, tmp_path_factory, data):
    files = Files(tmp_path_factory.mktemp("bad"))
    whole = nifti(data, AFFINE)
    packed = gzip.compress(whole)
    dicom = bytes(128) + b"DICM" + bytes(5000)
    for ending in ("nii", "nii.gz"):
        for name, content in {
            "nothing": b"",
            "text": b"subject,diagnosis\n",
            "zeros": bytes(400),
            "DICOM": dicom,
            "a picture": b"\x89PNG\r\n\x1a\n" + bytes(900),
        }.items():
            files.add(f"{name} called .{ending}", content, ending=ending)
    files.add("NIfTI that is called a gzip", whole, ending="nii.gz")
    files.add("a gzip that is not called so", packed)
    files.add("no ending", whole, ending="dat")
    for keep in (100, 347, 352, 2000, -1):
        files.add(f"cut to {keep}", whole[:keep])
    files.add("too few voxels in a gzip", gzip.compress(whole[:-1]), ending="nii.gz")
    noisy = gzip.compress(nifti(np.random.default_rng(1).random((64, 64, 40), dtype=np.float32), AFFINE), 1)
    files.add("a cut gzip", noisy[: len(noisy) // 2], ending="nii.gz")
    files.add("a wrong checksum", packed[:-8] + bytes(4) + packed[-4:], ending="nii.gz")
    for axis, claim in (
        ("27 terabytes", (3, 30000, 30000, 30000, 1, 1, 1, 1)),
        ("65 million frames", (4, 400, 400, 400, 32767, 1, 1, 1)),
    ):
        files.image(f"a claim of {axis}", data, AFFINE, change=setting(dim=claim))
    files.image("a packed claim", data, AFFINE, change=setting(dim=(3, 400, 400, 400, 1, 1, 1, 1)))
    files.paths["a packed claim"].rename(files.folder / "claim.nii.gz")
    files.paths["a packed claim"] = files.folder / "claim.nii.gz"
    files.paths["a packed claim"].write_bytes(
        gzip.compress(nifti(data, AFFINE, change=setting(dim=(3, 400, 400, 400, 1, 1, 1, 1))))
    )
    for shape in ((10, 12), (10, 12, 7), (10, 12, 1, 20), (10, 12, 9, 2, 3), (10, 12, 9, 0)):
        files.image(f"shape {shape}", np.ones(shape, np.float32), AFFINE)
    files.image("no axes", data, AFFINE, change=setting(dim=0))
    files.image("an axis below 0", data, AFFINE, change=setting(dim=(3, -10, 12, 9, 1, 1, 1, 1)))
    for value in (0.0, 7.5, -1234567.0, 1e-7):
        files.image(f"everywhere {value}", np.full(SHAPE, value, np.float32), AFFINE)
    files.image("everywhere nan", np.full(SHAPE, np.nan, np.float32), AFFINE)
    files.image("complex", data.astype(np.complex64), AFFINE)
    files.image("complex, double", data.astype(np.complex128), AFFINE)
    files.image("colours", np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE)
    for code in (0, 1, 3, 1536):
        files.image(f"voxels of type {code}", data, AFFINE, change=setting(datatype=code))
    for name, affine in {
        "no second axis": np.diag([2.0, 0, 2, 1]),
        "two axes alike": np.array([[2.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        "not finite": np.diag([2.0, np.nan, 2, 1]),
        "metres": np.diag([0.002, 0.002, 0.002, 1]),
    }.items():
        rows = dict(zip(("srow_x", "srow_y", "srow_z"), affine[:3], strict=True))
        files.image(f"an affine with {name}", data, AFFINE, change=setting(qform_code=0, **rows))
    files.image(
        "a quaternion that is no turn",
        data,
        AFFINE,
        change=lambda header: (quaternion(AFFINE)(header), setting(quatern_b=1.5)(header)),
    )
    files.image(
        "an intercept that is not finite", data, AFFINE, change=setting(scl_slope=2, scl_inter=np.inf)
    )
    files.image("voxels within the header", data, AFFINE, change=setting(vox_offset=100))
    files.image("voxels nowhere", data, AFFINE, change=setting(vox_offset=2e9))
    files.image(
        "converted line ends", data, AFFINE, kind=nib.Nifti2Image, change=setting(eol_check=(10, 26, 10, 0))
    )
    files.image("surfaces", data, AFFINE, kind=nib.Nifti2Image, change=setting(intent_code=3006))
    return files.read_by(run_port)


# Where the two libraries that unpack and read have words of their own; what is said around them is the same.
OWN_WORDS = ("surfaces", "a cut gzip")


def test_what_python_refuses_is_refused_in_the_same_words(bad):
    for name, both in bad.items():
        assert both.browser_says is not None, name
        assert both.python_says is not None, name
        assert "\n" not in both.browser_says
        assert both.browser_says.startswith(f"{both.path.name}: ")
        if name not in OWN_WORDS:
            assert both.browser_says == both.python_says, name


def test_more_frames_than_nifti_1_can_count_are_refused(run_port, tmp_path, data):
    def claimed(frames):
        path = tmp_path / f"{frames}.nii"
        change = setting(dim=(4, *SHAPE, frames, 1, 1, 1))
        path.write_bytes(nifti(data, AFFINE, kind=nib.Nifti2Image, change=change))
        return path.name, path, {}

    found = run_port(tmp_path / "out", [claimed(frames) for frames in (32767, 32768, 2**53)])
    assert "truncated" in found.scan("32767.nii")["refused"]
    for frames in (32768, 2**53):
        assert found.scan(f"{frames}.nii")["refused"] == (
            f"{frames}.nii: the header claims {frames} frames, more than the 32767 allowed: export the scan again"
        )


def test_half_a_pair_is_refused(run_port, tmp_path, data):
    nib.save(nib.Nifti1Pair(data, AFFINE), tmp_path / "pair.img")
    for ending in ("img", "hdr"):
        found = run_port(tmp_path / ending, [("pair", tmp_path / f"pair.{ending}", {})])
        assert "half a pair" in found.scan("pair")["refused"]


def test_damaged_headers_are_read_or_refused_as_python_does(run_port, tmp_path):
    rng = np.random.default_rng(7)
    files = Files(tmp_path)
    for number in range(400):
        kind = (nib.Nifti1Image, nib.Nifti2Image)[number % 2]
        content = bytearray(nifti(np.arange(1080, dtype=np.int16).reshape(SHAPE), AFFINE, kind=kind))
        for where in rng.integers(0, kind.header_class.sizeof_hdr, rng.integers(1, 9)):
            content[where] = rng.integers(256)
        files.add(number, bytes(content))
    for number, both in files.read_by(run_port).items():
        if both.python_says is None:
            assert both.browser_says is None, (number, both.browser_says)
            np.testing.assert_array_equal(both.data, both.expected.data)
            np.testing.assert_allclose(both.affine, both.expected.affine, rtol=1e-5)
        else:
            assert both.browser_says is not None, (number, both.python_says)
            assert "\n" not in both.browser_says


def test_what_is_written_is_what_python_writes(run_port, tmp_path):
    affines = {
        "straight": AFFINE,
        "turned": oblique((20, -15, 130)) @ AFFINE,
        "mirrored": oblique((5, 170, 3)) @ AFFINE @ np.diag([1, -1, 1, 1]),
        "sheared": oblique((5, 5, 5), shear=0.4) @ AFFINE,
    }
    written = [
        {"name": f"{name}.nii", "shape": SHAPE, "affine": affine.tolist()} for name, affine in affines.items()
    ]
    run_port(tmp_path / "browser", [], written=written)
    data = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    for name, affine in affines.items():
        write_volume(tmp_path / f"{name}.nii", Volume(data, affine), space="mni")
        expected, found = (nib.load(folder / f"{name}.nii") for folder in (tmp_path, tmp_path / "browser"))
        np.testing.assert_array_equal(found.dataobj.get_unscaled(), expected.dataobj.get_unscaled())
        for field, value in expected.header.items():
            if field.startswith("quatern"):
                assert found.header[field] == pytest.approx(value, abs=1e-6), (name, field)
            else:
                np.testing.assert_array_equal(found.header[field], value, f"{name}: {field}")
