"""Time an epoch of training, next to bare Keras and to the generator of 2019.

    python benchmarks/epochs.py [--size 64] [--alpha 0.5] [--layer block_13_expand_relu] [--batch 32]
                                [--slices 2048] [--threads 1]

The same network, slices and batches: this project's training, with augmentation, from its packed files;
Keras' `fit` on arrays in memory, without; and `fit` on Keras' old `ImageDataGenerator` over a folder of
JPEGs, as in the article, with its augmentation. They take turns in one process. Processor time counts; the
first epoch of each turn, which compiles, does not.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adpet.learning import keras, limit_threads
from adpet.learning.data import Augmentation, SliceRef, one_hot
from adpet.learning.model import build_model, compiles_with_xla
from adpet.learning.training import Optimisation, train

if TYPE_CHECKING:
    from collections.abc import Callable

# Of each turn, after one that compiles; and turns.
EPOCHS, TURNS = 3, 3
SLICES_A_FILE = 16

# As in `presets/protocol-2019.yaml`.
AUGMENTED_2019 = {
    "rotation_range": 20, "zoom_range": 0.05, "width_shift_range": 0.05, "height_shift_range": 0.05,
    "shear_range": 0.05, "horizontal_flip": True, "fill_mode": "nearest",
}  # fmt: skip
AUGMENTATION = Augmentation(rotation_degrees=20, zoom=0.05, shift=0.05, shear=0.05, flip=True)


def main() -> None:
    """Print the images a second of each way, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--layer", default="block_13_expand_relu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--slices", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    limit_threads(options.threads)
    slices = np.random.default_rng(0).integers(
        0, 256, (options.slices, options.size, options.size, 1), dtype=np.uint8
    )
    ways: dict[str, Callable[[], list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        refs = write_packed(slices, Path(folder))
        labels = one_hot(refs)
        network = build_network(options)
        ways["adpet, augmented"] = lambda: _ours(network, refs, options.batch)
        # Clones have Keras' own BatchNormalization.
        in_memory, generated = (compile_bare(keras.models.clone_model(network)) for _ in range(2))
        ways["bare Keras, in memory"] = lambda: _fit(in_memory, slices, labels, batch_size=options.batch)
        flow = _generator(slices, labels, Path(folder, "jpegs"), options.batch)
        ways["ImageDataGenerator over JPEGs, augmented"] = lambda: _fit(generated, flow)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, way in ways.items():
                seconds[name] += way()
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"{options.size} px, alpha {options.alpha}, {options.layer}, batches of {options.batch}, "
        f"{options.threads} threads, {keras.backend.backend()}: median of {TURNS * EPOCHS} epochs"
    )
    ours = median["adpet, augmented"]
    for name, one in median.items():
        print(f"{options.slices / one:8.0f} images/s  {name}; adpet is {one / ours:.2f} times as fast")


def build_network(options: argparse.Namespace) -> keras.Model:
    return build_model(
        input_size=options.size, alpha=options.alpha, feature_layer=options.layer, dropout=0.2, seed=0
    )


def write_packed(slices: np.ndarray, folder: Path) -> list[SliceRef]:
    refs = []
    for number in range(0, len(slices), SLICES_A_FILE):
        path = folder / f"{number}.npy"
        np.save(path, slices[number : number + SLICES_A_FILE])
        label = "AD" if number // SLICES_A_FILE % 2 else "CN"
        refs += [SliceRef(path, index, label, str(number)) for index in range(SLICES_A_FILE)]
    return refs


def _ours(network: keras.Model, refs: list[SliceRef], batch: int) -> list[float]:
    optimisation = Optimisation("adamw", 1e-3, "cosine", EPOCHS + 1, batch, weight_decay=1e-4)
    options = {"optimisation": optimisation, "augmentation": AUGMENTATION, "monitor": None, "seed": 0}
    ends = []
    on_epoch = lambda *_: ends.append(time.process_time())  # noqa: E731
    train(network, refs, (), **options, on_epoch=on_epoch, finish=False)
    return np.diff(ends).tolist()


def compile_bare(network: keras.Model) -> keras.Model:
    network.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=1e-4),
        loss="categorical_crossentropy",
        weighted_metrics=["accuracy"],
        jit_compile=compiles_with_xla(),
    )
    return network


class _Clock(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002 (Keras' signature)
        self._began = time.process_time()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        self.seconds.append(time.process_time() - self._began)


def _fit(network: keras.Model, *data: object, **settings: object) -> list[float]:
    clock = _Clock()
    network.fit(*data, epochs=EPOCHS + 1, verbose=0, callbacks=[clock], **settings)
    return clock.seconds[1:]


def _generator(slices: np.ndarray, labels: np.ndarray, folder: Path, batch: int) -> object:
    # Where Keras 3 keeps it.
    from keras._tf_keras.keras.preprocessing.image import ImageDataGenerator
    from PIL import Image

    for number, (pixels, label) in enumerate(zip(slices[..., 0], labels, strict=True)):
        place = folder / str(label.argmax())
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.jpg", quality=95)
    return ImageDataGenerator(**AUGMENTED_2019).flow_from_directory(
        folder, target_size=slices.shape[1:3], color_mode="grayscale", batch_size=batch
    )


if __name__ == "__main__":
    main()
