"""What keeping freed memory saves: ``python benchmarks/memory.py [--rounds 3] [--epochs 2] [--slices 640]``.

Trains the default network on random slices, in a process that gives large arrays back to the system and in
one that keeps them, in turn, several times. Processor time counts, so that other work on the machine matters
less; the ratio of such neighbours tells.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]

TRAINING = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
from adpet.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
from adpet.learning.data import Augmentation
from adpet.learning.data import SliceRef
from adpet.learning.model import build_model
from adpet.learning.training import Optimisation, set_determinism, train
from adpet.params import load_params
epochs, slices = int(sys.argv[2]), int(sys.argv[3])
params = load_params(Path("params.yaml"))
set_determinism(params.seed, params.compute.threads)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "slices.npy"
    shape = (slices, params.model.input_size, params.model.input_size)
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    refs = [SliceRef(path, n, ("AD", "CN")[n % 2], f"subject {n}") for n in range(slices)]
    model = build_model(**params.model.model_dump(), seed=params.seed)
    before = resource.getrusage(resource.RUSAGE_SELF)
    history = train(
        model, refs, refs[:64],
        optimisation=Optimisation("adamw", 0.002, "cosine", epochs=epochs, batch_size=32),
        augmentation=Augmentation(), monitor="val_loss", seed=params.seed,
    )
after = resource.getrusage(resource.RUSAGE_SELF)
user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
print(user, system, after.ru_maxrss, history.final["val_loss"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--slices", type=int, default=640)
    options = parser.parse_args()
    print(f"{'':<12} {'user':>8} {'system':>8} {'most memory':>12}   loss")
    ratios = []
    for _ in range(options.rounds):
        total = {}
        for how in ("given back", "kept"):
            user, system, most, loss = _training(how, options.epochs, options.slices)
            total[how] = user + system
            print(f"{how:<12} {user:>6.1f} s {system:>6.1f} s {most / 1024:>9.0f} MB   {loss}", flush=True)
        ratios.append(total["kept"] / total["given back"])
    print(f"processor time, kept to given back: {statistics.median(ratios):.2f}")


def _training(how: str, epochs: int, slices: int) -> tuple[float, ...]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    ran = subprocess.run(
        [sys.executable, "-c", TRAINING, how, str(epochs), str(slices)],
        cwd=PROJECT, env=clean | {"TF_CPP_MIN_LOG_LEVEL": "3"}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return tuple(float(value) for value in ran.stdout.split())


if __name__ == "__main__":
    main()
