"""Report on this machine: disks, memory, load and the biggest processes, as CSV and as an HTML page.

Needs no Django: it can run as a `plain` task. The page is one file without scripts and can be mailed.
"""

from __future__ import annotations

import argparse
import csv
import html
import platform
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import psutil

from scheduler.task import run

SAMPLE_SECONDS = 0.5  # CPU use is measured over this time

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
"""


@dataclass(frozen=True)
class Measure:
    """One line of the report."""

    section: str
    item: str
    measure: str
    value: float | str
    unit: str = ""


@dataclass(frozen=True)
class Disk:
    mount: str
    total: int
    used: int
    free: int
    percent: float


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    user: str
    memory: int
    cpu_percent: float


def disks() -> list[Disk]:
    """The real file systems that can fill up, each once, however often it is mounted."""
    mounts = [(each.device, each.mountpoint) for each in psutil.disk_partitions() if "ro" not in each.opts.split(",")]
    found: dict[str, Disk] = {}
    for device, mount in mounts or [("root", "/")]:  # in a container there may be no partition to see
        try:
            usage = psutil.disk_usage(mount)
        except OSError as error:
            run.log(f"{mount} cannot be measured: {error.strerror}.")
            continue
        if usage.total and device not in found:
            found[device] = Disk(mount, usage.total, usage.used, usage.free, usage.percent)
    return list(found.values())


def processes(count: int) -> list[Process]:
    """The processes that use the most memory."""
    seen = list(psutil.process_iter())
    for process in seen:
        try:
            process.cpu_percent()  # the first call only starts the measurement
        except psutil.Error:
            pass
    time.sleep(SAMPLE_SECONDS)
    measured = []
    for process in run.track(seen, "processes"):
        try:
            with process.oneshot():
                measured.append(
                    Process(
                        pid=process.pid,
                        name=process.name(),
                        user=process.username(),
                        memory=process.memory_info().rss,
                        cpu_percent=process.cpu_percent(),
                    )
                )
        except psutil.Error:
            continue  # it has ended meanwhile, or is none of our business
    return sorted(measured, key=lambda process: process.memory, reverse=True)[:count]


def measures(found: list[Disk], biggest: list[Process]) -> list[Measure]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    load = psutil.getloadavg()
    rows = [
        Measure("machine", platform.node(), "system", platform.platform()),
        Measure("machine", platform.node(), "up", round(time.time() - psutil.boot_time()), "seconds"),
        Measure("machine", platform.node(), "processors", psutil.cpu_count() or 1),
    ]
    rows += [
        Measure("load", f"{minutes} minutes", "load", round(value, 2))
        for minutes, value in zip((1, 5, 15), load, strict=True)
    ]
    for name, area in (("memory", memory), ("swap", swap)):
        rows += [
            Measure("memory", name, "total", area.total, "bytes"),
            Measure("memory", name, "used", area.used, "bytes"),
            Measure("memory", name, "used", area.percent, "%"),
        ]
    for disk in found:
        rows += [
            Measure("disk", disk.mount, "total", disk.total, "bytes"),
            Measure("disk", disk.mount, "used", disk.used, "bytes"),
            Measure("disk", disk.mount, "free", disk.free, "bytes"),
            Measure("disk", disk.mount, "used", disk.percent, "%"),
        ]
    for process in biggest:
        item = f"{process.name} ({process.pid}, {process.user})"
        rows += [
            Measure("process", item, "memory", process.memory, "bytes"),
            Measure("process", item, "cpu", process.cpu_percent, "%"),
        ]
    return rows


def cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe: a process can have any name."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def write_csv(rows: list[Measure]) -> None:
    with run.open_output("machine_report.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["section", "item", "measure", "value", "unit"])
        for row in rows:
            writer.writerow([row.section, cell(row.item), row.measure, cell(row.value), row.unit])


def size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def shown(row: Measure) -> str:
    if isinstance(row.value, str):
        return row.value
    if row.unit == "bytes":
        return size(row.value)
    if row.unit == "seconds":
        return str(timedelta(seconds=row.value))
    return f"{row.value:g} {row.unit}".strip()


def write_html(rows: list[Measure], at: datetime) -> None:
    """One table a section; every text is escaped."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>Machine report: {html.escape(platform.node())}</title>",
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(platform.node())}</h1>",
        f'<p>Measured at <time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S %Z}</time>.</p>',
    ]
    for section in dict.fromkeys(row.section for row in rows):
        parts.append(f"<h2>{section.capitalize()}</h2><table><thead><tr><th>Item</th><th>Measure</th>")
        parts.append('<th class="number">Value</th></tr></thead><tbody>')
        for row in rows:
            if row.section == section:
                parts.append(
                    f"<tr><td>{html.escape(row.item)}</td><td>{html.escape(row.measure)}</td>"
                    f'<td class="number">{html.escape(shown(row))}</td></tr>'
                )
        parts.append("</tbody></table>")
    parts.append("</body></html>")
    with run.open_output("machine_report.html") as file:
        file.write("\n".join(parts) + "\n")


def count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError("give 1 to 10000 processes")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description="Report on disks, memory, load and the biggest processes.")
    parser.add_argument(
        "--processes", type=count, default=15, metavar="N", help="list the N biggest processes (default: %(default)s)"
    )
    arguments = parser.parse_args(run.arguments)

    run.message("Measuring the machine")
    found = disks()
    rows = measures(found, processes(arguments.processes))
    write_csv(rows)
    write_html(rows, datetime.now().astimezone())
    fullest = max(found, key=lambda disk: disk.percent, default=None)
    summary = f"Memory {psutil.virtual_memory().percent:.0f} % used"
    if fullest is not None:
        summary += f"; fullest disk {fullest.mount}: {fullest.percent:.0f} %, {size(fullest.free)} free"
    run.message(f"{summary}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
