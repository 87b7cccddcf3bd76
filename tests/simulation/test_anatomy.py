"""The healthy head has the published regional uptake."""

import pytest
from scipy import ndimage

from adpet.imaging.registration import FWHM_PER_SIGMA
from adpet.simulation.anatomy import (
    GRID_MM,
    NORMATIVE,
    REGIONS,
    TABLE_FWHM_MM,
    WHITE_UPTAKE,
    brain_uptake,
    grey_matter,
    region_masks,
)


@pytest.fixture(scope="module")
def healthy(anatomy):
    """The average healthy head before blur, (i, j, k)."""
    values = anatomy.values
    grey, white = brain_uptake(
        anatomy, grey_matter(anatomy, 0.0), left=values, right=values, white=WHITE_UPTAKE
    )
    return anatomy.on_grid(grey + white) + anatomy.scalp


def blurred(image, fwhm_mm):
    return ndimage.gaussian_filter(image, fwhm_mm / FWHM_PER_SIGMA / GRID_MM)


def test_every_region_has_grey_matter_on_both_sides(anatomy):
    middle = (anatomy.tissue.shape[0] - 1) // 2
    for name, mask in region_masks(anatomy).items():
        left, right = mask[:middle].sum(), mask[middle + 1 :].sum()
        assert min(left, right) > 0.35 * max(left, right), name


class TestHealthyUptake:
    @pytest.mark.parametrize("name", NORMATIVE)
    def test_regional_means_are_those_of_the_published_table(self, anatomy, healthy, name):
        mask = region_masks(anatomy)[name]
        assert blurred(healthy, TABLE_FWHM_MM)[mask].mean() == pytest.approx(REGIONS[name].mean, rel=0.02)

    def test_thinning_takes_uptake_from_cortex_and_leaves_deep_grey_and_pons(self, anatomy):
        thick, thin = grey_matter(anatomy, 0.0), grey_matter(anatomy, 0.1)
        masks = region_masks(anatomy)
        lost = anatomy.on_grid(thick - thin)
        assert lost[masks["lateral parietal"]].mean() > 0.05
        assert lost[masks["pons"]].mean() < 0.02
