"""Much of something: ``much.py log BYTES``, ``line BYTES``, ``files COUNT``, ``sleep SECONDS``, ``nothing``."""

import os
import sys
import time
from pathlib import Path

BLOCK = "".join(f"2026-11-24 10:00:{number % 60:02} INFO record {number} copied\n" for number in range(2_000)).encode()
COLOURED = b"\x1b[31mred\x1b[0m and \x1b[1;42mgreen\x1b[0m " * 1_000
LONG_NAME = "x" * 200


def main(what: str, count: int) -> None:
    match what:
        case "log":
            write(1, BLOCK, count)
            print("ValueError: here")
        case "line":
            write(1, COLOURED, count)
            reports = os.open(os.environ["SCHEDULER_REPORTS"], os.O_WRONLY | os.O_APPEND)
            os.write(reports, b'{"message": "')
            write(reports, b"x" * 65_536, count)
            os.write(reports, b'"}\n')
        case "files":
            for number in range(count):
                # As they are shown they all are called the same, until each gets a number.
                Path(f"{LONG_NAME}{number:05}.csv").write_bytes(b"1;2;3\n" * 10)
        case "sleep":
            time.sleep(count)


def write(descriptor: int, block: bytes, count: int) -> None:
    while count > 0:
        count -= os.write(descriptor, block[:count])


if __name__ == "__main__":
    main(sys.argv[1], int((*sys.argv, "0")[2]))
