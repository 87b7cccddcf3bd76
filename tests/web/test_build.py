"""The page's build: what it needs, and what it says where that is missing."""

import json
import re
import shutil
import subprocess
import sys

import pytest


@pytest.fixture
def built(node, project_root):
    """Run the build with arguments."""

    def built(*arguments):
        command = [node, project_root / "web/build.mjs", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return built


def test_the_lock_file_names_no_registry_and_a_digest_of_each_package(project_root):
    packages = json.loads((project_root / "web/package-lock.json").read_text())["packages"]
    assert not [name for name, one in packages.items() if "resolved" in one]
    assert not [name for name, one in packages.items() if name and not one["integrity"].startswith("sha512-")]


def test_a_missing_model_is_said_in_one_line(built, tmp_path):
    done = built("--project", tmp_path, "--out", tmp_path / "page")
    assert done.returncode == 1
    assert re.fullmatch(
        r".*model\.json: required an exported model; received none; run `make repro`\n", done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_a_changed_model_is_refused(built, tmp_path):
    folder = tmp_path / "results/export"
    folder.mkdir(parents=True)
    (folder / "network.onnx").write_bytes(b"another")
    (folder / "model.json").write_text(json.dumps({"files": {"network.onnx": "0" * 64}}))
    done = built("--project", tmp_path, "--out", tmp_path / "page")
    assert done.returncode == 1
    assert done.stderr.startswith("network.onnx: required the file that model.json names; received another")


def test_examples_are_scans_of_test_subjects(built_page, finished):
    examples = json.loads((built_page / "examples/examples.json").read_text())
    split = (finished.root / "data/processed/split.csv").read_text().splitlines()
    tested = {row.split(",")[2] for row in split if row.endswith(",test")}
    assert len(examples) == 3
    assert {one["subject"] for one in examples} <= tested


def test_the_service_worker_keeps_every_file_under_the_digest_of_all(built_page, built, finished, tmp_path):
    worker = (built_page / "sw.js").read_text()
    files = {path.relative_to(built_page).as_posix() for path in built_page.rglob("*") if path.is_file()}
    for file in files - {"sw.js"}:
        assert file in worker or file.endswith(".LEGAL.txt")
    assert built("--project", finished.root, "--out", tmp_path / "again").returncode == 0
    assert (tmp_path / "again/sw.js").read_text() == worker


def test_make_demo_says_in_one_line_that_node_is_missing(project_root, tmp_path):
    done = subprocess.run(
        [shutil.which("make"), "--silent", "demo"], cwd=project_root, env={"PATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stderr.splitlines()
    assert said[0].startswith("make demo: required Node.js 18 or newer with npm; received none; install it")
    assert all(line.startswith("make: ") for line in said[1:])


def test_a_page_that_is_not_built_is_said_in_one_line(project_root, tmp_path):
    done = subprocess.run(
        [sys.executable, project_root / "scripts/demo.py", "--page", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}: required the built page; received none; run `make demo`\n"
