"""One image under two names is found whatever was done to it; two people are not taken for one."""

import numpy as np
import pytest
from scipy import ndimage

from adpet.cohort import duplicates
from adpet.cohort.duplicates import coarse_brain, find_duplicates, residual_patterns
from adpet.imaging.nifti import Volume
from adpet.imaging.template import fdg_template

GRID_MM = 3.0


def person(seed):
    """A standard volume: the template, times a smooth pattern of the person's own."""
    template = fdg_template(GRID_MM)
    rng = np.random.default_rng(seed)
    pattern = ndimage.gaussian_filter(rng.normal(size=template.data.shape), 12 / 2.355 / GRID_MM)
    data = template.data * (1 + 0.1 * pattern / pattern.std())
    return Volume(data.astype(np.float32), template.affine)


@pytest.fixture(scope="module")
def people():
    return [person(seed) for seed in range(14)]


@pytest.fixture(scope="module")
def brains(people):
    return np.stack([coarse_brain(volume) for volume in people])


def noise(data):
    return data + np.random.default_rng(0).normal(0, 0.03 * data[data > 1].mean(), data.shape)


COPIES = {
    "in another unit": lambda data: data * 3.7,
    "as bytes": lambda data: np.round(data / data.max() * 255),
    "with noise of 3 %": noise,
    "smoothed to 8 mm": lambda data: ndimage.gaussian_filter(data, 8 / 2.355 / GRID_MM),
    "registered 2 mm aside": lambda data: ndimage.shift(data, (0.6, -0.4, 0.3), order=1),
    "turned by 2 degrees": lambda data: ndimage.rotate(data, 2, reshape=False, order=1),
    "smoothed, noisy and in another unit": lambda data: (
        noise(ndimage.gaussian_filter(data, 6 / 2.355 / GRID_MM)) * 100
    ),
    "left and right swapped": lambda data: data[::-1],
}


def pairs(brains, subjects):
    return [(found.first, found.second) for found in find_duplicates(brains, subjects)]


def names(number):
    return [f"s{n}" for n in range(number)]


def test_brains_cut_off_alike_are_no_copies_but_a_copy_cut_off_is(people, brains):
    def cut(volume):
        data = volume.data.copy()
        data[:, :, -18:] = 0
        return coarse_brain(Volume(data, volume.affine))

    alike = [cut(people[number]) for number in (0, 1)]
    assert pairs(np.vstack([brains[2:], alike]), names(14)) == []
    assert pairs(np.vstack([brains, alike[:1]]), names(15)) == [(0, 14)]


def test_grid_may_be_of_single_precision():
    template = fdg_template(2.4)
    cut = template.data * (np.indices(template.data.shape)[2] > 10)
    stored = Volume(cut, template.affine.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(coarse_brain(stored), coarse_brain(Volume(cut, template.affine)), atol=1e-4)


def test_different_people_are_not_duplicates(brains):
    assert pairs(brains, names(14)) == []
    correlations = residual_patterns(brains) @ residual_patterns(brains).T
    assert np.abs(correlations[~np.eye(14, dtype=bool)]).max() < 0.6


@pytest.mark.parametrize("kind", COPIES)
def test_copy_is_found(people, brains, kind):
    copy = Volume(np.ascontiguousarray(COPIES[kind](people[3].data), dtype=np.float32), people[3].affine)
    assert pairs(np.vstack([brains, coarse_brain(copy)]), names(15)) == [(3, 14)]


def test_two_visits_of_one_person_may_be_alike(brains):
    again = np.vstack([brains, brains[:1]])
    assert pairs(again, [*names(14), "s0"]) == []


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9])
def test_few_people_are_not_duplicates_but_copies_are(brains, number):
    few = brains[:number]
    assert pairs(few, names(number)) == []
    assert pairs(np.vstack([few, few[:1] * 2]), names(number + 1)) == [(0, number)]


def test_blocks_change_nothing(brains, monkeypatch):
    copies = np.vstack([brains, brains[[3, 12]]])
    whole = find_duplicates(copies, names(16))
    monkeypatch.setattr(duplicates, "BLOCK_SCANS", 3)
    assert find_duplicates(copies, names(16)) == whole
    assert [(found.first, found.second) for found in whole] == [(3, 14), (12, 15)]
    assert [found.correlation for found in whole] == [1.0, 1.0]


def test_image_without_uptake_is_like_no_other(brains):
    empty = np.vstack([brains, np.zeros((2, brains.shape[1]), np.float32)])
    assert pairs(empty, names(16)) == []


def test_pairs_at_the_limit_are_found_as_when_all_are_compared(brains, monkeypatch):
    """Neither the first look at random projections nor half of its margin loses a pair."""
    monkeypatch.setattr(duplicates, "PROJECTED_MARGIN", duplicates.PROJECTED_MARGIN / 2)
    rng = np.random.default_rng(0)
    mean, spread = brains.mean(axis=0), brains.std(axis=0)
    one, other, third = rng.normal(size=(3, 200, brains.shape[1]))
    mix = np.linspace(0.6, 0.99, 200)[:, None]
    twins = mix * one + np.sqrt(1 - mix**2) * other
    crowd = (mean + 0.3 * spread * np.vstack([one, twins, third])).astype(np.float32)
    rest = residual_patterns(crowd)
    above = np.argwhere(np.triu(np.round(rest @ rest.T, 3) >= duplicates.MIN_CORRELATION, k=1))
    assert 50 < len(above) < 150
    assert pairs(crowd, names(600)) == [tuple(pair) for pair in above.tolist()]
