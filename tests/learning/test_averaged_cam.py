"""Averaging maps over shifts and mirror images keeps what lies where."""

from types import SimpleNamespace

import numpy as np
import pytest

from adpet.imaging.coronal import resize_maps
from adpet.learning.averaged_cam import averaged_activation_maps
from adpet.learning.cam import class_activation_maps

SLICES = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)


@pytest.fixture
def brightness(monkeypatch):
    """Explain by a network whose map is the mean brightness of squares of eight pixels."""

    def maps(_model, slices, _batch_size=64, **_):
        n, size = slices.shape[:2]
        squares = slices.reshape(n, size // 8, 8, size // 8, 8).mean(axis=(2, 4))
        return squares.astype(np.float32), np.zeros(n, np.float32)

    monkeypatch.setattr("adpet.learning.averaged_cam.class_activation_maps", maps)
    layer = SimpleNamespace(output=np.empty((1, 8, 8, 1)))
    monkeypatch.setattr("adpet.learning.averaged_cam.feature_layer", lambda _model: layer)


def spot(row, column):
    slices = np.zeros((1, 64, 64), np.uint8)
    slices[0, row : row + 2, column : column + 2] = 255
    return slices


def test_without_shifts_and_mirror_it_is_the_map_itself(small_model):
    model = small_model()
    maps, _ = class_activation_maps(model, SLICES)
    averaged = averaged_activation_maps(model, SLICES, shifts=1, mirror=False)
    np.testing.assert_allclose(averaged, resize_maps(maps, 32), atol=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("row", "column"), [(20, 20), (25, 40), (39, 17)])
def test_shifts_bring_the_peak_nearer_to_where_it_is(brightness, row, column, mirror):
    def miss(shifts):
        (found,) = averaged_activation_maps(None, spot(row, column), shifts=shifts, mirror=mirror)
        centre = [np.sum(found * place) / found.sum() for place in np.indices(found.shape)]
        return np.hypot(centre[0] - row - 0.5, centre[1] - column - 0.5)

    assert miss(4) < 1.0
    assert miss(4) <= miss(1) + 1e-6


def test_a_mirrored_slice_has_the_mirrored_map(small_model):
    model = small_model()
    settings = {"shifts": 1, "mirror": True}
    maps = averaged_activation_maps(model, SLICES, **settings)
    mirrored = averaged_activation_maps(model, SLICES[:, :, ::-1], **settings)
    np.testing.assert_allclose(mirrored[:, :, ::-1], maps, atol=1e-4)
