"""Make the FDG image that scans are compared with: the mean of simulated healthy people.

    python scripts/fdg_mean.py [--output src/adpet/imaging/fdg_mean.nii.gz]

Simulates 60 CN subjects with a seed that no published cohort has, normalizes them without smoothing, and
writes the mean of what the scans show, both sides of the head alike, as uint8 on the 3 mm grid.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from adpet import paths
from adpet.cohort.scans import read_scans
from adpet.imaging.nifti import read_volume
from adpet.imaging.template import FDG_MEAN
from adpet.storage import write_json

OTHERS = {"mci_subjects": 0, "other_subjects": {"FTD": 0, "DLB": 0, "stroke": 0}, "followup_fraction": 0.0}
HEALTHY = {"ad_subjects": 2, "cn_subjects": 60, "preclinical_fraction": 0.0}
# No split is made of them.
SETTINGS = {
    "simulation": {"seed": 60, **HEALTHY, **OTHERS},
    "normalize": {"smoothing_mm": 0.0},
    "split": {"unit": "slice"},
}


def mean_image(project: Path) -> nib.Nifti1Image:
    """Return the mean of a normalized project's CN scans."""
    scans = read_scans(project / paths.SCANS)
    healthy = scans.loc[scans["diagnosis"] == "CN", "scan"]
    files = [project / paths.VOLUMES / f"{scan}.nii" for scan in healthy]
    volumes = [read_volume(file) for file in files if file.exists()]
    suvr = np.stack([np.clip(volume.data, 0, None) for volume in volumes])
    mean = suvr.sum(axis=0) / np.maximum((suvr > 0).sum(axis=0), 1)
    mean = (mean + mean[::-1]) / 2
    image = nib.Nifti1Image(np.round(255 * mean / mean.max()).astype(np.uint8), volumes[0].affine)
    image.header.set_xyzt_units("mm")
    return image


def main() -> None:
    """Write the image."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--output", type=Path, default=FDG_MEAN)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        write_json(project / paths.PARAMS, SETTINGS)
        for stage in ("simulate", "ingest", "normalize"):
            subprocess.run([sys.executable, "-m", "adpet", stage], cwd=project, check=True)
        nib.save(mean_image(project), given.output)


if __name__ == "__main__":
    main()
