"""The benchmarks' own virtual environment, ``var/benchmarks/venv``: the peers, apart from the project's.

Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import subprocess
import sys

from conf.environment import PROJECT, SetUpError, environment, say

FOLDER = PROJECT / "var" / "benchmarks"
VENV = FOLDER / "venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = PROJECT / "benchmarks" / "requirements.txt"


def prepare() -> list[str]:
    """Install what is missing; a sentence for each package that is not to be had. Raises SetUpError."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists() or subprocess.run([PYTHON, "-c", "import pip"], capture_output=True, check=False).returncode:
        say(f"Making the virtual environment {VENV} …")
        made = subprocess.run(
            [sys.executable, "-m", "venv", "--clear", VENV], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            raise SetUpError(f"The virtual environment {VENV} could not be made: {(made.stdout + made.stderr).strip()}")
    installed = VENV / "installed.txt"
    if installed.exists() and installed.read_bytes() == REQUIREMENTS.read_bytes():
        return []
    say(f"Installing the peers into {VENV} (once) …")
    installed.unlink(missing_ok=True)
    if _pip("--requirement", str(REQUIREMENTS)):
        installed.write_bytes(REQUIREMENTS.read_bytes())
        return []
    # One by one: a single peer that is not to be had must not keep the others out.
    lines = [line.strip() for line in REQUIREMENTS.read_text().splitlines()]
    missing = [line for line in lines if line and not line.startswith("#") and not _pip(line)]
    return [
        f"{line} cannot be installed: is there a network, and a package index that pip may use?" for line in missing
    ]


def _pip(*what: str) -> bool:
    command = [str(PYTHON), "-m", "pip", "install", "--no-deps", "--quiet", "--disable-pip-version-check", "--no-input"]
    return subprocess.run([*command, *what], capture_output=True, check=False, env=environment()).returncode == 0
