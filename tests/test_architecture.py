"""The layers hold, and the command line answers before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path


def test_layers_import_downwards_only(project_root):
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_help_imports_nothing_heavy(project_root):
    code = (
        "import sys\nfrom adpet import cli\ntry:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'pandas', 'keras', 'tensorflow', 'mlflow', 'optuna', 'nibabel', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
