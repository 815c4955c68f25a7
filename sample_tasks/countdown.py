"""Count seconds down, with messages and progress: the smallest task that shows everything it does.

Try it to see a run live, and to see what happens when it is stopped: it ends at once and says what was left.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import TYPE_CHECKING

from scheduler.task import run

if TYPE_CHECKING:
    from types import FrameType


class StopAsked(Exception):  # noqa: N818  (it is no error)
    """Somebody asked us to end."""


def stop(_number: int, _frame: FrameType | None) -> None:
    raise StopAsked


def countdown(seconds: int) -> None:
    # Steps are counted from the start, so that the time that each takes does not add up.
    start = time.monotonic()
    for second in range(seconds):
        run.progress(second, seconds, "seconds")
        run.message(f"{seconds - second} seconds to go")
        time.sleep(max(start + second + 1 - time.monotonic(), 0))
    run.progress(seconds, seconds, "seconds")


def whole_seconds(text: str) -> int:
    seconds = int(text)
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("give 0 to 86400 seconds")
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description="Count seconds down, with messages and progress.")
    parser.add_argument("seconds", nargs="?", type=whole_seconds, default=10, help="how many (default: %(default)s)")
    arguments = parser.parse_args(run.arguments)

    signal.signal(signal.SIGTERM, stop)
    start = time.monotonic()
    try:
        countdown(arguments.seconds)
    except StopAsked:
        run.message(f"Stopped after {time.monotonic() - start:.0f} of {arguments.seconds} seconds.")
        return 128 + signal.SIGTERM
    run.message(f"Counted {arguments.seconds} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
