"""The learning layer on a machine that has Keras, JAX and NumPy, and nothing else of ours."""

import json
import os

import numpy as np
import pytest
from programs import run_code

JAX = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
# Without optimisation XLA compiles in a third of the time.
UNOPTIMISED = "--xla_backend_optimization_level=0"

PROGRAM = """
import sys
REFUSED = {
    "dvc", "joblib", "matplotlib", "mlflow", "nilearn", "optuna", "pandas", "pydantic", "ruamel",
    "sklearn", "tensorflow", "torch", "tqdm",
}

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")

sys.meta_path.insert(0, Finder())

import tempfile
from pathlib import Path
import keras
import numpy as np
from adpet.learning import limit_threads
from adpet.learning.checkpoint import weights_difference
from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.saliency import class_activation_maps
from adpet.learning.model import _COMPILED, HEAD_NAME, build_model, reused_model
from adpet.learning.training import Optimisation, train

assert keras.backend.backend() == "jax"
limit_threads(1)
folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
refs = []
for number in range(12):
    packed = rng.integers(80, 140, (8, 32, 32)).astype(np.uint8)
    if number % 2:
        packed[:, 8:20, 4:16] //= 2
    np.save(folder / f"{number}.npy", packed[..., None])
    label = ("CN", "AD")[number % 2]
    refs += [SliceRef(folder / f"{number}.npy", index, label, str(number)) for index in range(8)]
network = {"input_size": 32, "alpha": 0.35, "feature_layer": "block_6_expand_relu", "dropout": 0.2, "seed": 1}
settings = {
    "optimisation": Optimisation("adamw", 2e-3, "cosine", epochs=4, batch_size=16, mix=0.5),
    "augmentation": Augmentation(rotation_degrees=5, flip=False, intensity=0.05), "monitor": "val_loss", "seed": 1,
}
model = build_model(**network)
history = train(model, refs[:64], refs[64:], **settings, checkpoint=folder / "training.npz")
assert history.final["val_subject_auc"] == 1, history
for slices in (refs[:50], refs[:64]):
    again = reused_model(**network)
    train(again, slices, refs[64:], **settings, on_device=True)
assert weights_difference(again, model) is None
assert sum(key[0] == "trainer" for key in _COMPILED[again]) == 1
maps, logits = class_activation_maps(model, np.load(folder / "1.npy"))
cn, ad = np.asarray(model.get_layer(HEAD_NAME).bias)
np.testing.assert_allclose(maps.mean(axis=(1, 2)) + ad - cn, logits, atol=1e-4)
assert not REFUSED & set(sys.modules), REFUSED & set(sys.modules)
print("trained")
"""


@pytest.mark.slow
def test_trains_and_explains_with_jax_alone():
    run = run_code(PROGRAM, **JAX, XLA_FLAGS=UNOPTIMISED)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == "trained"


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "used"), [(None, "tensorflow"), ("jax", "jax")])
def test_keras_json_of_the_user_changes_no_setting(tmp_path, backend, used):
    own = {"floatx": "float16", "epsilon": 0.1, "backend": "torch", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(own))
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(tmp_path)} | ({"KERAS_BACKEND": backend} if backend else {})
    program = (
        "import adpet.learning.model, keras; config = keras.config; print(keras.backend.backend(), "
        "config.image_data_format(), config.floatx(), config.epsilon(), config.dtype_policy().name)"
    )
    run = run_code(program, env=environment)
    assert run.stdout.split() == [used, "channels_last", "float32", "1e-07", "float32"], run.stderr


SHARED_GPU = """
from jaxlib.xla_client import generate_pjrt_gpu_plugin_options as gpu_options
from adpet.learning import limit_threads
from adpet.parallel import map_in_processes
limit_threads(1)
print(*map_in_processes(lambda _: gpu_options()["preallocate"], range(2), workers=2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "used"), [({}, "False"), ({"XLA_PYTHON_CLIENT_PREALLOCATE": "true"}, "True")]
)
def test_workers_on_one_gpu_take_no_memory_ahead_unless_the_user_says_so(own, used):
    run = run_code(SHARED_GPU, **own)
    assert run.stdout.split() == [used, used], run.stderr


SPREAD = """
import json, os, sys, tempfile
from pathlib import Path
import numpy as np
from adpet.learning import limit_threads, spread_over_devices
from adpet.learning.data import Augmentation, SliceRef
from adpet.learning.model import build_model
from adpet.learning.training import Optimisation, train

devices = int(sys.argv[1])
limit_threads(1)
spread_over_devices(devices, batch_size=int(sys.argv[2]))
rng, folder, refs = np.random.default_rng(0), Path(tempfile.mkdtemp()), []
for number in range(4):
    packed = rng.integers(0, 256, (16, 32, 32, 1), dtype=np.uint8)
    packed[:, :16] //= 1 + number % 2
    np.save(folder / f"{number}.npy", packed)
    refs += [SliceRef(folder / f"{number}.npy", index, ("CN", "AD")[number % 2], str(number)) for index in range(16)]
model = build_model(input_size=32, alpha=0.35, feature_layer="block_4_expand_relu", dropout=0.2, seed=0)
history = train(
    model, refs, refs[:32], optimisation=Optimisation("adamw", 1e-3, "cosine", epochs=2, batch_size=16),
    augmentation=Augmentation(rotation_degrees=5, flip=True), monitor=None, seed=0, on_device=devices > 1,
)
placed = {len(variable.value.sharding.device_set) for variable in model.variables}
print(json.dumps({"devices": sorted(placed), "losses": [[row["loss"], row["val_loss"]] for row in history.rows]}))
"""


def spread(devices, batch_size=16):
    """Train on one or both of two simulated devices of the CPU."""
    flags = f"--xla_force_host_platform_device_count=2 {UNOPTIMISED}"
    return run_code(SPREAD, devices, batch_size, **JAX, XLA_FLAGS=flags)


@pytest.mark.slow
def test_two_devices_train_as_one_does():
    one, two = (json.loads(spread(devices).stdout) for devices in (1, 2))
    assert (one["devices"], two["devices"]) == ([1], [2])
    np.testing.assert_allclose(two["losses"], one["losses"], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("devices", "batch_size"), [(3, 15), (2, 15)])
def test_devices_that_are_not_there_or_cannot_share_a_batch_are_refused(devices, batch_size):
    refused = spread(devices, batch_size).stderr.strip().splitlines()[-1]
    assert f"ParameterError: compute.devices: {devices} devices need" in refused
