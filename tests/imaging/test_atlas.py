"""Atlas regions lie in the brain; label images are read in any orientation."""

import nibabel as nib
import numpy as np
import pytest

from adpet.errors import InputError
from adpet.imaging.atlas import AD_PATTERN, BUILT_IN, DESIKAN_KILLIANY, ELLIPSOIDS, load_atlas
from adpet.imaging.template import brain_mask, grid_axes, template_grid


@pytest.fixture
def label_file(tmp_path):
    """A label image of 2 mm in MNI space, stored from right to left: 7 on the right, 3 on the left."""
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [90, -126, -72]
    data = np.zeros((91, 109, 91), dtype=np.int16)
    data[:40], data[51:] = 7, 3
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "labels.nii.gz")
    return tmp_path / "labels.nii.gz"


@pytest.mark.parametrize("source", [BUILT_IN, DESIKAN_KILLIANY])
class TestShippedRegions:
    @pytest.mark.parametrize("grid_mm", [2.0, 3.0, 4.0])
    def test_every_region_is_there_on_both_sides(self, source, grid_mm):
        atlas = load_atlas(source, grid_mm)
        shape, affine = template_grid(grid_mm)
        x = affine[0, 3] + grid_mm * np.arange(shape[0])
        for label, name in atlas.names.items():
            where = atlas.labels == label
            assert where[x < 0].any(), name
            assert where[x > 0].any(), name

    def test_regions_lie_in_the_brain(self, source):
        atlas = load_atlas(source, 3.0)
        assert brain_mask(3.0)[atlas.labels > 0].mean() > 0.98

    def test_left_and_right_mirror_each_other(self, source):
        atlas = load_atlas(source, 3.0)
        for label, name in atlas.names.items():
            right = _centre(atlas.labels == label)
            assert np.linalg.norm(right - _centre(atlas.labels[::-1] == label)) < 6, name


def test_desikan_killiany_regions_lie_where_their_names_say():
    atlas = load_atlas(DESIKAN_KILLIANY, 3.0)
    shared = {name: label for label, name in atlas.names.items() if name in ELLIPSOIDS}
    assert len(atlas.names) == 42
    assert set(shared) == {"precuneus", "cuneus", "insula", "caudate", "putamen", "pericalcarine"}
    for name, label in shared.items():
        assert np.linalg.norm(_centre(atlas.labels == label) - ELLIPSOIDS[name][0]) < 10, name


def test_pattern_of_the_disease_is_made_of_regions():
    assert set(AD_PATTERN) <= set(ELLIPSOIDS)


def _centre(where):
    """Centre of a region's right half, MNI mm."""
    axes = np.stack(np.meshgrid(*grid_axes(3.0), indexing="ij"), axis=-1)
    return axes[where & (axes[..., 0] > 0)].mean(axis=0)


class TestAnAtlasFile:
    def test_is_read_in_any_orientation_and_named_by_the_table_beside_it(self, label_file):
        (label_file.parent / "labels.tsv").write_text("index\tname\n3\tleft half\n")
        atlas = load_atlas(str(label_file), 3.0)
        assert atlas.names == {3: "left half", 7: "label 7"}
        x = template_grid(3.0)[1][0, 3] + 3 * np.arange(atlas.labels.shape[0])
        assert not (atlas.labels[x > 1] == 3).any()
        assert (atlas.labels[x < -12] == 3).any()

    def test_image_without_labels_is_refused(self, label_file):
        image = nib.load(label_file)
        nib.save(nib.Nifti1Image(image.get_fdata().astype(np.float32) + 0.5, image.affine), label_file)
        with pytest.raises(InputError, match="required an image of labels"):
            load_atlas(str(label_file), 4.0)

    def test_table_without_names_is_refused(self, label_file):
        (label_file.parent / "labels.csv").write_text("id,label\n3,left\n")
        with pytest.raises(InputError, match="columns index"):
            load_atlas(str(label_file), 6.0)
