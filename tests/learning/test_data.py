from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from adpet.errors import InputError
from adpet.learning.data import (
    Augmentation,
    CutMix,
    SliceDataset,
    SliceReader,
    SliceRef,
    augment,
    balanced_weights,
    draw_augmentation,
    draw_cells,
    mix_labels,
    mix_slices,
    transform_cells,
)
from adpet.learning.model import CLASSES
from adpet.learning.saliency import class_activation_maps

SIZE = 32
STRONG = Augmentation(rotation_degrees=20, zoom=0.15, shift=0.1, shear=0.1, flip=True, intensity=0.2)
SAME = np.array([[1, 0, 0, 0, 1, 0, 0, 0]], np.float32)
NO_GAIN = np.ones((1, 2), np.float32)
CN, AD = np.eye(2, dtype=np.float32)[[CLASSES.index("CN"), CLASSES.index("AD")]]


def augmented(images, transforms, gains, fill="nearest"):
    n = len(images)
    transforms, gains = (np.broadcast_to(values, (n, values.shape[1])) for values in (transforms, gains))
    return keras.ops.convert_to_numpy(augment(images, transforms, gains, fill=fill))


@pytest.fixture
def refs(tmp_path):
    """Write ten scans of three slices, each slice of one grey level, its number."""
    for scan in range(10):
        levels = np.arange(3 * scan, 3 * scan + 3, dtype=np.uint8)
        np.save(tmp_path / f"{scan}.npy", np.tile(levels[:, None, None, None], (1, 4, 4, 1)))
    return [
        SliceRef(tmp_path / f"{scan}.npy", index, ("CN", "AD")[scan % 2], str(scan))
        for scan in range(10)
        for index in range(3)
    ]


class TestBalancedWeights:
    @given(st.lists(st.tuples(st.sampled_from(["AD", "CN"]), st.integers(0, 5)), min_size=1, max_size=40))
    def test_subjects_of_a_diagnosis_weigh_alike_and_diagnoses_alike(self, slices):
        refs = [SliceRef(Path("x.npy"), 0, label, f"{label}{subject}") for label, subject in slices]
        table = pd.DataFrame(slices, columns=["label", "subject"]).assign(weight=balanced_weights(refs))
        assert table["weight"].mean() == pytest.approx(1, rel=1e-5)
        subjects = table.groupby(["label", "subject"])["weight"].sum()
        for of_diagnosis in (subjects[label].to_numpy() for label in table["label"].unique()):
            assert of_diagnosis == pytest.approx(of_diagnosis[0], rel=1e-5)
        diagnoses = table.groupby("label")["weight"].sum().to_numpy()
        assert diagnoses == pytest.approx(diagnoses[0], rel=1e-5)

    def test_subject_whose_diagnosis_changed_counts_once_for_each(self):
        refs = [SliceRef(Path("x.npy"), 0, label, "1") for label in ("CN", "CN", "AD")]
        assert balanced_weights(refs).tolist() == [0.75, 0.75, 1.5]

    def test_batch_has_the_weights_of_its_slices(self, refs):
        lopsided = [replace(ref, subject="0") if ref.subject in "02" else ref for ref in refs]
        data = SliceDataset(lopsided, batch_size=30, augmentation=Augmentation(), seed=0, balance=True)
        inputs, _, weights = data[0]
        expected = balanced_weights(lopsided)
        assert expected.min() < expected.max()
        np.testing.assert_array_equal(weights, expected[inputs["slice"][:, 0, 0, 0]])


class TestSliceDataset:
    @staticmethod
    def dataset(refs, seed=0):
        return SliceDataset(refs, batch_size=8, augmentation=STRONG, seed=seed)

    @staticmethod
    def epoch_levels(data, epoch):
        data.epoch = epoch
        return np.concatenate([data[step][0]["slice"][:, 0, 0, 0] for step in range(len(data))])

    def test_batch_has_slices_with_their_labels(self, refs):
        inputs, labels, _ = self.dataset(refs)[0]
        assert {name: values.shape for name, values in inputs.items()} == {
            "slice": (8, 4, 4, 1),
            "transform": (8, 8),
            "gain": (8, 2),
        }
        assert inputs["slice"].dtype == np.uint8
        is_ad = (inputs["slice"][:, 0, 0, 0] // 3) % 2
        np.testing.assert_array_equal(labels, np.stack([1 - is_ad, is_ad], axis=1))

    def test_epoch_repeats_exactly_in_any_order_of_batches(self, refs):
        used, fresh = self.dataset(refs), self.dataset(refs)
        for epoch in (0, 1):
            self.epoch_levels(used, epoch)
        for data in (used, fresh):
            data.epoch = 2
        for step in (2, 0, 1):
            for name, values in used[step][0].items():
                np.testing.assert_array_equal(values, fresh[step][0][name])

    def test_epoch_has_each_slice_once_except_for_an_incomplete_batch(self, refs):
        levels = self.epoch_levels(self.dataset(refs), 0)
        assert len(levels) == len(set(levels)) == 24

    def test_epochs_and_seeds_differ_in_order_and_draws(self, refs):
        first = self.epoch_levels(self.dataset(refs), 0)
        assert not np.array_equal(first, self.epoch_levels(self.dataset(refs), 1))
        assert not np.array_equal(first, self.epoch_levels(self.dataset(refs, seed=1), 0))
        data = self.dataset(refs)
        assert not np.array_equal(data[0][0]["transform"], data[1][0]["transform"])

    def test_fewer_slices_than_a_batch_make_one_batch(self, refs):
        data = self.dataset(refs[:5])
        assert len(data) == 1
        assert len(data[0][1]) == 5

    def test_no_slices_are_refused(self):
        with pytest.raises(InputError, match="required at least one slice"):
            self.dataset([])


class TestSliceReader:
    @pytest.mark.parametrize(
        ("content", "index", "message"),
        [
            (None, 0, r"packed\.npy: required a packed file"),
            (np.zeros((3, 4, 4, 1), np.uint8), 3, "required more than 3 slices; received 3"),
            (np.zeros((2, 4, 4, 1), np.float32), 0, r"required uint8 \(n, .*\) in C order; received float32"),
            (np.zeros((2, 4, 4, 1), np.uint8, "F"), 0, r"received uint8 \(2, 4, 4, 1\) in Fortran order"),
            (np.zeros((2, 4, 4), np.uint8), 0, r"received uint8 \(2, 4, 4\)"),
            (np.array([{}], dtype=object), 0, "cannot be read"),
            (np.zeros((2, 8, 8, 1), np.uint8), 0, "slices of one size"),
        ],
        ids=["missing", "too few planes", "dtype", "order", "older form", "pickle", "two sizes"],
    )
    def test_unusable_file_is_named(self, refs, tmp_path, content, index, message):
        path = tmp_path / "packed.npy"
        if content is not None:
            np.save(path, content, allow_pickle=True)
        with pytest.raises(InputError, match=message):
            SliceReader([refs[0], SliceRef(path, index, "CN", "0")]).read([0, 1])


class TestDrawAugmentation:
    def test_no_augmentation_is_the_identity(self):
        transforms, gains = draw_augmentation(Augmentation(), 5, SIZE, np.random.default_rng(0))
        np.testing.assert_array_equal(transforms, np.repeat(SAME, 5, axis=0))
        np.testing.assert_array_equal(gains, np.ones((5, 2)))

    @given(seed=st.integers(0, 2**32 - 1))
    @settings(max_examples=20)
    def test_centre_stays_without_shift(self, seed):
        still = Augmentation(rotation_degrees=90, zoom=0.5, shear=0.5, flip=True)
        transforms, _ = draw_augmentation(still, 8, SIZE, np.random.default_rng(seed))
        centre = np.array([(SIZE - 1) / 2, (SIZE - 1) / 2, 1.0])
        np.testing.assert_allclose(transforms[:, :6].reshape(-1, 2, 3) @ centre, SIZE / 2 - 0.5, atol=1e-4)

    @pytest.mark.parametrize(
        ("augmentation", "value", "limit"),
        [
            (Augmentation(shift=0.1), lambda transforms, _: transforms[:, [2, 5]], 10),
            (Augmentation(intensity=0.2), lambda _, gains: gains - 1, 0.2),
            (
                Augmentation(rotation_degrees=20),
                lambda transforms, _: np.rad2deg(np.arctan2(transforms[:, 3], transforms[:, 0])),
                20,
            ),
            (Augmentation(flip=True), lambda transforms, _: transforms[:, 0], 1),
        ],
    )
    def test_draws_fill_their_ranges(self, augmentation, value, limit):
        values = value(*draw_augmentation(augmentation, 4000, 100, np.random.default_rng(0)))
        assert -limit * 1.0001 <= values.min() < -0.98 * limit
        assert 0.98 * limit < values.max() <= limit * 1.0001
        assert values.mean() == pytest.approx(0, abs=0.05 * limit)


class TestAugment:
    def test_identity_changes_no_pixel(self):
        images = np.arange(SIZE * SIZE, dtype=np.uint8).reshape(1, SIZE, SIZE, 1)
        np.testing.assert_array_equal(augmented(images, SAME, NO_GAIN), images)

    @pytest.mark.parametrize(("fill", "scipy_fill"), [("nearest", "nearest"), ("constant", "grid-constant")])
    def test_transform_equals_scipys_affine(self, fill, scipy_fill):
        smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((6, SIZE, SIZE)), (0, 2, 2))
        images = (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)[..., np.newaxis]
        transforms, _ = draw_augmentation(STRONG, 6, SIZE, np.random.default_rng(1))
        ours = augmented(images, transforms, NO_GAIN, fill)
        for image, transform, changed in zip(images[..., 0], transforms, ours[..., 0], strict=True):
            a0, a1, a2, b0, b1, b2 = transform[:6].astype(np.float64)
            theirs = ndimage.affine_transform(
                image.astype(np.float64), [[b1, b0], [a1, a0]], offset=[b2, a2], order=1, mode=scipy_fill
            )
            # Half a grey level is the rounding; the rest is single against double precision.
            assert np.abs(changed - theirs).max() <= 0.51

    @pytest.mark.parametrize(
        ("gain", "exponent", "levels"),
        [
            (1.2, 1.0, {0: 0, 100: 120, 250: 255}),
            (1.0, 1.2, {0: 0, 128: round(255 * (128 / 255) ** 1.2), 255: 255}),
        ],
    )
    def test_intensities_change_between_black_and_white(self, gain, exponent, levels):
        images = np.array(list(levels), np.uint8).repeat(SIZE * SIZE).reshape(3, SIZE, SIZE, 1)
        changed = augmented(images, SAME, np.array([[gain, exponent]], np.float32))
        assert changed[:, 0, 0, 0].tolist() == list(levels.values())


class TestCutMix:
    def test_share_of_slices_is_mixed(self):
        cells = draw_cells(CutMix(0.25, places=8), 4000, np.random.default_rng(0))
        whole = cells.all(axis=(1, 2))
        assert whole.mean() == pytest.approx(0.75, abs=0.03)
        assert cells[~whole].mean() == pytest.approx(0.5, abs=0.03)
        assert draw_cells(CutMix(0.0, places=8), 50, np.random.default_rng(0)).all()

    def test_place_has_the_pixels_and_the_label_of_its_cell(self):
        cells = np.array([[[True, False], [False, True]]])
        own, other = (np.full((1, 4, 4, 1), value, dtype=np.uint8) for value in (10, 200))
        np.testing.assert_array_equal(
            mix_slices(own, other, cells)[0, :, :, 0],
            [[10, 10, 200, 200], [10, 10, 200, 200], [200, 200, 10, 10], [200, 200, 10, 10]],
        )
        np.testing.assert_array_equal(mix_labels(AD[None], CN[None], cells)[0], [[AD, CN], [CN, AD]])

    @given(st.integers(0, 200), st.booleans())
    def test_cells_move_with_their_slices(self, seed, flip):
        rng = np.random.default_rng(seed)
        cells = draw_cells(CutMix(1.0, places=4), 1, rng)
        slices = mix_slices(*(np.full((1, 32, 32, 1), level, dtype=np.uint8) for level in (200, 0)), cells)
        moving = Augmentation(rotation_degrees=20, shift=0.1, zoom=0.1, flip=flip)
        transforms, gains = draw_augmentation(moving, 1, 32, rng)
        changed = augmented(slices, transforms, gains)[0, :, :, 0]
        shown = transform_cells(cells, transforms, 32)[0]
        # The four pixels around the centre of each place; those that lie on a border are neither level.
        middle = changed.reshape(4, 8, 4, 8)[:, 3:5, :, 3:5].mean(axis=(1, 3))
        clear = (middle > 190) | (middle < 10)
        np.testing.assert_array_equal(shown[clear], middle[clear] > 100)

    def test_slice_counts_as_a_whole_or_by_places(self, cohort):
        data = SliceDataset(
            cohort, batch_size=32, augmentation=Augmentation(), seed=0, cutmix=CutMix(0.5, places=4)
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

    def test_partner_has_the_same_plane(self, refs):
        """Each slice has one grey level: three times its scan plus its plane."""
        data = SliceDataset(
            refs, batch_size=30, augmentation=Augmentation(), seed=0, cutmix=CutMix(1.0, places=2)
        )
        levels = data[0][0]["slice"].reshape(30, 16)
        assert (levels.min(axis=1) < levels.max(axis=1)).any()
        assert (levels % 3 == levels[:, :1] % 3).all()

    def test_trained_network_points_at_the_difference(self, cohort, fit, small_model):
        model, history = fit(
            small_model(feature_layer="block_4_expand_relu"), training=cohort[:96], validation=[],
            augmentation=Augmentation(), learning_rate=3e-3, batch_size=12, epochs=12, mix=0.5,
        )  # fmt: skip
        assert 0 <= history.rows[-1]["accuracy"] <= 1
        slices = np.concatenate([np.load(ref.path)[:1] for ref in cohort[:96:8]])
        is_ad = np.array([ref.label == "AD" for ref in cohort[:96:8]])
        maps, logits = class_activation_maps(model, slices)
        assert logits[is_ad].min() > logits[~is_ad].max()
        difference = maps[is_ad].mean(axis=0) - maps[~is_ad].mean(axis=0)
        row, column = np.unravel_index(difference.argmax(), difference.shape)
        assert row in (1, 2)
        assert column in (0, 1)

    def test_validation_is_of_whole_slices(self, cohort, fit):
        _, history = fit(training=cohort[:64], validation=cohort[64:96], mix=0.9)
        best = history.rows[history.best_epoch]
        assert {name: best[name] for name in history.final} == pytest.approx(history.final, rel=1e-5)
