"""The browser's preprocessing, bundled for Node."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

WEB = Path(__file__).parents[2] / "web"
ESBUILD = WEB / "node_modules" / "esbuild" / "bin" / "esbuild"


@dataclass(frozen=True)
class Outcome:
    """What the port has written for one job."""

    folder: Path
    report: dict

    def scan(self, name):
        return self.report["scans"][name]

    def array(self, name, dtype=np.float32):
        return np.fromfile(self.folder / name, dtype)

    def ras(self, name):
        """Return a scan's voxels, (i, j, k), as the port has read them."""
        return self.array(f"{name}/ras.f32").reshape(self.scan(name)["shape"])


@pytest.fixture(scope="session")
def node(not_installed):
    """Node, with the page's packages beside it."""
    found = shutil.which("node")
    if found is None:
        not_installed("Node is not installed; on Debian: apt-get install nodejs npm")
    if not ESBUILD.exists():
        not_installed("the page's packages are not installed; in web/: npm ci")
    return found


@pytest.fixture(scope="session")
def built_page(node, finished, tmp_path_factory):
    """The page with the model and the examples of a finished pipeline."""
    folder = tmp_path_factory.mktemp("page") / "dist"
    subprocess.run([node, WEB / "build.mjs", "--project", finished.root, "--out", folder], check=True)
    return folder


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
        return Outcome(folder, json.loads((folder / "report.json").read_text()))

    return run
