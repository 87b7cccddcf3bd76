"""Time ClinicaDL's coronal slices, in an environment of its own; run by `scans.py --clinicadl`.

Reads JSON on standard input: scans, planes in voxels of the grid (shape, affine), and sd_mm of the smoothing.
Prints the processor time a scan of each way. Imports, the listing of files and the counting of slices do not
count.
"""

import importlib.metadata
import json
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch


def main() -> None:
    """Run the ways that this version has."""
    torch.set_num_threads(1)
    asked = json.load(sys.stdin)
    version = importlib.metadata.version("clinicadl")
    with tempfile.TemporaryDirectory() as folder:
        ways = (prepared_slices if version.startswith("1.") else dataset_slices)(asked, Path(folder))
    print(json.dumps({f"ClinicaDL {version}: {way}": s / len(asked["scans"]) for way, s in ways.items()}))


def prepared_slices(asked: dict, folder: Path) -> dict[str, float]:
    """Read, cut and write, as `clinicadl prepare-data slice` of 1.6 does, as many slices from the middle."""
    from clinicadl.prepare_data.prepare_data_utils import extract_slices

    start = time.process_time()
    for scan in map(Path, asked["scans"]):
        spare = nib.load(scan).shape[1] - len(asked["planes"])
        for name, tensor in extract_slices(scan, 1, "single", (spare // 2, spare - spare // 2)):
            torch.save(tensor, folder / name)
    return {"`prepare-data slice`": time.process_time() - start}


def dataset_slices(asked: dict, folder: Path) -> dict[str, float]:
    """Read every slice of ClinicaDL 2's data sets once."""
    from clinicadl.data.datasets import BidsDataset
    from clinicadl.io.bids import BidsFileType
    from clinicadl.transforms import TransformsHandler
    from clinicadl.transforms.config import RandomBlurConfig, ResampleConfig
    from clinicadl.transforms.extraction import Slice

    described = {"Name": "scans", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(described))
    rows = ["participant_id\tsession_id\tslice_idx"]
    for number, scan in enumerate(map(Path, asked["scans"])):
        copy = folder / f"sub-{number}/ses-1/pet/sub-{number}_ses-1_pet{scan.name[scan.name.index('.nii') :]}"
        copy.parent.mkdir(parents=True)
        copy.write_bytes(scan.read_bytes())
        planes = np.linspace(0.2, 0.8, len(asked["planes"])) * nib.load(scan).shape[1]
        rows += [f"sub-{number}\tses-1\t{int(plane)}" for plane in planes]
    (folder / "slices.tsv").write_text("\n".join(rows))
    cut, pet = (
        Slice(tsv_path=folder / "slices.tsv", slice_direction=1),
        BidsFileType(suffix="pet", data_type="pet"),
    )
    grid = folder / "grid.nii"
    nib.save(nib.Nifti1Image(np.zeros(asked["shape"], np.float32), np.array(asked["affine"])), grid)
    changes = [ResampleConfig(target=grid), RandomBlurConfig(std=(asked["sd_mm"], asked["sd_mm"]))]
    smoothed = TransformsHandler(Slice(asked["planes"], slice_direction=1), image_transforms=changes)

    def spent(dataset: BidsDataset, **tensors: object) -> float:
        start = time.process_time()
        dataset = dataset.to_tensors(**tensors) if tensors else dataset
        seconds = time.process_time() - start
        slices = len(dataset)
        if slices != len(asked["scans"]) * len(asked["planes"]):
            raise ValueError(f"{slices} slices of {len(asked['scans'])} scans")
        start = time.process_time()
        for number in range(slices):
            dataset[number]
        return seconds + time.process_time() - start

    plain = BidsDataset(folder, pet, transforms=TransformsHandler(cut))
    same = BidsDataset(folder, pet, transforms=smoothed)
    return {
        "`BidsDataset`": spent(plain),
        "`to_tensors`, `TensorDataset`": spent(plain, conversion_name="plain"),
        "the same, resampled and smoothed": spent(same, conversion_name="same", save_transforms=True),
    }


if __name__ == "__main__":
    main()
