"""The browser reads the files that Python reads, to the same voxels, and refuses the others in the same words."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from scipy.spatial.transform import Rotation

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_header, read_volume, write_volume
from adpet.imaging.sidecar import facts_of, read_facts, require_fdg, used_seconds

pytestmark = pytest.mark.node

SHAPE = (10, 12, 9)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 2.5, 0, -20], [0, 0, 3.0, -11], [0, 0, 0, 1]])
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
DATA = np.random.default_rng(0).uniform(0, 50, SHAPE).astype(np.float32)
NOISE = np.random.default_rng(5).normal(0, 1, (70, 80, 60)).astype(np.float32)
# Python and the browser refuse these in words of their own; what is said around them is the same.
OWN_WORDS = ("surfaces", "a cut gzip", "half a pair")


def oblique(degrees, shear=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[0, 1] += shear
    return matrix


def nifti(data=DATA, affine=AFFINE, *, kind=nib.Nifti1Image, order="<", change=None, **fields):
    """Return a file's bytes; `change` is applied to its header, whose fields are set then."""
    image = kind(data, affine, kind.header_class(endianness=order), dtype=data.dtype)
    image.set_sform(affine, code=1)
    content = bytearray(image.to_bytes())
    header = kind.header_class(bytes(content[: kind.header_class.sizeof_hdr]))
    if change:
        change(header)
    for field, value in fields.items():
        header[field] = value
    content[: len(header.binaryblock)] = header.binaryblock
    return bytes(content)


def nifti2(**options):
    return nifti(kind=nib.Nifti2Image, **options)


def with_qform(affine, *, sform=0):
    def change(header):
        header.set_sform(None, code=sform)
        header.set_qform(affine, code=1)

    return change


def both_read(run_port, folder, files):
    """Yield each file's key and path, and what Python and the browser make of it: a volume or a sentence."""
    paths = {}
    for number, (key, content) in enumerate(files.items()):
        ending = key[1] if isinstance(key, tuple) else "nii"
        paths[key] = folder / f"{number:03d}.{ending}"
        paths[key].write_bytes(content)
    found = run_port(folder / "out", [(path.name, path, {}) for path in paths.values()])
    for key, path in paths.items():
        try:
            python = read_volume(path)
        except InputError as error:
            python = str(error).replace(str(path), path.name)
        scan = found.scan(path.name)
        browser = scan.get("refused") or Volume(found.ras(path.name), np.array(scan["affine"]))
        yield key, path, python, browser


def readable():
    counts = np.arange(DATA.size).reshape(SHAPE) % 120
    mirrored = oblique((10, 20, -40)) @ AFFINE @ np.diag([1, 1, -1, 1])
    odd = DATA.copy()
    odd[1, 2, 3], odd[4, 5, 6], odd[7, 8, 0] = np.nan, np.inf, -np.inf
    frames = np.stack([DATA, DATA**1.5, 3 - DATA], axis=-1)
    whole = nifti()
    extended = nib.Nifti1Image(DATA, AFFINE)
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    files = {
        "NIfTI-2": nifti2(),
        "a quaternion": nifti(change=with_qform(oblique((10, 160, -40)) @ AFFINE)),
        "a mirrored quaternion": nifti(change=with_qform(mirrored)),
        "half a turn": nifti(change=with_qform(oblique((180, 0, 0)) @ AFFINE)),
        "a quaternion in NIfTI-2": nifti2(change=with_qform(mirrored)),
        "a broken quaternion and an sform": nifti(change=with_qform(AFFINE, sform=1), quatern_b=1.5),
        "no place": nifti(sform_code=0, qform_code=0),
        "an unknown code": nifti(sform_code=77, qform_code=0),
        "a broken sform and a qform": nifti(change=lambda header: header.set_qform(AFFINE, code=1), srow_x=0),
        "edges of 0 and below 0": nifti(sform_code=0, qform_code=0, pixdim=[5, 0, -2, 3, 1, 1, 1, 1]),
        "voxels that are no numbers": nifti(odd),
        "voxels too large for single precision": nifti(odd.astype(np.float64) * 1e38),
        "frames": nifti(frames),
        "frames and a trailing axis": nifti(frames[..., None]),
        "an extension": extended.to_bytes(),
        "more bytes than voxels": whole + b"more",
        "a gap before the voxels": nifti(vox_offset=1000)[:352] + bytes(648) + whole[352:],
        ("gzipped", "nii.gz"): gzip.compress(whole),
        ("gzipped in pieces", "nii.gz"): gzip.compress(whole[:1000]) + gzip.compress(whole[1000:]),
        ("gzipped with a name", "NII.GZ"): b"\x1f\x8b\x08\x08\0\0\0\0\0\0a\0" + gzip.compress(whole)[10:],
        ("gzipped, large", "nii.gz"): gzip.compress(nifti(NOISE), 1),
    }
    for dtype in DTYPES:
        stored = counts.astype(dtype)
        files |= {f"voxels {dtype}": nifti(stored), f"voxels {dtype}, big-endian": nifti(stored, order=">")}
    for axes in ("RAS", "LAS", "LPS", "PIR", "SLA", "IAL", "ARS"):
        turned = AFFINE @ np.linalg.inv(inv_ornt_aff(axcodes2ornt(axes), SHAPE))
        # Nearly halfway between two axes: at the half itself, the last bits of an affine decide.
        for degrees in ((0, 0, 0), (20, -15, 30), (44.99, 0, 0), (0, 0, 45.01)):
            files[f"{axes} by {degrees}"] = nifti(affine=oblique(degrees) @ turned)
        files[f"{axes} sheared"] = nifti(affine=oblique((5, 5, 5), shear=0.4) @ turned)
    files |= {f"slope {slope}": nifti(scl_slope=slope, scl_inter=3) for slope in (0.3, 0, np.nan, np.inf)}
    for trailing in ((1,), (1, 1), (1, 1, 1, 1)):
        files[f"trailing axes {trailing}"] = nifti(DATA.reshape(SHAPE + trailing))
    return files


def unreadable():
    whole = nifti()
    packed = gzip.compress(whole)
    noisy = gzip.compress(nifti(NOISE), 1)
    claim = nifti(dim=(3, 400, 400, 400, 1, 1, 1, 1))
    frames = (32767, 32768, 2**53)
    files = {
        ("NIfTI called a gzip", "nii.gz"): whole,
        "a gzip not called so": packed,
        ("no ending", "dat"): whole,
        ("half a pair", "img"): whole,
        ("half a pair", "hdr"): whole[:348],
        ("too few voxels in a gzip", "nii.gz"): gzip.compress(whole[:-1]),
        ("a cut gzip", "nii.gz"): noisy[: len(noisy) // 2],
        ("a wrong checksum", "nii.gz"): packed[:-8] + bytes(4) + packed[-4:],
        "a claim of 27 terabytes": nifti(dim=(3, 30000, 30000, 30000, 1, 1, 1, 1)),
        "a claim of 65 million frames": nifti(dim=(4, 400, 400, 400, 32767, 1, 1, 1)),
        ("a packed claim", "nii.gz"): gzip.compress(claim),
        "no axes": nifti(dim=0),
        "an axis below 0": nifti(dim=(3, -10, 12, 9, 1, 1, 1, 1)),
        "complex": nifti(DATA.astype(np.complex64)),
        "colours": nifti(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "a quaternion that is no turn": nifti(change=with_qform(AFFINE), quatern_b=1.5),
        "an intercept that is not finite": nifti(scl_slope=2, scl_inter=np.inf),
        "voxels within the header": nifti(vox_offset=100),
        "voxels at its start": nifti(vox_offset=0),
        "voxels at its start in NIfTI-2": nifti2(vox_offset=0),
        "voxels nowhere": nifti(vox_offset=2e9),
        "converted line ends": nifti2(eol_check=(10, 26, 10, 0)),
        "surfaces": nifti2(intent_code=3006),
    }
    for name, content in {
        "nothing": b"", "text": b"subject,diagnosis\n", "zeros": bytes(400), "DICOM": bytes(128) + b"DICM" + bytes(5000),
    }.items():  # fmt: skip
        files |= {(name, ending): content for ending in ("nii", "nii.gz")}
    files |= {f"cut to {keep}": whole[:keep] for keep in (100, 347, 352, 2000, -1)}
    for shape in ((10, 12), (10, 12, 7), (10, 12, 1, 20), (10, 12, 9, 2, 3), (10, 12, 9, 0)):
        files[f"shape {shape}"] = nifti(np.ones(shape, np.float32))
    for value in (0.0, 7.5, -1234567.0, 1e-7, np.nan):
        files[f"everywhere {value}"] = nifti(np.full(SHAPE, value, np.float32))
    files |= {f"voxels of type {code}": nifti(datatype=code) for code in (0, 1, 3, 1536)}
    files |= {f"{count} frames": nifti2(dim=(4, *SHAPE, count, 1, 1, 1)) for count in frames}
    for name, affine in {
        "no second axis": np.diag([2.0, 0, 2, 1]),
        "two axes alike": np.array([[2.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        "not finite": np.diag([2.0, np.nan, 2, 1]),
        "metres": np.diag([0.002, 0.002, 0.002, 1]),
    }.items():
        rows = dict(zip(("srow_x", "srow_y", "srow_z"), affine[:3], strict=True))
        files[f"an affine with {name}"] = nifti(qform_code=0, **rows)
    return files


def test_readable_files_give_python_s_voxels_and_affine(run_port, tmp_path):
    for key, _, python, browser in both_read(run_port, tmp_path, readable()):
        assert not isinstance(python, str), f"{key}: {python}"
        assert not isinstance(browser, str), f"{key}: {browser}"
        np.testing.assert_array_equal(browser.data, python.data, str(key))
        np.testing.assert_allclose(browser.affine, python.affine, rtol=1e-7, atol=1e-6, err_msg=str(key))


def test_unreadable_files_are_refused_in_python_s_words(run_port, tmp_path):
    for key, path, python, browser in both_read(run_port, tmp_path, unreadable()):
        assert isinstance(python, str), key
        assert isinstance(browser, str), key
        assert "\n" not in browser
        assert browser.startswith(f"{path.name}: ")
        if (key[0] if isinstance(key, tuple) else key) not in OWN_WORDS:
            assert browser == python, key


NAMES = (
    "scan", "FDG_1", "a_trc-18FFDG_pet", "a_trc-18FAV45_pet", "sub-PIB_pet", "x_acq-AV45late_pet", "a_11C-PIB_b", "nacc_1",
    "a_rec-nacstat_pet", "a_acq-statNAC_pet", "b_NAC", "a_trc-18FFDG_acq-FBB_pet", "a_trc-n_pet", "t807x", "Brain(NAC)", "sub-NAC",
)  # fmt: skip
SIDECARS = (
    *({"TracerName": name} for name in (
        "[18F]FDG", "18FDG", "FDGal", "no FDG", "FDG (18F)", "¹⁸F-FDG", "FDG/AV45", "2-deoxy-2-[18F]fluoro-D-glucose", None, "n/a",
        "SCT:35321007", "Fluorodésoxyglucose", ["FDG"], "  FDG   PET ", "11C-FDG", "x" * 60, "F18", "18F-FDG PET/CT", "FDG PET/MRI",
    )),
    {"Modality": "NM"}, {"TracerName": "FDG", "Radiopharmaceutical": "PiB"}, {"TracerRadionuclide": "C11"},
    {"AttenuationCorrection": "none"}, {"AttenuationCorrected": False}, {"AttenuationCorrection": None}, {"Tracer": "AV45"},
    {"AttenuationCorrection": "NONE, 0.000000 cm-1,"}, {"AttenuationCorrection": "not applied"}, {"RadionuclideHalfLife": 1224.5},
    {"AttenuationCorrection": "Dixon AC"}, {"AttenuationCorrection": "PET NAC"},
    {"TracerRadionuclide": "Fluorodeoxyglucose F18", "RadionuclideHalfLife": 6588, "Modality": "PET/MRI"},
    {"SeriesDescription": "ADNI3_AV45 (AC)"}, {"SeriesDescription": "AV-45 DOE"}, {"SeriesDescription": "PET Brain NAC"},
    {"AttenuationCorrection": "CT-based", "SeriesDescription": "PET AC and NAC"}, {"AttenuationCorrectionMethod": "NONE"},
)  # fmt: skip
TIMES = (
    {"FrameTimesStart": [0, 900, 1900], "FrameDuration": [900, 1000, 800]}, {"FrameTimesStart": [0, 1500, 2100]},
    {"FrameDuration": [1, 2, 3]}, {"FrameDuration": [1, 2]}, {"FrameDuration": [1, "x", 3]}, {"FrameDuration": 5}, {"FrameDuration": []},
    {"FrameTimesStart": [0, 300, 600], "InjectionStart": 0}, {"FrameTimesStart": [0, 300, 600], "InjectionStart": -1500},
    {"FrameTimesStart": [0, 600, 1200], "ScanStart": 1500, "InjectionStart": 0.5}, {"FrameTimesStart": [4000, 5000, 6000]}, {},
    {"FrameTimesStart": [0, 600000, 1200000]}, {"FrameReferenceTime": [450, 1400, 2500], "FrameDuration": [900, 1000, 1200]},
)  # fmt: skip


def test_names_sidecars_and_times_count_as_in_python(run_port, tmp_path):
    steady, rising = (
        np.stack([DATA * factor for factor in factors], -1) for factors in ((1, 1.1, 1.2), (0.5, 1, 1))
    )
    jobs = [(name, nifti(), sidecar) for name in NAMES for sidecar in ({}, *SIDECARS)]
    jobs += [("frames", nifti(data), times) for data in (steady, rising) for times in TIMES]
    scans = []
    for number, (name, content, sidecar) in enumerate(jobs):
        file = tmp_path / str(number) / f"{name}.nii"
        file.parent.mkdir()
        file.write_bytes(content)
        scans.append((str(number), file, {"sidecar": sidecar}))
    found = run_port(tmp_path / "out", scans)
    said = set()
    for number, file, options in scans:
        try:
            facts = facts_of([file.name], [("s.json", options["sidecar"])])
            require_fdg(facts)
            seconds = used_seconds(facts.metadata, read_header(file).n_frames)
            python = read_volume(file, frame_seconds=seconds, steady=True).data
        except InputError as error:
            sentence = f"{file.name}: " + str(error).removeprefix(f"{file}: ")
            assert found.scan(number).get("refused") == sentence, (file.name, options)
            said.add(sentence)
        else:
            assert "refused" not in found.scan(number), (found.scan(number), options)
            np.testing.assert_allclose(found.ras(number), python, rtol=1e-6, err_msg=str(options))
    assert len(said) > 20


SIDECAR_FILES = {
    '{"TracerName": "AV45", "InstitutionName": "Zürich"}': ("utf-8", "utf-8-sig", "utf-16", "latin-1"),
    '{"TracerName": "AV45", "InjectedMass": NaN, "b": [-Infinity]}': ("utf-8",),
    '{"TracerName": "NaN"}': ("utf-8",), '{"TracerName": "AV45",}': ("utf-8",), "[]": ("utf-8",), "": ("utf-8",),
}  # fmt: skip


def test_sidecars_are_read_as_by_python(run_port, tmp_path):
    files = [tmp_path / f"{n}.nii" for n in range(sum(map(len, SIDECAR_FILES.values())))]
    written = ((text, encoding) for text, encodings in SIDECAR_FILES.items() for encoding in encodings)
    for file, (text, encoding) in zip(files, written, strict=True):
        file.write_bytes(nifti())
        file.with_suffix(".json").write_text(text, encoding=encoding)
    jobs = [(file.stem, file, {"sidecar": str(file.with_suffix(".json"))}) for file in files]
    found = run_port(tmp_path / "out", jobs)
    for file in files:
        said = found.scan(file.stem).get("refused", "").replace("s.json", f"{file.stem}.json")
        python = ""
        try:
            require_fdg(read_facts(file))
        except InputError as error:
            python = str(error).split(" (")[0].removesuffix("; mend it")
        assert python in said
        assert bool(python) == bool(said)


def test_damaged_headers_are_read_or_refused_as_by_python(run_port, tmp_path):
    rng = np.random.default_rng(7)
    files = {}
    for number in range(400):
        kind = (nib.Nifti1Image, nib.Nifti2Image)[number % 2]
        content = bytearray(nifti(np.arange(1080, dtype=np.int16).reshape(SHAPE), kind=kind))
        for where in rng.integers(0, kind.header_class.sizeof_hdr, rng.integers(1, 9)):
            content[where] = rng.integers(256)
        files[number] = bytes(content)
    for number, _, python, browser in both_read(run_port, tmp_path, files):
        assert isinstance(browser, str) == isinstance(python, str), (number, python, browser)
        if not isinstance(python, str):
            np.testing.assert_array_equal(browser.data, python.data)
            np.testing.assert_allclose(browser.affine, python.affine, rtol=1e-5)


def test_written_files_are_those_that_python_writes(run_port, tmp_path):
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
        due, found = (nib.load(folder / f"{name}.nii") for folder in (tmp_path, tmp_path / "browser"))
        np.testing.assert_array_equal(found.dataobj.get_unscaled(), due.dataobj.get_unscaled())
        for field, value in due.header.items():
            if field.startswith("quatern"):
                assert found.header[field] == pytest.approx(value, abs=1e-6), (name, field)
            else:
                np.testing.assert_array_equal(found.header[field], value, f"{name}: {field}")
