"""Scans keep their world coordinates; bad files give one clear line."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adpet.errors import InputError
from adpet.imaging.nifti import Volume, read_header, read_volume, scan_files, write_volume

SHAPE = (10, 12, 9)
AFFINE = np.array([[2.0, 0, 0, -9], [0, 2.5, 0, -20], [0, 0, 3.0, -11], [0, 0, 0, 1]])
ANGLE = np.radians(20)
OBLIQUE = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0, 0], [np.sin(ANGLE), np.cos(ANGLE), 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
)
ORIENTATIONS = ["RAS", "LAS", "LPS", "PIR", "SLA"]


@pytest.fixture
def data(rng_seed=0):
    return np.random.default_rng(rng_seed).uniform(0, 50, SHAPE).astype(np.float32)


def stored_as(codes, data, affine):
    """Return the same image with its axes stored in another order."""
    start = nib.orientations.io_orientation(affine)
    turn = nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(codes))
    turned = nib.orientations.apply_orientation(data, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, data.shape)


def refusal(path, **options):
    """Return the one line that reading the file ends in."""
    with pytest.raises(InputError) as caught:
        read_volume(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


class TestRead:
    @pytest.mark.parametrize("codes", ORIENTATIONS)
    @pytest.mark.parametrize("affine", [AFFINE, OBLIQUE @ AFFINE], ids=["straight", "oblique"])
    def test_storage_order_does_not_matter(self, tmp_path, data, codes, affine):
        turned, turned_affine = stored_as(codes, data, affine)
        nib.save(nib.Nifti1Image(turned, turned_affine), tmp_path / "scan.nii.gz")
        volume = read_volume(tmp_path / "scan.nii.gz")
        assert volume.data.dtype == np.float32
        np.testing.assert_array_equal(volume.data, data)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)

    @pytest.mark.parametrize(
        "name", ["a.nii", "a.nii.gz", "pair.img", "pair.img.gz", "ümlaut, with comma.nii"]
    )
    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    def test_nifti_1_and_2_single_or_pair_packed_or_not_are_read(self, tmp_path, data, name, kind):
        if ".img" in name:
            kind = {nib.Nifti1Image: nib.Nifti1Pair, nib.Nifti2Image: nib.Nifti2Pair}[kind]
        nib.save(kind(data, AFFINE), tmp_path / name)
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.data, data)
        np.testing.assert_allclose(volume.affine, AFFINE)

    def test_analyze_is_read(self, tmp_path, data):
        nib.save(nib.AnalyzeImage(data, np.diag([-2.0, 2.5, 3, 1])), tmp_path / "old.img")
        header = read_header(tmp_path / "old.img")
        assert header.zooms == (2.0, 2.5, 3.0)
        assert read_volume(tmp_path / "old.img").data.shape == SHAPE

    def test_big_endian_integers_with_a_scale_factor_are_read(self, tmp_path):
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(">i2")
        stored = np.arange(np.prod(SHAPE)).reshape(SHAPE)
        header.set_data_shape(SHAPE)
        header.set_sform(AFFINE, code=1)
        header.set_slope_inter(0.5, 3)
        header["vox_offset"] = 352
        content = header.binaryblock + bytes(4) + stored.astype(">i2").tobytes(order="F")
        (tmp_path / "big.nii").write_bytes(content)
        np.testing.assert_array_equal(read_volume(tmp_path / "big.nii").data, stored * 0.5 + 3)


class TestFrames:
    @pytest.fixture
    def dynamic(self, tmp_path, data):
        frames = np.stack([data, data + 10, data + 40], axis=-1)
        nib.save(nib.Nifti1Image(frames, AFFINE), tmp_path / "dynamic.nii.gz")
        return tmp_path / "dynamic.nii.gz"

    def test_frames_are_averaged(self, dynamic, data):
        np.testing.assert_allclose(read_volume(dynamic).data, data + 50 / 3, rtol=1e-6)
        assert read_header(dynamic).n_frames == 3

    def test_durations_weight_the_frames(self, dynamic, data):
        averaged = read_volume(dynamic, frame_seconds=[300, 300, 600]).data
        np.testing.assert_allclose(averaged, data + 22.5, rtol=1e-6)

    @pytest.mark.parametrize("seconds", [[300, 300], [300, 300, -1], [0, 0, 0], [300, 300, np.nan]])
    def test_durations_that_do_not_fit_are_refused(self, dynamic, seconds):
        assert "expected 3 frame durations" in refusal(dynamic, frame_seconds=seconds)

    def test_frames_that_do_not_count_are_left_out(self, dynamic, data):
        averaged = read_volume(dynamic, frame_seconds=[0, 300, 600], steady=False).data
        np.testing.assert_allclose(averaged, data + 30, rtol=1e-6)

    @pytest.mark.parametrize(
        ("factors", "seconds", "rises"),
        [
            ((0.3, 1, 1.2, 0.6, 1), None, True),
            ((0.6, 0.7, 0.8, 0.9, 1), None, True),
            ((0.3, 1, 1.2, 0.6, 1), (0, 0, 9, 9, 0), False),
            ((0.84, 0.88, 0.93, 0.97, 1), None, False),
            ((1, 0.8, 0.6, 0.5, 0.4), None, False),
        ],
    )
    def test_uptake_in_progress_is_refused_where_steady_frames_are_asked(
        self, tmp_path, data, factors, seconds, rises
    ):
        path = tmp_path / "frames.nii.gz"
        nib.save(nib.Nifti1Image(np.stack([data * factor for factor in factors], -1), AFFINE), path)
        read_volume(path, frame_seconds=seconds)
        if rises:
            assert "uptake grows more than 1.4-fold" in refusal(path, frame_seconds=seconds, steady=True)
        else:
            read_volume(path, frame_seconds=seconds, steady=True)

    @pytest.mark.parametrize("trailing", [(1,), (1, 1), (1, 1, 1)])
    def test_trailing_axes_of_one_are_dropped(self, tmp_path, data, trailing):
        nib.save(nib.Nifti1Image(data.reshape(SHAPE + trailing), AFFINE), tmp_path / "scan.nii")
        np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii", frame_seconds=[300, 9]).data, data)


class TestFramesInAFolder:
    @pytest.fixture
    def folder(self, tmp_path, data):
        """Three frames; the names of all but the first sort wrongly as text."""
        for number, offset in ((1, 0), (2, 10), (10, 40)):
            write_volume(tmp_path / "I7" / f"scan_{number}.nii", Volume(data + offset, AFFINE))
        return tmp_path / "I7"

    def test_durations_follow_the_natural_order_of_the_names(self, folder, data):
        averaged = read_volume(folder, frame_seconds=[300, 300, 600]).data
        np.testing.assert_allclose(averaged, data + 22.5, rtol=1e-6)
        assert (read_header(folder).n_frames, read_header(folder).shape) == (3, SHAPE)
        assert [file.name for file in scan_files(folder)] == ["scan_1.nii", "scan_2.nii", "scan_10.nii"]

    def test_other_files_in_the_folder_are_ignored(self, folder):
        before = read_volume(folder).data
        (folder / "scan.xml").write_text("<idaxs/>")
        (folder / "._scan_1.nii").write_bytes(b"macOS")
        np.testing.assert_array_equal(read_volume(folder).data, before)

    @pytest.mark.parametrize("read", [read_header, read_volume])
    @pytest.mark.parametrize(
        ("shape", "affine"), [(SHAPE, OBLIQUE @ AFFINE), ((10, 12, 8), AFFINE)], ids=["affine", "shape"]
    )
    def test_frames_of_another_affine_or_shape_are_refused(self, folder, read, shape, affine):
        write_volume(folder / "scan_3.nii", Volume(np.ones(shape, dtype=np.float32), affine))
        with pytest.raises(InputError, match=r"I7: required frames of one shape .*scan_3\.nii unlike scan_1"):
            read(folder)

    def test_several_dynamic_files_are_refused(self, folder, data):
        frames = np.stack([data, data], axis=-1)
        nib.save(nib.Nifti1Image(frames, AFFINE), folder / "scan_3.nii")
        assert "required one frame a file" in refusal(folder)

    def test_damaged_frame_is_named(self, folder):
        frame = folder / "scan_2.nii"
        frame.write_bytes(frame.read_bytes()[:1000])
        assert refusal(folder).startswith(f"{folder}: scan_2.nii: truncated")


class TestRefusals:
    @pytest.fixture
    def good(self, tmp_path, data):
        nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "good.nii")
        return tmp_path / "good.nii"

    @pytest.mark.parametrize(
        "content",
        [b"", b"subject,diagnosis\n", b"\0" * 400, bytes(128) + b"DICM" + bytes(5000), b"\x1f\x8b garbage"],
        ids=["zero bytes", "text", "zeros", "DICOM", "half a gzip"],
    )
    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.img", "scan.hdr"])
    def test_other_files_are_refused_by_name(self, tmp_path, content, name):
        (tmp_path / name).write_bytes(content)
        refusal(tmp_path / name)

    def test_refusal_quotes_no_header_extension(self, tmp_path, data):
        image = nib.Nifti2Image(data, AFFINE)
        # Code 32 is CIFTI's XML, which nibabel reads at once.
        image.header.extensions.append(nib.nifti1.Nifti1Extension(32, b'<CIFTI Version="DOE^JANE"/>'))
        image.header["intent_code"] = 3001
        nib.save(image, tmp_path / "scan.nii")
        assert "DOE" not in refusal(tmp_path / "scan.nii")

    @pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
    @pytest.mark.parametrize(("kind", "field"), [(nib.Nifti1Image, 108), (nib.Nifti2Image, 168)])
    def test_voxels_that_begin_in_the_header_are_refused(self, tmp_path, data, kind, field, name):
        content = bytearray(kind(data, AFFINE).to_bytes())
        content[field : field + 4] = bytes(4)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert "begin at byte 0 (vox_offset), within the header: set it to" in refusal(tmp_path / name)

    @pytest.mark.parametrize("keep", [100, 352, 2000])
    def test_truncated_file_is_refused_by_its_header_already(self, good, keep):
        good.write_bytes(good.read_bytes()[:keep])
        with pytest.raises(InputError, match=r"good\.nii"):
            read_header(good)

    @pytest.mark.parametrize("keep", [5, 200, 900, -9, -1])
    @pytest.mark.parametrize("read", [read_header, read_volume])
    def test_truncated_gzip_is_refused_by_its_header_already(self, good, keep, read):
        packed = good.with_suffix(".nii.gz")
        packed.write_bytes(gzip.compress(good.read_bytes())[:keep])
        with pytest.raises(InputError, match=r"^.*good\.nii\.gz: .*: copy[^\n]*$"):
            read(packed)

    def test_gzip_of_several_pieces_is_whole(self, good, data):
        content = good.read_bytes()
        packed = good.with_suffix(".nii.gz")
        packed.write_bytes(gzip.compress(content[:1000]) + gzip.compress(content[1000:]))
        assert read_header(packed).shape == SHAPE
        np.testing.assert_array_equal(read_volume(packed).data, data)

    @pytest.mark.parametrize("level", [0, 9], ids=["checksum alone tells", "packed"])
    def test_damaged_bytes_inside_a_gzip_are_refused(self, good, level):
        content = bytearray(gzip.compress(good.read_bytes(), level))
        content[600:700] = bytes(100)
        packed = good.with_suffix(".nii.gz")
        packed.write_bytes(content)
        refusal(packed)

    @pytest.mark.parametrize("frames", [2**15, 2**31, 2**40])
    @pytest.mark.parametrize("read", [read_header, read_volume])
    def test_header_that_claims_millions_of_frames_takes_no_memory(self, tmp_path, frames, read):
        header = nib.Nifti2Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape((8, 8, 8, frames))
        header.set_sform(AFFINE, code=1)
        header["vox_offset"] = 544
        # What a gzip file says of its length is a multiple of 2^32 short of what is claimed.
        (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))
        with pytest.raises(InputError, match=f"claims {frames} frames, more than the 32767 allowed: export"):
            read(tmp_path / "scan.nii.gz")

    @pytest.mark.parametrize("shape", [(10, 12), (10, 12, 7), (10, 12, 1, 20), (10, 12, 9, 2, 3)])
    def test_slices_and_vector_images_are_refused(self, tmp_path, shape):
        image = nib.Nifti1Image(np.random.default_rng(0).random(shape, dtype=np.float32), AFFINE)
        nib.save(image, tmp_path / "scan.nii")
        assert "received shape" in refusal(tmp_path / "scan.nii")

    @pytest.mark.parametrize(
        "affine",
        [
            np.diag([2.0, 0, 2, 1]),
            np.array([[2.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
            np.diag([2.0, np.nan, 2, 1]),
            np.diag([0.002, 0.002, 0.002, 1]),
        ],
        ids=["no second axis", "two axes alike", "not finite", "metres"],
    )
    def test_unusable_affine_is_refused(self, good, affine):
        content = bytearray(good.read_bytes())
        content[252:256] = np.array([0, 1], dtype="<i2").tobytes()
        content[280:328] = affine[:3].astype("<f4").tobytes()
        good.write_bytes(content)
        assert "no usable affine" in refusal(good)

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=8))
    def test_damaged_header_raises_input_error_alone(self, tmp_path_factory, damage):
        path = tmp_path_factory.mktemp("damaged") / "scan.nii"
        write_volume(path, Volume(np.arange(1080, dtype=np.float32).reshape(SHAPE), AFFINE))
        content = bytearray(path.read_bytes())
        for where, byte in damage:
            content[where] = byte
        path.write_bytes(content)
        try:
            assert np.isfinite(read_volume(path).data).all()
        except InputError as refused:
            assert "\n" not in str(refused)  # noqa: PT017 - either end is right

    def test_gzip_with_too_few_voxels_is_refused_by_its_length(self, good):
        packed = good.with_suffix(".nii.gz")
        packed.write_bytes(gzip.compress(good.read_bytes()[:-1]))
        with pytest.raises(InputError, match="claims 4320 bytes of voxels, 4319 are there"):
            read_header(packed)


class TestWrite:
    @pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
    def test_float_voxels_and_affine_come_back_exactly(self, tmp_path, data, name):
        write_volume(tmp_path / name, Volume(data, AFFINE))
        back = read_volume(tmp_path / name)
        np.testing.assert_array_equal(back.data, data)
        np.testing.assert_array_equal(back.affine, AFFINE)

    @pytest.mark.parametrize(("dtype", "levels"), [(np.int16, 32767), (np.uint8, 255)])
    def test_integers_keep_voxels_to_half_a_step(self, tmp_path, data, dtype, levels):
        write_volume(tmp_path / "v.nii", Volume(data, AFFINE), dtype=dtype)
        back = read_volume(tmp_path / "v.nii").data
        assert np.abs(back - data).max() <= 0.501 * data.max() / levels
        assert nib.load(tmp_path / "v.nii").get_data_dtype() == dtype
        assert nib.load(tmp_path / "v.nii").dataobj.inter == 0

    @pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
    def test_same_volume_gives_the_same_bytes_under_any_name(self, tmp_path, data, name):
        for folder in ("one", "two"):
            write_volume(tmp_path / folder / name, Volume(data, AFFINE), dtype=np.int16)
        write_volume(tmp_path / f"other-{name}", Volume(np.asfortranarray(data), AFFINE), dtype=np.int16)
        first = (tmp_path / "one" / name).read_bytes()
        assert first == (tmp_path / "two" / name).read_bytes()
        assert first == (tmp_path / f"other-{name}").read_bytes()

    @pytest.mark.parametrize(("space", "code"), [("scanner", 1), ("mni", 4)])
    def test_sform_and_qform_have_the_code_of_the_space(self, tmp_path, data, space, code):
        write_volume(tmp_path / "v.nii", Volume(data, OBLIQUE @ AFFINE), space=space)
        header = nib.load(tmp_path / "v.nii").header
        assert header["sform_code"] == header["qform_code"] == code
        np.testing.assert_allclose(header.get_qform(), OBLIQUE @ AFFINE, atol=1e-4)
        assert header.get_xyzt_units()[0] == "mm"
