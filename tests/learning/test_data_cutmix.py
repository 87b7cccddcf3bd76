"""Slices that are mixed from two subjects keep, cell by cell, whose they are."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adpet.learning.data import (
    Augmentation,
    Mixing,
    Partners,
    SliceDataset,
    SliceRef,
    apply,
    draw,
    draw_cells,
    identity,
    mixed,
    moved_cells,
    place_labels,
)
from adpet.learning.model import CLASSES, build_model
from adpet.learning.saliency import class_activation_maps
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
    cells = np.array([[[True, False], [False, True]]])
    own, other = (np.full((1, 4, 4, 1), value, dtype=np.uint8) for value in (10, 200))
    seen = mixed(own, other, cells)[0, :, :, 0]
    np.testing.assert_array_equal(
        seen, [[10, 10, 200, 200], [10, 10, 200, 200], [200, 200, 10, 10], [200, 200, 10, 10]]
    )
    labels = place_labels(cells, AD[None], CN[None])
    np.testing.assert_array_equal(labels[0], [[AD, CN], [CN, AD]])


@given(st.integers(0, 200), st.booleans())
def test_the_cells_move_as_the_slices_do(seed, flip):
    """Where a slice of two levels is changed, a place in the midst of a cell shows the level of its cell."""
    rng = np.random.default_rng(seed)
    cells = draw_cells(Mixing(1.0, places=4), 1, rng)
    slices = mixed(*(np.full((1, 32, 32, 1), level, dtype=np.uint8) for level in (200, 0)), cells)
    transforms, gains = draw(Augmentation(rotation_degrees=20, shift=0.1, zoom=0.1, flip=flip), 1, 32, rng)
    changed = keras.ops.convert_to_numpy(apply(slices, transforms, gains, fill="nearest"))[0, :, :, 0]
    shown = moved_cells(cells, transforms, 32)[0]
    # The four pixels around the centre of each place; those that lie on a border are neither level.
    middle = changed.reshape(4, 8, 4, 8)[:, 3:5, :, 3:5].mean(axis=(1, 3))
    clear = (middle > 190) | (middle < 10)
    np.testing.assert_array_equal(shown[clear], middle[clear] > 100)


def test_without_a_change_cells_stay_where_they_are():
    cells = draw_cells(Mixing(1.0, places=8), 5, np.random.default_rng(0))
    np.testing.assert_array_equal(moved_cells(cells, identity(5)[0], 64), cells)


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
    _, labels, weights = data[0]
    assert labels["places"].shape == (32, 4, 4, 2)
    assert weights["places"].shape == (32, 4, 4)
    whole = weights["whole"] == 1
    assert 0 < whole.sum() < len(whole)
    np.testing.assert_array_equal(weights["places"][:, 0, 0], ~whole)
    own = np.broadcast_to(labels["whole"][:, None, None], labels["places"].shape)
    np.testing.assert_array_equal(labels["places"][whole], own[whole])
    assert (labels["places"][~whole] != own[~whole]).any()


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


def test_an_epoch_is_measured_as_the_network_answers_about_whole_slices(refs):
    model = build_model(input_size=32, alpha=0.35, feature_layer="block_4_expand_relu", dropout=0.2, seed=1)
    optimisation = Optimisation("adamw", 3e-3, "cosine", epochs=3, batch_size=12, mix=0.9)
    history = train(
        model, refs[:24], refs[24:], optimisation=optimisation, augmentation=Augmentation(),
        monitor="val_loss", seed=1,
    )  # fmt: skip
    best = history.rows[history.best_epoch]
    assert {name: best[name] for name in history.final} == pytest.approx(history.final, rel=1e-5)
