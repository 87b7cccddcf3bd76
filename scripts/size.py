"""Print the size of the project, next to the limits that it keeps.

    python scripts/size.py

Counts lines of the files that git tracks, but for pictures and what a program writes. Exits with 1 above a
limit.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Lock files, and what scripts write from the code.
WRITTEN = {"requirements.lock", "package-lock.json", "reference.md", "model.generated.ts"}
BINARY = {".png", ".ico", ".nii", ".gz", ".onnx", ".wasm"}

# Lines, but for the number of modules. They were 20,500 under src and 44,000 in all (105 modules) before
# calibrated answers, fresh subjects, z-maps, the harder cohort, the search of any key, tracers, identities,
# DICOM, clusters, the doctor, external validation, other diagnoses, ComBat, two visits, batches on a GPU and
# the docs' site.
LIMITS = {
    "modules under src/adpet": 122,
    "lines under src/adpet": 26_700,
    "longest module": 600,
    "lines of tests": 21_520,
    "lines of dvc.yaml": 330,
    "lines of the whole repository": 61_150,
    "words of README.md": 1_500,
    "docstrings that begin with more than 10 words": 0,
}


def main() -> None:
    """Print one row a measure, and exit with 1 if one is above its limit."""
    sizes = measure(_tracked())
    for name, limit in LIMITS.items():
        print(f"{'ok  ' if sizes[name] <= limit else 'OVER'}  {sizes[name]:>6,} of {limit:>6,}  {name}")
    sys.exit(any(sizes[name] > limit for name, limit in LIMITS.items()))


def measure(files: Iterable[Path]) -> dict[str, int]:
    """Return each measure of `LIMITS` for files of the project."""
    lines = {file: _lines(file) for file in files}
    modules = [file for file in lines if file.is_relative_to(ROOT / "src/adpet") and file.suffix == ".py"]
    return {
        "modules under src/adpet": sum(file.name != "__init__.py" for file in modules),
        "lines under src/adpet": sum(lines[file] for file in modules),
        "longest module": max(lines[file] for file in modules),
        "lines of tests": sum(
            number for file, number in lines.items() if file.is_relative_to(ROOT / "tests")
        ),
        "lines of dvc.yaml": lines[ROOT / "dvc.yaml"],
        "lines of the whole repository": sum(lines.values()),
        "words of README.md": len((ROOT / "README.md").read_text(encoding="utf-8").split()),
        "docstrings that begin with more than 10 words": sum(_long_docstrings(file) for file in modules),
    }


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.splitlines()]
    return [
        file for file in files if file.name not in WRITTEN and file.suffix not in BINARY and file.is_file()
    ]


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def _long_docstrings(file: Path) -> int:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef))
    return sum(len((ast.get_docstring(node) or "").partition("\n")[0].split()) > 10 for node in nodes)


if __name__ == "__main__":
    main()
