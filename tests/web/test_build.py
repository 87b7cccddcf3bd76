"""The page's build: what it needs, and what it says if that is missing."""

import json
import re
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.node


@pytest.fixture
def built(node, project_root):
    """Run the build with arguments."""

    def built(*arguments):
        command = [node, project_root / "web/build.mjs", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return built


def test_package_lock_has_digests_and_no_registry(project_root):
    packages = json.loads((project_root / "web/package-lock.json").read_text())["packages"]
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)


def test_build_without_model_fails_in_one_line(built, tmp_path):
    done = built("--project", tmp_path, "--out", tmp_path / "page")
    assert done.returncode == 1
    assert re.fullmatch(
        r".*model\.json: required an exported model; received none; run `make repro`\n", done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_build_of_changed_model_is_refused(built, tmp_path):
    folder = tmp_path / "results/export"
    folder.mkdir(parents=True)
    (folder / "network.onnx").write_bytes(b"another")
    (folder / "model.json").write_text(json.dumps({"files": {"network.onnx": "0" * 64}}))
    done = built("--project", tmp_path, "--out", tmp_path / "page")
    assert done.returncode == 1
    assert done.stderr.startswith("network.onnx: required the file that model.json names; received another")


def test_examples_are_scans_of_test_subjects(built_page, project):
    examples = json.loads((built_page / "examples/examples.json").read_text())
    split = (project / "data/processed/split.csv").read_text().splitlines()
    tested = {row.split(",")[2] for row in split if row.endswith(",test")}
    assert len(examples) == 3
    assert {example["subject"] for example in examples} <= tested


def test_service_worker_lists_every_file_and_builds_are_reproducible(built_page, built, project, tmp_path):
    worker = (built_page / "sw.js").read_text()
    files = {path.relative_to(built_page).as_posix() for path in built_page.rglob("*") if path.is_file()}
    for file in files - {"sw.js"}:
        assert file in worker or file.endswith(".LEGAL.txt")
    assert built("--project", project, "--out", tmp_path / "again").returncode == 0
    assert (tmp_path / "again/sw.js").read_text() == worker


def test_make_demo_without_node_fails_in_one_line(project_root, tmp_path):
    done = subprocess.run(
        [shutil.which("make"), "--silent", "demo"], cwd=project_root, env={"PATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stderr.splitlines()
    assert said[0].startswith("make demo: required Node.js 18 or newer with npm; received none; install it")
    assert all(line.startswith("make: ") for line in said[1:])


def test_demo_of_unbuilt_page_fails_in_one_line(project_root, tmp_path):
    done = subprocess.run(
        [sys.executable, project_root / "scripts/demo.py", "--page", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: required the built page; received none; run `make demo`\n"
