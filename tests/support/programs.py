"""Python code in a process of its own."""

import os
import subprocess
import sys


def run_code(code, *arguments, cwd=None, env=os.environ, **variables) -> subprocess.CompletedProcess:
    """Run code in a folder and an environment with further variables; keep what it prints, and show a failure."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, env={**env, **variables}, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done
