"""The layers hold."""

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
