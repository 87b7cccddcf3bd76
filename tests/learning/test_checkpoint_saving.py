"""A saved network is the same bytes every time, without pickle, and loads in safe mode."""

import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest

from adpet.errors import InputError
from adpet.learning.checkpoint import load_model, save_model
from adpet.learning.model import build_model


@pytest.fixture(scope="module")
def network():
    return build_model(input_size=32, alpha=0.35, feature_layer="block_6_expand_relu", dropout=0.2, seed=1)


def test_two_savings_are_the_same_bytes(network, tmp_path):
    save_model(network, tmp_path / "one.keras")
    time.sleep(1.1)  # Keras stamps whole seconds
    save_model(network, tmp_path / "two.keras")
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.keras", "two.keras"]


def test_another_process_writes_the_same_bytes(network, tmp_path):
    """Keras would write addresses of objects in memory."""
    code = (
        "import sys; from pathlib import Path; from adpet.learning.model import build_model; "
        "from adpet.learning.checkpoint import save_model; "
        "held = [object() for _ in range(99_999)]; "
        "save_model(build_model(input_size=32, alpha=0.35, feature_layer='block_6_expand_relu', dropout=0.2, "
        "seed=1), Path(sys.argv[1]))"
    )
    for name in ("one.keras", "two.keras"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()


def test_it_comes_back_as_it_was(network, tmp_path):
    save_model(network, tmp_path / "model.keras")
    slices = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 1), dtype=np.uint8)
    np.testing.assert_array_equal(
        network.predict_on_batch(slices), load_model(tmp_path / "model.keras").predict_on_batch(slices)
    )


def test_there_is_no_pickle_in_it(network, tmp_path):
    save_model(network, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert set(archive.namelist()) == {"config.json", "metadata.json", "model.weights.h5"}
    assert keras.saving.load_model(tmp_path / "model.keras", safe_mode=True) is not None


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "model.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"required a saved Keras model.*run: dvc repro") as refused:
        load_model(path)
    assert "\n" not in str(refused.value)


def test_a_network_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path, monkeypatch):
    """Keras keeps a Lambda layer as marshalled bytecode, which its safe mode does not read."""
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((1,))
    layer = keras.layers.Lambda(lambda x: (__import__("pathlib").Path("it ran").touch(), x)[1])
    keras.Model(inputs, layer(inputs)).save("model.keras")
    (tmp_path / "it ran").unlink()
    with pytest.raises(
        InputError, match=r"required a saved Keras model; received: .*arbitrary code execution"
    ):
        load_model(tmp_path / "model.keras")
    assert not (tmp_path / "it ran").exists()
