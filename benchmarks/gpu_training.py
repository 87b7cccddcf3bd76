"""Time training on a GPU, next to bare Keras and to compiled torchvision.

    PYTHONPATH=src KERAS_BACKEND=jax python benchmarks/gpu_training.py [--size 128] [--alpha 1.5]
        [--layer Conv_1] [--batch 512] [--slices 32768] [--epochs 4] [--threads 4] [--minutes 8]

The network of 2019 on random slices. This project's training, augmented, with its slices on the device or
read from packed files, in bfloat16 and in float32; Keras' `fit` on arrays in memory; torchvision's
MobileNetV2, if it is installed, by `torch.compile`, channels last, its slices on the device; the last two
in bfloat16 without augmentation. Needs Keras, JAX (or TensorFlow) and NumPy. A way that may not end in time
is left out. The first epoch, which compiles, counts for itself: with JAX_COMPILATION_CACHE_DIR, a second run
shows what a cached one takes. On a CPU: `--size 32 --alpha 0.35 --batch 32 --slices 256 --epochs 2`.
"""

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from epochs import AUGMENTATION, build_network, compile_bare, write_packed

from adpet.learning import keras, limit_threads
from adpet.learning.data import SliceRef, one_hot
from adpet.learning.model import set_precision
from adpet.learning.training import STEPS_PER_CALL, Optimisation, train

DEFAULTS = {
    "size": 128, "alpha": 1.5, "layer": "Conv_1", "batch": 512, "slices": 32768, "epochs": 4, "threads": 4,
    "minutes": 8.0,
}  # fmt: skip
Tick = Callable[..., None]
TORCHVISION = "torchvision, compiled, bfloat16"


def main() -> None:
    """Print each way's images a second, and the time of its first epoch."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, value in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    options = parser.parse_args()
    deadline = time.perf_counter() + 60 * options.minutes
    limit_threads(options.threads)
    n = options.slices - options.slices % options.batch
    slices = np.random.default_rng(0).integers(0, 256, (n, options.size, options.size, 1), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        refs = write_packed(slices, Path(folder))
        ours = partial(_ours, options, refs)
        ways: dict[str, Callable[[Tick], None]] = {
            "adpet, on the device, bfloat16": partial(ours, precision="bfloat16", on_device=True),
            TORCHVISION: partial(_torchvision, options, slices),
            "adpet, streaming, bfloat16": partial(ours, precision="bfloat16", on_device=False),
            "Keras' fit, in memory, bfloat16": partial(_keras, options, slices, one_hot(refs)),
            "adpet, on the device, float32": partial(ours, precision="float32", on_device=True),
            "adpet, streaming, float32": partial(ours, precision="float32", on_device=False),
        }
        seconds = _time(ways, deadline)
    print(
        f"{options.size} px, alpha {options.alpha}, {options.layer}, batches of {options.batch}, {n} slices,"
    )
    print(f"{keras.backend.backend()}, {_device()}: median of {options.epochs} epochs\n")
    print("| way | images a second | first epoch, s | times torchvision |\n|---|---|---|---|")
    rates = {name: n / statistics.median(each[1:]) for name, each in seconds.items()}
    for name, rate in rates.items():
        times = f"{rate / rates[TORCHVISION]:.2f}" if TORCHVISION in rates else ""
        print(f"| {name} | {rate:,.0f} | {seconds[name][0]:.0f} | {times} |")


def _time(ways: dict[str, Callable[[Tick], None]], deadline: float) -> dict[str, list[float]]:
    """Return each way's seconds by epoch."""
    seconds: dict[str, list[float]] = {}
    for name, way in ways.items():
        longest = max((sum(each) for each in seconds.values()), default=0)
        if time.perf_counter() + longest > deadline:
            print(f"{name}: left out, since it may not end in time")
            continue
        ends = [time.perf_counter()]
        try:
            way(lambda *_, ends=ends: ends.append(time.perf_counter()))
        except Exception as error:  # noqa: BLE001 (the other ways are still worth their row)
            print(f"{name}: left out ({' '.join(str(error).split())[:200]})")
        else:
            seconds[name] = np.diff(ends).tolist()
    return seconds


def _ours(
    options: argparse.Namespace, refs: list[SliceRef], tick: Tick, *, precision: str, on_device: bool
) -> None:
    optimisation = Optimisation(
        "adamw", 1e-3, "cosine", options.epochs + 1, options.batch, 1e-4, precision=precision
    )
    settings = {"optimisation": optimisation, "augmentation": AUGMENTATION, "monitor": None, "seed": 0}
    train(build_network(options), refs, (), **settings, on_epoch=tick, finish=False, on_device=on_device)


def _keras(options: argparse.Namespace, slices: np.ndarray, labels: np.ndarray, tick: Tick) -> None:
    network = keras.models.clone_model(build_network(options))  # with Keras' own BatchNormalization
    set_precision(network, "bfloat16")
    network = compile_bare(network)
    network.steps_per_execution = STEPS_PER_CALL
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=tick)]
    network.fit(
        slices, labels, batch_size=options.batch, epochs=options.epochs + 1, verbose=0, callbacks=callbacks
    )


def _torchvision(options: argparse.Namespace, slices: np.ndarray, tick: Tick) -> None:
    import torch
    from torchvision.models import MobileNetV2

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = MobileNetV2(num_classes=2, width_mult=options.alpha)
    network.features[0][0] = torch.nn.Conv2d(1, network.features[0][0].out_channels, 3, 2, 1, bias=False)
    network = network.to(device, memory_format=torch.channels_last)
    images = torch.from_numpy(slices).to(device).permute(0, 3, 1, 2)  # channels last in memory
    labels = torch.arange(len(slices), device=device) % 2
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4, fused=device == "cuda")

    @torch.compile
    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16):
            return torch.nn.functional.cross_entropy(network(images / 127.5 - 1), labels)

    for _ in range(options.epochs + 1):
        for chosen in torch.randperm(len(slices), device=device).split(options.batch):
            loss = loss_of(images[chosen], labels[chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
        tick()


def _device() -> str:
    """Return the GPU's name."""
    if not shutil.which("nvidia-smi"):
        return "no GPU"
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or "no GPU"


if __name__ == "__main__":
    main()
