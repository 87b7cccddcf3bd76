"""Ratios and bytes mean the same in every scan."""

import numpy as np
import pytest

from adpet.imaging.normalization import to_suvr, to_uint8

WINDOW = (0.0, 2.5)


class TestRatio:
    def test_the_reference_region_becomes_one(self):
        data = np.random.default_rng(0).uniform(1000, 9000, (5, 6, 7)).astype(np.float32)
        mask = np.zeros(data.shape, dtype=bool)
        mask[2:4] = True
        ratio = to_suvr(data, mask)
        assert ratio.dtype == np.float32
        assert ratio[mask].mean() == pytest.approx(1, rel=1e-6)

    def test_the_unit_of_activity_falls_out(self):
        data = np.random.default_rng(0).uniform(1, 9, (5, 6, 7)).astype(np.float32)
        mask = data > 2
        np.testing.assert_allclose(
            to_suvr(data, mask), to_suvr(data * 1000, mask), rtol=1e-6
        )

    def test_voxels_outside_the_scanners_view_do_not_count(self):
        data = np.array([[[4.0, 8.0, 0.0, -3.0, np.nan]]], dtype=np.float32)
        ratio = to_suvr(data, np.ones(data.shape, dtype=bool))
        np.testing.assert_allclose(ratio[0, 0, :2], [4 / 6, 8 / 6], rtol=1e-6)

    @pytest.mark.parametrize("value", [0.0, -2.0, np.nan])
    def test_a_reference_without_uptake_is_refused(self, value):
        data = np.full((2, 2, 2), value, dtype=np.float32)
        with pytest.raises(ValueError, match=r"reference region \(8 voxels\) must hold positive uptake"):
            to_suvr(data, np.ones(data.shape, dtype=bool))


class TestBytes:
    def test_the_windows_ends_are_0_and_255_and_beyond_is_clipped(self):
        levels = to_uint8(np.array([-1.0, 0.0, 1.25, 2.5, 9.0], np.float32), window=WINDOW)
        assert levels.dtype == np.uint8
        assert levels.tolist() == [0, 0, 128, 255, 255]

    def test_levels_are_equal_steps_of_the_ratio(self):
        ratio = np.linspace(*WINDOW, 256, dtype=np.float32)
        np.testing.assert_array_equal(to_uint8(ratio, window=WINDOW), np.arange(256))

    @pytest.mark.parametrize("window", [(1.0, 1.0), (2.0, 1.0), (0.0, float("nan"))])
    def test_a_window_that_does_not_ascend_is_refused(self, window):
        with pytest.raises(ValueError, match="`window` must ascend"):
            to_uint8(np.zeros(3, np.float32), window=window)
