import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning import data as module
from adpet.learning.data import Augmentation, SliceDataset, SliceReader, SliceRef, one_hot

AUGMENTATION = Augmentation(rotation_degrees=10, flip=True, intensity=0.1)


@pytest.fixture
def refs(tmp_path):
    """Write ten scans of three slices, each slice of one grey level, its number."""
    for scan in range(10):
        levels = np.arange(3 * scan, 3 * scan + 3, dtype=np.uint8)
        np.save(tmp_path / f"{scan}.npy", np.tile(levels[:, None, None], (1, 4, 4)))
    return [
        SliceRef(tmp_path / f"{scan}.npy", index, ("CN", "AD")[scan % 2], str(scan))
        for scan in range(10)
        for index in range(3)
    ]


def dataset(refs, seed=0, batch_size=8):
    return SliceDataset(refs, batch_size=batch_size, augmentation=AUGMENTATION, seed=seed)


def levels_of(batch):
    return batch[0]["slice"][:, 0, 0, 0]


def epoch_levels(data, epoch):
    data.epoch = epoch
    return np.concatenate([levels_of(data[step]) for step in range(len(data))])


class TestSliceDataset:
    def test_a_batch_holds_the_slices_and_their_labels(self, refs):
        inputs, labels = dataset(refs)[0]
        assert inputs["slice"].shape == (8, 4, 4, 1)
        assert inputs["slice"].dtype == np.uint8
        assert inputs["transform"].shape == (8, 8)
        assert inputs["gain"].shape == (8, 2)
        is_ad = (inputs["slice"][:, 0, 0, 0] // 3) % 2
        np.testing.assert_array_equal(labels, np.stack([1 - is_ad, is_ad], axis=1))

    def test_any_epoch_is_replayed_exactly_whatever_came_before(self, refs):
        seen, fresh = dataset(refs), dataset(refs)
        for epoch in (0, 1):
            epoch_levels(seen, epoch)
        for data in (seen, fresh):
            data.epoch = 2
        for step in (2, 0, 1):
            for name, values in seen[step][0].items():
                np.testing.assert_array_equal(values, fresh[step][0][name])

    def test_an_epoch_takes_every_slice_at_most_once_and_leaves_out_less_than_a_batch(self, refs):
        levels = epoch_levels(dataset(refs), 0)
        assert len(levels) == len(set(levels)) == 24

    def test_epochs_and_seeds_differ_in_order_and_in_draws(self, refs):
        first = epoch_levels(dataset(refs), 0)
        assert not np.array_equal(first, epoch_levels(dataset(refs), 1))
        assert not np.array_equal(first, epoch_levels(dataset(refs, seed=1), 0))
        data = dataset(refs)
        assert not np.array_equal(data[0][0]["transform"], data[1][0]["transform"])

    def test_fewer_slices_than_a_batch_make_one_batch(self, refs):
        data = dataset(refs[:5])
        assert len(data) == 1
        assert len(data[0][1]) == 5

    def test_no_slices_are_refused(self):
        with pytest.raises(InputError, match="required at least one slice"):
            dataset([])

    def test_few_files_are_open_however_many_scans_there_are(self, refs, monkeypatch):
        monkeypatch.setattr(module, "OPEN_FILES", 2)
        reader = SliceReader(refs)
        np.testing.assert_array_equal(reader.read(range(30))[:, 0, 0, 0], np.arange(30))
        assert reader._packed.cache_info().currsize == 2


class TestUnusableInput:
    def test_an_unknown_label_is_refused(self, refs):
        with pytest.raises(InputError, match="required a label of CN, AD; received MCI"):
            one_hot([SliceRef(refs[0].path, 0, "MCI", "s")])

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(InputError, match=r"gone\.npy: required a packed file"):
            SliceReader([SliceRef(tmp_path / "gone.npy", 0, "AD", "s")]).read([0])

    def test_a_plane_beyond_the_file_is_refused(self, refs):
        with pytest.raises(InputError, match="required more than 3 slices; received 3"):
            SliceReader([SliceRef(refs[0].path, 3, "CN", "0")]).read([0])

    def test_another_dtype_is_refused(self, tmp_path):
        np.save(tmp_path / "float.npy", np.zeros((2, 4, 4), np.float32))
        with pytest.raises(InputError, match=r"required uint8 \(n, height, width\); received float32"):
            SliceReader([SliceRef(tmp_path / "float.npy", 0, "CN", "0")]).read([0])

    def test_pickled_arrays_are_refused(self, tmp_path):
        np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(InputError, match="cannot be read"):
            SliceReader([SliceRef(tmp_path / "objects.npy", 0, "CN", "0")]).read([0])

    def test_two_sizes_in_one_batch_are_refused(self, refs, tmp_path):
        np.save(tmp_path / "large.npy", np.zeros((2, 8, 8), np.uint8))
        with pytest.raises(InputError, match="slices of one size"):
            SliceReader([refs[0], SliceRef(tmp_path / "large.npy", 0, "CN", "0")]).read([0, 1])
