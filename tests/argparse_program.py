"""A program that takes every sort of argument, for the tests of the forms that are made of them."""

from __future__ import annotations

import argparse
import datetime
import enum
import os
import pathlib


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


def even(text: str) -> int:
    return int(text) // 2 * 2


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Takes everything.")
    made.add_argument("source", help="where from")
    made.add_argument("more", nargs="*", help="further sources")
    made.add_argument("-n", "--number", type=int, default=7, help="how many (default: %(default)s)")
    made.add_argument("--share", type=float)
    made.add_argument("--even", type=even)
    made.add_argument("--since", type=day)
    made.add_argument("--at", type=datetime.datetime.fromisoformat)
    made.add_argument("--clock", type=datetime.time.fromisoformat)
    made.add_argument("--input", type=pathlib.Path, metavar="FILE")
    made.add_argument("--format", choices=["csv", "json"], required=True)
    made.add_argument("--colour", type=Colour, choices=list(Colour))
    made.add_argument("--dry-run", action="store_true", help="change nothing")
    made.add_argument("-v", "--verbose", action="count", default=0)
    made.add_argument("--cache", action=argparse.BooleanOptionalAction)
    made.add_argument("--tag", action="append")
    made.add_argument("--pair", nargs=2)
    made.add_argument("--days", nargs="+", choices=["mon", "tue", "wed"])
    made.add_argument("--generate", nargs="?", const="20")
    made.add_argument("--hidden", help=argparse.SUPPRESS)
    made.add_argument("--token", default=os.environ.get("TESTS_TOKEN"), help="now %(default)s")
    where = made.add_argument_group("Where it goes", "Only one of them.").add_mutually_exclusive_group()
    where.add_argument("--mail")
    where.add_argument("--folder")
    return made


if __name__ == "__main__":
    parser().parse_args()
    raise SystemExit("it went on")
