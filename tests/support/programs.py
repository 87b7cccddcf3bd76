"""Python code in a process of its own."""

import os
import subprocess
import sys


def run_code(code, *arguments, cwd=None, env=os.environ, **variables) -> subprocess.CompletedProcess:
    """Run code in a folder and an environment with further variables, and keep what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env={**env, **variables}, capture_output=True, text=True, check=False
    )
