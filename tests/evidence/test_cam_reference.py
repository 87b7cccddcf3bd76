"""A referenced map says where a subject's map departs from healthy ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.errors import InputError
from adpet.evidence.cam_reference import Moments, above_own_mean, smoothed

INSIDE = np.ones((6, 6, 6), bool)
INSIDE[0] = False


def healthy(n, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=INSIDE.shape) * 5
    return [(common + rng.normal(size=INSIDE.shape)).astype(np.float32) for _ in range(n)]


def moments(maps):
    found = Moments()
    for one in maps:
        found.add(one)
    return found


@given(st.integers(3, 12), st.integers(0, 50))
def test_without_shrinkage_mean_and_spread_are_numpys(n, seed):
    maps = healthy(n, seed)
    reference = moments(maps).reference(INSIDE, shrinkage=0.0)
    np.testing.assert_allclose(reference.mean, np.mean(maps, axis=0), atol=1e-4)
    np.testing.assert_allclose(reference.spread, np.std(maps, axis=0, ddof=1), rtol=1e-2, atol=2e-3)


def test_what_every_healthy_map_has_is_not_unusual():
    maps = healthy(20)
    reference = moments(maps[:-1]).reference(INSIDE, shrinkage=0.1)
    odd = maps[-1].copy()
    odd[3, 3, 3] += 10
    z = reference.z_map(odd)
    assert np.unravel_index(np.argmax(z), z.shape) == (3, 3, 3)
    assert abs(np.delete(z.ravel(), z.argmax()).mean()) < 0.3


def test_shrinkage_keeps_a_place_without_spread_from_outgrowing_others():
    maps = healthy(10)
    for one in maps:
        one[2, 2, 2] = 1.0
    reference = moments(maps).reference(INSIDE, shrinkage=0.1)
    assert reference.spread[2, 2, 2] > 0.2


def test_too_few_or_equal_healthy_maps_are_refused():
    with pytest.raises(InputError, match="required 3 CN training scans or more; received 2"):
        moments(healthy(2)).reference(INSIDE, shrinkage=0.1)
    with pytest.raises(InputError, match="maps that differ"):
        moments([healthy(1)[0]] * 4).reference(INSIDE, shrinkage=0.1)


def test_what_lifts_a_map_everywhere_says_nothing_of_where():
    (data,) = healthy(1)
    lifted = above_own_mean(data + 7, INSIDE)
    np.testing.assert_allclose(lifted, above_own_mean(data, INSIDE), atol=1e-4)
    assert abs(lifted[INSIDE].mean()) < 1e-4
    assert (lifted[~INSIDE] == 0).all()


def test_smoothing_stays_inside_and_keeps_what_is_constant():
    found = smoothed(np.ones(INSIDE.shape, np.float32), fwhm_mm=9, grid_mm=3, inside=INSIDE)
    np.testing.assert_allclose(found[INSIDE], 1, rtol=1e-5)
    assert (found[~INSIDE] == 0).all()


def test_no_smoothing_leaves_the_map_as_it_is_inside():
    (data,) = healthy(1)
    np.testing.assert_array_equal(smoothed(data, fwhm_mm=0, grid_mm=3, inside=INSIDE)[INSIDE], data[INSIDE])
