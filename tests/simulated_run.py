"""A run as a task program sees it, without a scheduler: the variables, the reports file and the output folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SECONDS = 60  # nothing here takes so long; a program that hangs fails its test


@dataclass
class Result:
    code: int
    log: str
    """stdout and stderr in one, as the scheduler keeps them."""


@dataclass
class SimulatedRun:
    """Call ``execute`` to run a program in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    """Further variables."""

    def __post_init__(self) -> None:
        self.output.mkdir(parents=True)
        self.reports_file.touch()

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def reports_file(self) -> Path:
        return self.folder / "reports.jsonl"

    @property
    def variables(self) -> dict[str, str]:
        return {
            **by_hand(),
            "SCHEDULER_RUN": "7c3e7b0e-0000-4000-8000-000000000001",
            "SCHEDULER_RUN_ID": "4711",
            "SCHEDULER_REPORTS": str(self.reports_file),
            "SCHEDULER_OUTPUT": str(self.output),
            "PYTHONUNBUFFERED": "1",
            **self.environment,
        }

    def execute(self, program: Path, *arguments: str) -> Result:
        return execute([sys.executable, program, *arguments], env=self.variables, cwd=self.output)

    def execute_text(self, text: str, *arguments: str) -> Result:
        """Run the text of a program."""
        program = self.folder / "program.py"
        program.write_text(text, encoding="utf-8")
        return self.execute(program, *arguments)

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What was reported; fails when a line is not a JSON object of its own."""
        text = self.reports_file.read_bytes().decode("utf-8")
        assert not text or text.endswith("\n")
        found = [json.loads(line) for line in text.splitlines()]
        assert all(isinstance(each, dict) for each in found)
        return found

    @property
    def messages(self) -> list[str]:
        return [each["message"] for each in self.reports if "message" in each]

    @property
    def progress(self) -> list[dict[str, Any]]:
        return [each for each in self.reports if "progress" in each]

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.output)) for path in self.output.rglob("*") if path.is_file())


def by_hand() -> dict[str, str]:
    """The variables of a person's shell."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT),
        "LC_ALL": "C.UTF-8",
        # A program may leave the closing of its database connection to the end of its process.
        "PYTHONWARNINGS": "error,ignore::ResourceWarning",
    }


def execute(argv: list[str | Path], *, env: dict[str, str], cwd: Path) -> Result:
    done = subprocess.run(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    return Result(done.returncode, done.stdout)
