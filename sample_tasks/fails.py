"""Fail on purpose, in one of the ways in which programs fail, to see what the scheduler says about it."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from scheduler.task import run


def main() -> int:
    parser = argparse.ArgumentParser(description="Fail on purpose.")
    parser.add_argument(
        "--how",
        choices=["exit", "exception", "signal"],
        default="exception",
        help="exit code 3, an exception that nobody catches, or a SIGKILL from nowhere (default: %(default)s)",
    )
    how = parser.parse_args(run.arguments).how

    run.message(f"About to fail ({how}).")
    if how == "exit":
        print("This task fails on purpose, with exit code 3.", file=sys.stderr)
        return 3
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("This task fails on purpose.")


if __name__ == "__main__":
    sys.exit(main())
