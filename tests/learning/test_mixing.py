"""Slices that are mixed from two subjects keep, cell by cell, whose they are."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.learning.augment import Augmentation
from adpet.learning.cam import class_activation_maps
from adpet.learning.dataset import SliceDataset, SliceRef
from adpet.learning.mixing import Mixing, Partners, draw_cells, mixed, place_labels
from adpet.learning.model import CLASSES, build_model
from adpet.learning.training import Optimisation, train

CN, AD = np.eye(2, dtype=np.float32)[[CLASSES.index("CN"), CLASSES.index("AD")]]


@given(st.integers(0, 100), st.integers(2, 6))
def test_a_partner_shows_the_same_plane(seed, planes):
    numbers = np.tile(np.arange(planes), 5)
    chosen = np.arange(len(numbers))
    partners = Partners(numbers.tolist()).draw(chosen, np.random.default_rng(seed))
    np.testing.assert_array_equal(numbers[partners], numbers)


def test_the_share_of_slices_that_is_asked_for_is_mixed_and_the_others_are_whole():
    cells = draw_cells(Mixing(0.25, places=8), 4000, np.random.default_rng(0))
    whole = cells.all(axis=(1, 2))
    assert whole.mean() == pytest.approx(0.75, abs=0.03)
    assert cells[~whole].mean() == pytest.approx(0.5, abs=0.03)
    assert draw_cells(Mixing(0.0, places=8), 50, np.random.default_rng(0)).all()


def test_every_place_has_the_label_and_the_pixels_of_its_cell():
    cells = np.array([[[1, 0], [0, 1]]], dtype=np.float32)
    own, other = (np.full((1, 4, 4, 1), value, dtype=np.uint8) for value in (10, 200))
    seen = keras.ops.convert_to_numpy(mixed(own, other, cells))[0, :, :, 0]
    np.testing.assert_array_equal(
        seen, [[10, 10, 200, 200], [10, 10, 200, 200], [200, 200, 10, 10], [200, 200, 10, 10]]
    )
    labels = place_labels(cells, AD[None], CN[None])
    np.testing.assert_array_equal(labels[0], [[AD, CN], [CN, AD]])


@pytest.fixture
def refs(tmp_path):
    """Write twelve scans of three planes; AD has a dark square on the left of each."""
    rng = np.random.default_rng(0)
    found = []
    for scan in range(12):
        slices = rng.integers(100, 160, (3, 32, 32))
        if scan % 2:
            slices[:, 8:16, 4:12] -= 70
        np.save(tmp_path / f"{scan}.npy", slices.astype(np.uint8))
        found += [SliceRef(tmp_path / f"{scan}.npy", i, ("CN", "AD")[scan % 2], str(scan)) for i in range(3)]
    return found


def test_a_batch_judges_a_slice_as_a_whole_or_place_by_place(refs):
    data = SliceDataset(
        refs, batch_size=32, augmentation=Augmentation(), seed=0, mixing=Mixing(0.5, places=4)
    )
    inputs, labels, weights = data[0]
    whole = inputs["cells"].all(axis=(1, 2))
    assert 0 < whole.sum() < len(whole)
    np.testing.assert_array_equal(weights["whole"], whole)
    assert weights["places"].shape == labels["places"].shape[:3] == (32, 4, 4)
    np.testing.assert_array_equal(weights["places"][:, 0, 0], ~whole)
    kept = inputs["cells"] > 0
    own = np.broadcast_to(labels["whole"][:, None, None], labels["places"].shape)
    np.testing.assert_array_equal(labels["places"][kept], own[kept])


def test_a_network_that_learns_from_mixed_slices_points_at_the_difference_alone(refs):
    model = build_model(input_size=32, alpha=0.35, feature_layer="block_4_expand_relu", dropout=0.2, seed=1)
    optimisation = Optimisation("adamw", 3e-3, "cosine", epochs=30, batch_size=12, mix=0.5)
    history = train(
        model, refs, [], optimisation=optimisation, augmentation=Augmentation(), monitor="val_loss", seed=1
    )
    assert 0 <= history.rows[-1]["accuracy"] <= 1
    slices = np.concatenate([np.load(ref.path)[:1] for ref in refs[::3]])
    is_ad = np.array([ref.label == "AD" for ref in refs[::3]])
    maps, logits = class_activation_maps(model, slices)
    assert logits[is_ad].min() > logits[~is_ad].max()
    apart = maps[is_ad].mean(axis=0) - maps[~is_ad].mean(axis=0)
    row, column = np.unravel_index(apart.argmax(), apart.shape)
    assert row == 1
    assert column in (0, 1)
