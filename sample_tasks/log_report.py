"""Count a web server's access log (combined format, plain or gzip) by path, by status and by day, to CSV.

Without a log at hand, --generate N makes a realistic one of N lines first, and leaves it beside the results.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import re
import sys
import zlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scheduler.task import run

if TYPE_CHECKING:
    from collections.abc import Iterator

# host ident user [time] "request" status bytes "referrer" "agent"; in quotes, \" is a quote
LINE = re.compile(
    r'\S+ \S+ .+? \[(?P<day>\d{2}/[A-Z][a-z]{2}/\d{4}):[^\]]+\] "(?P<request>(?:[^"\\]|\\.)*)" '
    r'(?P<status>\d{3}) (?P<bytes>\d+|-)(?: "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*")?'
)
REQUEST = re.compile(r"[A-Z]+ (\S+)(?: HTTP/[\d.]+)?")
NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in every locale
MONTHS = {name: number for number, name in enumerate(NAMES, start=1)}
GZIP_MAGIC = b"\x1f\x8b"
COUNTED_BY = ("path", "status", "day")
NO_PATH = "(no valid request)"
OTHER_PATHS = "(other paths)"
PATHS_AT_MOST = 100_000  # scanners ask for any number of paths; memory has an end


class ReportError(Exception):
    """The log cannot be read; the text is one sentence for people."""


@dataclass
class Totals:
    lines: int = 0
    malformed: int = 0
    hits: dict[str, Counter[str]] = field(default_factory=lambda: {by: Counter() for by in COUNTED_BY})
    sent: dict[str, Counter[str]] = field(default_factory=lambda: {by: Counter() for by in COUNTED_BY})

    def add(self, line: str) -> None:
        self.lines += 1
        match = LINE.match(line)
        day = iso_day(match["day"]) if match else None
        if match is None or day is None:
            self.malformed += 1
            return
        request = REQUEST.fullmatch(match["request"])
        path = request[1].partition("?")[0] if request else NO_PATH
        if path not in self.hits["path"] and len(self.hits["path"]) >= PATHS_AT_MOST:
            path = OTHER_PATHS
        size = 0 if match["bytes"] == "-" else int(match["bytes"])
        for by, key in (("path", path), ("status", match["status"]), ("day", day)):
            self.hits[by][key] += 1
            self.sent[by][key] += size


def iso_day(text: str) -> str | None:
    day, month, year = text.split("/")
    return f"{year}-{MONTHS[month]:02}-{day}" if month in MONTHS else None


def lines(raw: IO[bytes], total: int) -> Iterator[str]:
    """The lines of a log, unpacked where needed; progress counts the bytes of the file as it is."""
    packed = raw.read(2) == GZIP_MAGIC
    raw.seek(0)
    source: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
    for number, line in enumerate(source):
        if number % 1000 == 0:
            run.progress(raw.tell(), total, "bytes read")
        yield line.decode("utf-8", "replace").rstrip("\r\n")
    run.progress(total, total, "bytes read")


def count(log: Path) -> Totals:
    totals = Totals()
    try:
        with log.open("rb") as raw:
            for line in lines(raw, log.stat().st_size):
                totals.add(line)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ReportError(f"The log {log} cannot be read: {reason}.") from error
    return totals


def cell(text: str) -> str:
    """Text that a spreadsheet would take for a formula gets an apostrophe: anybody can ask for any path."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write(totals: Totals, by: str) -> None:
    """Days and statuses in their order, paths by hits."""
    hits = totals.hits[by]
    keys = sorted(hits, key=lambda key: (-hits[key], key)) if by == "path" else sorted(hits)
    with run.open_output(f"hits_by_{by}.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([by, "hits", "bytes"])
        writer.writerows([cell(key), hits[key], totals.sent[by][key]] for key in keys)


# A made-up site

PAGES = {
    "/": 300,
    "/static/site.css": 250,
    "/static/site.js": 220,
    "/favicon.ico": 120,
    "/products/": 90,
    "/products/?page=2": 30,
    "/cart/": 40,
    "/login/": 35,
    "/api/orders": 25,
    "/api/orders?status=open": 15,
    "/old-page/": 8,
    "/wp-login.php": 12,
    "/.env": 4,
}
AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "curl/7.88.1",
    "ExampleBot/2.1 (+https://example.com/bot)",
]
NOT_FOUND = {"/wp-login.php", "/.env"}
ONE_IN = 500  # so many lines for one that is cut short, and one that is no HTTP


def made_up(number: int, chance: random.Random, last: datetime) -> Iterator[str]:
    """``number`` lines over the seven days before ``last``, in their order."""
    first = last - timedelta(days=7)
    for index in range(number):
        at = first + (last - first) * (index / number)
        path = chance.choices(list(PAGES), list(PAGES.values()))[0]
        status = chance.choices([200, 304, 500, 403], [850, 120, 4, 6])[0]
        if path in NOT_FOUND:
            status = 404
        elif path == "/old-page/":
            status = 301
        request = f"{'POST' if path == '/login/' and chance.random() < 0.4 else 'GET'} {path} HTTP/1.1"
        if chance.randrange(ONE_IN) == 0:
            request, status = r"\x16\x03\x01", 400
        size = 0 if status == 304 else chance.randint(180, 60_000)
        host = f"192.0.2.{chance.randint(1, 254)}"
        line = f'{host} - - [{stamp(at)}] "{request}" {status} {size} "-" "{chance.choice(AGENTS)}"'
        yield line[:30] if chance.randrange(ONE_IN) == 0 else line


def stamp(at: datetime) -> str:
    """The time as servers write it, in English in every locale."""
    month = NAMES[at.month - 1]
    return f"{at:%d}/{month}/{at:%Y:%H:%M:%S %z}"


def generate(number: int, seed: int) -> Path:
    path = run.output_path("access.log")
    chance = random.Random(seed)
    with run.open_output("access.log") as file:
        for line in run.track(made_up(number, chance, datetime.now(UTC)), "lines generated", total=number):
            file.write(line + "\n")
    return path


def whole_number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError("give 1 to 10000000 lines")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Count an access log by path, status and day.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("log", nargs="?", type=Path, help="the log, in combined format, plain or gzip")
    source.add_argument(
        "--generate",
        type=whole_number,
        nargs="?",
        const=20_000,
        metavar="N",
        help="make a log of N lines (%(const)s when you do not say), and count that",
    )
    parser.add_argument("--seed", type=int, default=1, help="another number makes another log (default: %(default)s)")
    arguments = parser.parse_args(run.arguments)

    log = generate(arguments.generate, arguments.seed) if arguments.generate else arguments.log
    run.message(f"Counting {log.name}")
    try:
        totals = count(log)
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    if totals.lines and totals.malformed == totals.lines:
        print(f"The log {log} has {totals.lines} lines, and none is in the combined log format.", file=sys.stderr)
        return 1
    for by in totals.hits:
        write(totals, by)
    run.message(f"{totals.lines} lines counted, {totals.malformed} malformed, {len(totals.hits['path'])} paths.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
