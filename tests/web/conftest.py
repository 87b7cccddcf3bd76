"""The built page, the browser's preprocessing bundled for Node, and golden scans."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation
from workspace import REAL_MEAN_IMAGE

from adpet.imaging.nifti import Volume
from adpet.imaging.registration import resample
from adpet.imaging.template import tissue_map
from adpet.simulation.anatomy import load_anatomy
from adpet.simulation.cohort import SimulationRecipe, draw_cohort, simulate_scan

WEB = Path(__file__).parents[2] / "web"
ESBUILD = WEB / "node_modules" / "esbuild" / "bin" / "esbuild"


class Outcome:
    """What the port has written for one job."""

    def __init__(self, folder):
        self.folder, self.report = folder, json.loads((folder / "report.json").read_text())

    def scan(self, name):
        return self.report["scans"][name]

    def array(self, name, dtype=np.float32):
        return np.fromfile(self.folder / name, dtype)

    def ras(self, name):
        """Return a scan's voxels, (i, j, k), as the port has read them."""
        return self.array(f"{name}/ras.f32").reshape(self.scan(name)["shape"])


@pytest.fixture(scope="session")
def node(not_installed):
    """Node, with the page's packages installed."""
    found = shutil.which("node")
    if found is None:
        not_installed("Node is not installed; on Debian: apt-get install nodejs npm")
    if not ESBUILD.exists():
        not_installed("the page's packages are not installed; in web/: npm ci")
    return found


@pytest.fixture(scope="session")
def project(request):
    """Project in which ``dvc repro`` has run: the one in ADPET_PROJECT, or that of the tests."""
    own = os.environ.get("ADPET_PROJECT")
    return Path(own) if own else request.getfixturevalue("finished").root


@pytest.fixture(scope="session")
def built_page(node, project, tmp_path_factory):
    """The page with the model and the examples of a finished pipeline."""
    folder = tmp_path_factory.mktemp("page") / "dist"
    subprocess.run([node, WEB / "build.mjs", "--project", project, "--out", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def serve():
    """Serve a built page as ``make demo`` does; yields its address."""

    @contextmanager
    def serve(folder):
        command = [sys.executable, "-u", "scripts/demo.py", "--page", str(folder), "--port", "0"]
        server = subprocess.Popen(command, cwd=WEB.parent, stdout=subprocess.PIPE, text=True)
        try:
            yield re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        finally:
            server.terminate()
            server.wait(timeout=30)
            server.stdout.close()

    return serve


@pytest.fixture(scope="session")
def run_port(tmp_path_factory, node):
    """Run a job of `port.mjs` in Node."""
    bundle = tmp_path_factory.mktemp("port") / "port.mjs"
    subprocess.run(
        [ESBUILD, Path(__file__).with_name("port.mjs"), "--bundle", "--platform=node", "--format=esm",
         f"--outfile={bundle}", "--log-level=warning"],
        check=True,
    )  # fmt: skip

    def run(folder, scans, **job):
        described = [{"name": name, "file": str(file), **options} for name, file, options in scans]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.json"
        path.write_text(json.dumps({"out": str(folder), "scans": described, **job}))
        done = subprocess.run([node, bundle, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return Outcome(folder)

    return run


@pytest.fixture(scope="session")
def phantom():
    """Return a simulated scans as its scanner stores it, from right to left and from front to back."""
    recipe = SimulationRecipe(ad_subjects=1, cn_subjects=1, followup_fraction=0)
    row = draw_cohort(recipe).to_dict("records")[0]
    return simulate_scan(row, recipe, load_anatomy()).volume


@pytest.fixture(scope="session")
def white_matter():
    """Return a scan that is bright where FDG's are dim, for which the second view of the images is tried."""
    uptake = 4 * tissue_map("wm").data + tissue_map("gm").data
    blurred = Volume(ndimage.gaussian_filter(uptake, 3), tissue_map("wm").affine)
    affine = np.diag([2.5, 2.5, 3.0, 1.0])
    affine[:3, 3] = [-110, -140, -90]
    pose = placed((0, 0, 6), (0, 0, 0))
    return Volume(resample(blurred, shape=(88, 100, 66), affine=affine, matrix=pose), affine)


def placed(degrees, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


def stored_as(codes, volume):
    turn = ornt_transform(io_orientation(volume.affine), axcodes2ornt(codes))
    data = apply_orientation(volume.data, turn)
    return Volume(data, volume.affine @ inv_ornt_aff(turn, volume.data.shape))


def save(path, data, affine, kind=nib.Nifti1Image, **options):
    image = kind(data, affine, **options)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


@pytest.fixture(scope="session")
def golden(tmp_path_factory, phantom, white_matter):
    """Return the path of each golden scan, but for the real one where it is not there."""
    folder = tmp_path_factory.mktemp("golden")
    data, affine = phantom.data, phantom.affine
    turned = placed((12, -8, 6), (10, -14, 20)) @ affine
    frames = np.stack([0.9 * data, data, 1.1 * data + 7], axis=-1)
    las, psr = (stored_as(codes, phantom) for codes in ("LAS", "PSR"))
    flat = np.diag([2.0, 2.4, 5.5, 1.0])
    flat[:3, 3] = [-100, -120, -110]
    thick = resample(Volume(data, affine), shape=(100, 100, 40), affine=flat)
    paths = {
        "as scanned": save(folder / "scan.nii", data, affine),
        "turned": save(folder / "turned.nii", data, turned),
        "stored LAS": save(folder / "las.nii", las.data, las.affine),
        "stored PSR": save(folder / "psr.nii", psr.data, psr.affine),
        "anisotropic": save(folder / "thick.nii", thick, flat),
        "dynamic": save(folder / "dynamic.nii", frames, affine),
        "gzipped": save(folder / "packed.nii.gz", data, affine),
        "NIfTI-2": save(folder / "two.nii", data.astype(np.float64), affine, nib.Nifti2Image),
        "cut head": save(folder / "cut.nii", data[:, :, :72], affine),
        "cut cerebellum": save(folder / "high.nii", data[:, :, 22:], affine @ placed((0, 0, 0), (0, 0, 22))),
        "white matter": save(folder / "white.nii", white_matter.data, white_matter.affine),
        "big-endian": save(
            folder / "big.nii", data, affine, header=nib.Nifti1Header(endianness=">"), dtype="i2"
        ),
    }
    return paths | ({"mean of 100 people": REAL_MEAN_IMAGE} if REAL_MEAN_IMAGE.exists() else {})
