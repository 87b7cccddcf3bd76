"""Time what is done scan by scan, next to what people use.

    python benchmarks/scans.py [PROJECT] [--scans 40] [--clinicadl PYTHON]...

PROJECT (default: this folder) is finished. Its raw scans are normalized and sliced by this project's own
functions, cut by a loop as that of 2019 (nibabel, one JPEG a slice, read back as its loader did), and, where
it is there, registered by SimpleITK. All take turns in one process; the least processor time of each counts.
ClinicaDL takes its turns in processes of its own: PYTHON is that of an environment that has it.
Then the stage itself runs with one and with two workers.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

import adpet
from adpet import paths
from adpet.imaging.nifti import Volume, read_volume, write_volume
from adpet.imaging.normalization import Standard, load_standard, normalize, to_uint8
from adpet.imaging.registration import FWHM_PER_SIGMA, similarity
from adpet.imaging.slices import network_slices
from adpet.params import Params, load_params
from adpet.stages.slice import coronal_grid
from adpet.storage import read_yaml, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

TURNS = 3

# Coronal slices a scan, and their side in pixels, as in `presets/protocol-2019.yaml`.
SLICES_2019, SIZE_2019 = 31, 128


def main() -> None:
    """Print a row for each way, then one for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("project", nargs="?", type=Path, default=Path())
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--clinicadl", action="append", default=[], metavar="PYTHON")
    options = parser.parse_args()
    project = options.project.resolve()
    params = load_params(project / paths.PARAMS)
    table = pd.read_csv(project / paths.SCANS).head(options.scans)
    scans = [project / path for path in table["path"]]
    with tempfile.TemporaryDirectory() as folder:
        print(f"{len(scans)} scans, processor time in one process, the least of {TURNS} turns")
        _print_ways(scans, params, Path(folder), options.clinicadl)
        print(f"\n`adpet normalize` on {len(scans)} scans")
        for workers in (1, 2):
            print(_stage(project, Path(folder, str(workers)), table, workers=workers))


def _print_ways(scans: list[Path], params: Params, folder: Path, clinicadl: list[str]) -> None:
    settings = params.normalize.model_dump(exclude={"min_similarity"})
    registering = load_standard(**settings)
    in_place = load_standard(**settings | {"align": "none"})
    ways: dict[str, Callable[[Path], object]] = {
        "adpet: registered, normalized, sliced": lambda scan: ours(scan, registering, params, folder),
        "adpet: the same without registration": lambda scan: ours(scan, in_place, params, folder),
        f"2019: {SLICES_2019} JPEGs": lambda scan: jpegs(scan, folder / "jpegs"),
        f"2019: {SLICES_2019} JPEGs, read back once": lambda scan: jpegs(scan, folder / "jpegs", read=True),
    }
    try:
        import SimpleITK  # noqa: F401
    except ImportError:
        print("SimpleITK is not installed (pip install SimpleITK): its rows are left out")
    else:
        ways["SimpleITK: affine registration alone"] = lambda scan: simpleitk(scan, registering)
        ways["adpet: affine registration alone"] = lambda scan: registered(scan, registering)
    if not clinicadl:
        print(
            "ClinicaDL is left out: python3 -m venv FOLDER; FOLDER/bin/pip install clinicadl; then "
            "--clinicadl FOLDER/bin/python"
        )
    least: dict[str, float] = dict.fromkeys(ways, np.inf)
    found: dict[str, list[float]] = {}
    for turn in range(TURNS):
        for name, way in ways.items():
            before, alike = time.process_time(), [way(scan) for scan in scans]
            least[name] = min(least[name], (time.process_time() - before) / len(scans))
            if turn == 0 and isinstance(alike[0], float):
                found[name] = alike  # type: ignore[assignment]
        for python in clinicadl:
            for name, seconds in clinicadl_slices(python, scans, in_place, params).items():
                least[name] = min(least.get(name, np.inf), seconds)
    for name, seconds in least.items():
        alike = (
            f"; similarity {np.mean(found[name]):.3f}, least {min(found[name]):.3f}" if name in found else ""
        )
        print(f"{seconds:8.3f} s a scan  {name}{alike}")


def ours(scan: Path, standard: Standard, params: Params, folder: Path) -> None:
    """Do all that the stages normalize and slice do with pixels."""
    volume, _ = normalize(read_volume(scan), standard)
    write_volume(folder / "volume.nii", volume, space="mni")
    volume = read_volume(folder / "volume.nii")
    planes = network_slices(volume.data, volume.affine, coronal_grid(params))
    np.save(folder / "slices.npy", to_uint8(planes, window=params.slice.window))


def jpegs(scan: Path, folder: Path, *, read: bool = False) -> None:
    """Cut a scan into JPEGs of 2019's size, and read them as its loader did."""
    folder.mkdir(exist_ok=True)
    data = np.asarray(nib.load(scan).dataobj, dtype=np.float32)
    data = data[..., 0] if data.ndim == 4 else data
    data = np.clip(data / data.max() * 255, 0, 255).astype(np.uint8)
    for number, y in enumerate(np.linspace(0.2, 0.8, SLICES_2019)):
        plane = Image.fromarray(np.rot90(data[:, int(y * data.shape[1])]))
        plane.resize((SIZE_2019, SIZE_2019)).save(folder / f"{number}.jpg", quality=95)
    for path in folder.iterdir() if read else ():
        np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255


def clinicadl_slices(python: str, scans: list[Path], standard: Standard, params: Params) -> dict[str, float]:
    """Let ClinicaDL cut as many slices; return the processor time a scan of its ways."""
    affine = standard.template.affine
    asked = {
        "scans": [str(scan) for scan in scans],
        "planes": [round((y - affine[1, 3]) / affine[1, 1]) for y in coronal_grid(params).y_mm],
        "shape": standard.template.data.shape,
        "affine": affine.tolist(),
        "sd_mm": standard.smoothing_mm / FWHM_PER_SIGMA,
    }
    one = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | one
    script = Path(__file__).with_name("clinicadl_slices.py")
    ran = subprocess.run(
        [python, script],
        input=json.dumps(asked),
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(ran.stdout)


def registered(scan: Path, standard: Standard) -> float:
    """Register a scan as the project does; return its similarity."""
    return normalize(read_volume(scan), standard)[1].similarity


def simpleitk(path: Path, standard: Standard) -> float:
    """Register a scan as SimpleITK's users do; return its similarity.

    Mattes' mutual information on a tenth of the voxels, three levels, affine from the images' moments.
    """
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    scan = read_volume(path)
    fixed, moving = (_image(sitk, volume) for volume in (standard.template, scan))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([6, 3, 0])
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method.SetInitialTransform(start, inPlace=False)
    placed = sitk.Resample(moving, fixed, method.Execute(fixed, moving), sitk.sitkLinear, 0.0)
    data = sitk.GetArrayFromImage(placed).transpose(2, 1, 0)
    seen = ndimage.gaussian_filter(data, 8 / FWHM_PER_SIGMA / 3) > 0
    return similarity(data, standard.expected.data, standard.brain & seen)


def _image(sitk, volume: Volume):  # noqa: ANN001, ANN202
    image = sitk.GetImageFromArray(volume.data.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _stage(project: Path, folder: Path, table: pd.DataFrame, *, workers: int) -> str:
    """Run the stage in a folder of its own; return its times."""
    (folder / "data/interim").mkdir(parents=True)
    for name in ("data/templates", "data/simulated"):
        (folder / name).symlink_to(project / name)
    table.to_csv(folder / paths.SCANS, index=False)
    settings = read_yaml(project / paths.PARAMS)
    settings["compute"] = settings.get("compute", {}) | {"workers": workers}
    write_json(folder / paths.PARAMS, settings)
    environment = os.environ | {"PYTHONPATH": str(Path(adpet.__file__).parents[1])}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "adpet", "normalize"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(folder)
    return (
        f"{workers} workers: {seconds:.1f} s, {busy:.1f} s of processor time, {busy / seconds:.2f} cores, "
        f"{busy / len(table):.3f} s of processor time a scan"
    )


if __name__ == "__main__":
    main()
