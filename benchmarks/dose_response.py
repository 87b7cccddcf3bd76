"""Show whether what a network learns on the simulated cohort holds on a real image.

    make repro
    python benchmarks/dose_response.py REAL_MEAN.nii

Trains the project's network again for each seed, on the training subjects of the simulated cohort. It is then
given a real mean image of patients and controls, as it is (dose 0) and with the average patient's deficits of
severity 0.5 to 2 multiplied in. The probability of AD must rise with every dose, and at dose 0 the logit must
lie between those of the simulated cohort's CN and AD test subjects. Exits with status 1 where it does not.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from adpet.cohort.splits import read_split
from adpet.imaging.nifti import Volume, read_volume
from adpet.imaging.normalization import load_standard, normalize, to_suvr, to_uint8
from adpet.imaging.registration import FWHM_PER_SIGMA, resample
from adpet.imaging.slices import network_slices
from adpet.learning import limit_threads
from adpet.learning.saliency import class_activation_maps
from adpet.params import Params, load_params
from adpet.paths import BEST_TRIAL, SLICES, SPLIT
from adpet.simulation.anatomy import GRID_MM, load_anatomy
from adpet.simulation.subject import average_person, person_uptake
from adpet.stages.common.fitting import fit, training_and_validation
from adpet.stages.slice import coronal_grid
from adpet.storage import read_json

DOSES = (0.0, 0.5, 1.0, 1.5, 2.0)
# Resolution of the real mean image, as `adpet simulate --check` finds it: deficits are no sharper than it is.
REAL_FWHM_MM = 12.0
# Where there is less uptake than this, pons = 1, there is none to lose.
LEAST_UPTAKE = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("real", type=Path, help="mean FDG-PET image, half of it of patients")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    params = load_params()
    params = params.with_values(read_json(BEST_TRIAL))
    limit_threads(params.compute.threads)
    split = read_split(SPLIT)
    dosed = real_slices(options.real, params)
    doses = "  ".join(f"dose {dose:.1f}" for dose in DOSES)
    print(f"seed  AUC       CN mean     AD mean  {doses}  verdict")
    held = [judged(seed, split, dosed, params) for seed in options.seeds]
    sys.exit(0 if all(held) else 1)


def real_slices(path: Path, params: Params) -> list[npt.NDArray[np.uint8]]:
    """Return the slices of the real image at each dose, made as those of any scan."""
    standard = load_standard(**params.normalize.model_dump(exclude={"min_similarity"}))
    volume = normalize(read_volume(path), standard)[0]
    slices = []
    for dose in DOSES:
        dosed = volume.data * resample(spared(dose), shape=volume.data.shape, affine=volume.affine)
        ratio = to_suvr(dosed, standard.reference)
        planes = network_slices(ratio, volume.affine, coronal_grid(params))
        slices.append(to_uint8(planes, window=params.slice.window))
    return slices


def spared(severity: float) -> Volume:
    """Return the share of uptake that the average patient keeps."""
    anatomy = load_anatomy()
    ill, healthy = (
        ndimage.gaussian_filter(image, REAL_FWHM_MM / FWHM_PER_SIGMA / GRID_MM)
        for image in person_uptake(average_person(anatomy), anatomy, age=75.0, severity=severity)
    )
    kept = np.where(healthy > LEAST_UPTAKE, ill / np.maximum(healthy, LEAST_UPTAKE), 1)
    return Volume(kept.astype(np.float32), anatomy.affine)


def judged(seed: int, split: pd.DataFrame, dosed: list[npt.NDArray[np.uint8]], params: Params) -> bool:
    """Train with one seed, print its row, and say whether it holds."""
    params = params.with_values({"seed": seed})
    slices = training_and_validation(split, params, fold=0)
    model, _ = fit(params, *slices, epochs=params.train.epochs)

    def logit(slices: npt.NDArray[np.uint8]) -> float:
        return float(class_activation_maps(model, slices)[1].mean())

    tested = split[split["part"] == "test"].drop_duplicates("scan")
    score = np.array([logit(np.load(SLICES / f"{scan}.npy")) for scan in tested["scan"]])
    ill = (tested["diagnosis"] == "AD").to_numpy()
    doses = [logit(slices) for slices in dosed]
    cn, ad = float(score[~ill].mean()), float(score[ill].mean())
    rises, between = bool((np.diff(doses) > 0).all()), cn < doses[0] < ad
    verdict = "holds" if rises and between else "does not rise" if not rises else "dose 0 lies outside"
    row = "  ".join(f"{value:+8.2f}" for value in doses)
    print(
        f"{seed:<4}  {roc_auc_score(ill, score):.3f}  {cn:+10.2f}  {ad:+10.2f}  {row}  {verdict}", flush=True
    )
    return rises and between


if __name__ == "__main__":
    main()
