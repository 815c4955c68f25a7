"""Run a program in another language as a task: its output is the log, its exit code is the result.

The arguments are the program and its own arguments, exactly as it gets them: no shell reads them. A program that lies
beside this file (``word_count.sh``) is named by its file name alone; others are looked up on the PATH.

The program reports by appending JSON lines to the file that the variable SCHEDULER_REPORTS names, one write a line:
    {"message": "text"}
    {"progress": 3, "total": 10, "label": "copying"}      (total and label are optional)
and it writes its files into the folder SCHEDULER_OUTPUT, which is also its current folder.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from scheduler.task import run

NOT_EXECUTABLE = 126  # the exit codes of a shell in the same trouble
NOT_FOUND = 127


def locate(program: str) -> str:
    """A program that lies beside this file goes before one of the same name on the PATH."""
    beside = Path(__file__).resolve().parent / program
    return str(beside) if "/" not in program and beside.is_file() else program


def in_words(code: int) -> str:
    """What an exit code says; 128 + n is how a signal is passed on."""
    try:
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    except ValueError:
        return f"exit code {code}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run another program as a task; its exit code is the result.",
        usage="%(prog)s [-h] [--env NAME] [--] PROGRAM [ARG ...]",
    )
    parser.add_argument(
        "--env",
        metavar="NAME",
        action="append",
        default=[],
        help="hand this environment variable on; without it the program gets none of the site's secrets (repeatable)",
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help="the program and its arguments")
    arguments = parser.parse_args(run.arguments)

    argv = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if not argv or not argv[0]:
        parser.error("name the program to run, such as: run_command.py word_count.sh /etc")
    name = argv[0]
    try:
        code = run.call(
            [locate(name), *argv[1:]], env={each: os.environ[each] for each in arguments.env if each in os.environ}
        )
    except FileNotFoundError:
        print(
            f"There is no program “{name}” beside run_command.py or on the PATH, or its interpreter is missing.",
            file=sys.stderr,
        )
        return NOT_FOUND
    except OSError as error:
        print(f"“{name}” cannot be run: {error.strerror}. Is it executable (chmod +x)?", file=sys.stderr)
        return NOT_EXECUTABLE
    if code:
        run.message(f"“{name}” failed with {in_words(code)}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
