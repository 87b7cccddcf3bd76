import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adpet.learning.data import Augmentation, apply, draw, identity

SIZE = 32
STRONG = Augmentation(rotation_degrees=20, zoom=0.15, shift=0.1, shear=0.1, flip=True, intensity=0.2)


def applied(images, transforms, gains, fill="nearest"):
    return keras.ops.convert_to_numpy(apply(images, transforms, gains, fill=fill))


def smooth_images(n, seed=0):
    noise = np.random.default_rng(seed).random((n, SIZE, SIZE))
    smooth = ndimage.gaussian_filter(noise, (0, 2, 2))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)[..., np.newaxis]


class TestDraw:
    def test_no_augmentation_is_the_identity(self):
        transforms, gains = draw(Augmentation(), 5, SIZE, np.random.default_rng(0))
        same_transforms, same_gains = identity(5)
        np.testing.assert_array_equal(transforms, same_transforms)
        np.testing.assert_array_equal(gains, same_gains)

    def test_draws_depend_on_the_generator_alone(self):
        first = draw(STRONG, 4, SIZE, np.random.default_rng(3))
        again = draw(STRONG, 4, SIZE, np.random.default_rng(3))
        other = draw(STRONG, 4, SIZE, np.random.default_rng(4))
        np.testing.assert_array_equal(first[0], again[0])
        assert not np.array_equal(first[0], other[0])

    @given(seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=20)
    def test_without_shift_the_centre_stays(self, seed):
        still = Augmentation(rotation_degrees=90, zoom=0.5, shear=0.5, flip=True)
        transforms, _ = draw(still, 8, SIZE, np.random.default_rng(seed))
        centre = np.array([(SIZE - 1) / 2, (SIZE - 1) / 2, 1.0])
        np.testing.assert_allclose(transforms[:, :6].reshape(-1, 2, 3) @ centre, SIZE / 2 - 0.5, atol=1e-4)

    def test_draws_fill_their_ranges_and_no_more(self):
        transforms, gains = draw(Augmentation(shift=0.1, intensity=0.2), 4000, 100, np.random.default_rng(0))
        for values, reach in ((transforms[:, 2], 10), (transforms[:, 5], 10), (gains - 1, 0.2)):
            assert -reach <= values.min() < -0.98 * reach
            assert 0.98 * reach < values.max() <= reach * 1.0001

    def test_half_of_the_slices_are_flipped(self):
        transforms, _ = draw(Augmentation(flip=True), 2000, SIZE, np.random.default_rng(0))
        assert np.mean(transforms[:, 0] == -1) == pytest.approx(0.5, abs=0.05)

    def test_a_rotation_is_by_its_angle(self):
        transforms, _ = draw(Augmentation(rotation_degrees=20), 4000, SIZE, np.random.default_rng(0))
        angles = np.rad2deg(np.arctan2(transforms[:, 3], transforms[:, 0]))
        assert np.abs(angles).max() == pytest.approx(20, abs=0.1)
        np.testing.assert_allclose(np.hypot(transforms[:, 0], transforms[:, 3]), 1, atol=1e-6)


class TestApply:
    def test_the_identity_changes_no_pixel(self):
        images = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(1, SIZE, SIZE, 1)
        np.testing.assert_array_equal(applied(images, *identity(1)), images)

    def test_a_flip_takes_the_left_to_the_right(self):
        images = np.zeros((1, SIZE, SIZE, 1), np.uint8)
        images[0, 5, 3] = 200
        flip = np.array([[-1, 0, SIZE - 1, 0, 1, 0, 0, 0]], np.float32)
        flipped = applied(images, flip, identity(1)[1])
        assert flipped[0, 5, SIZE - 1 - 3, 0] == 200
        assert flipped.sum() == 200

    @pytest.mark.parametrize(("fill", "scipy_fill"), [("nearest", "nearest"), ("constant", "grid-constant")])
    def test_equals_scipys_affine(self, fill, scipy_fill):
        images = smooth_images(6)
        transforms, _ = draw(STRONG, 6, SIZE, np.random.default_rng(1))
        ours = applied(images, transforms, identity(6)[1], fill)
        for image, transform, changed in zip(images[..., 0], transforms, ours[..., 0], strict=True):
            a0, a1, a2, b0, b1, b2 = transform[:6].astype(np.float64)
            theirs = ndimage.affine_transform(
                image.astype(np.float64), [[b1, b0], [a1, a0]], offset=[b2, a2], order=1, mode=scipy_fill
            )
            # Half a grey level is the rounding; the rest is single against double precision.
            assert np.abs(changed - theirs).max() <= 0.51

    def test_a_gain_multiplies_and_stops_at_white(self):
        images = np.array([0, 100, 250], np.uint8).repeat(SIZE * SIZE).reshape(3, SIZE, SIZE, 1)
        gains = np.tile(np.array([1.2, 1.0], np.float32), (3, 1))
        changed = applied(images, identity(3)[0], gains)
        assert [int(image[0, 0, 0]) for image in changed] == [0, 120, 255]

    def test_an_exponent_keeps_black_and_white(self):
        images = np.array([0, 128, 255], np.uint8).repeat(SIZE * SIZE).reshape(3, SIZE, SIZE, 1)
        gains = np.tile(np.array([1.0, 1.2], np.float32), (3, 1))
        changed = applied(images, identity(3)[0], gains)
        assert [int(image[0, 0, 0]) for image in changed] == [0, round(255 * (128 / 255) ** 1.2), 255]

    def test_nearest_fills_with_the_edge_and_constant_with_black(self):
        images = np.full((1, SIZE, SIZE, 1), 90, np.uint8)
        away = np.array([[1, 0, 20, 0, 1, 0, 0, 0]], np.float32)
        assert (applied(images, away, identity(1)[1], "nearest") == 90).all()
        assert (applied(images, away, identity(1)[1], "constant")[0, :, 12:] == 0).all()
