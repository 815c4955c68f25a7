"""What was measured as tables, as JSON, and as a picture. Standard library only."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass, field
from html import escape
from math import log10
from typing import Any

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
OWN = "scheduler"
NOT_ISOLATED = ("celery_prefork", "huey", "procrastinate")
ONLY = ""  # the column of measures that have no further one


@dataclass
class Results:
    """All values that were measured: measure -> row -> column -> values."""

    quick: bool
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, measure: str, row: str, values: list[float], *, column: str = ONLY) -> None:
        if values:
            self.values.setdefault(measure, {}).setdefault(row, {})[column] = values

    def median(self, measure: str, row: str, column: str = ONLY) -> float | None:
        values = self.values.get(measure, {}).get(row, {}).get(column)
        return statistics.median(values) if values else None


def as_json(results: Results) -> dict[str, Any]:
    """The medians: measure -> name -> value, and the ticks by the number of schedules.

    ``tick_ms`` is this project's on SQLite; all schedulers are in ``tick_ms_by_name``.
    """
    made: dict[str, Any] = {"start_ms": {}, "drained_per_s": {}, "tick_ms": {}, "pss_mb": {}}
    for measure, rows in results.values.items():
        for row, columns in rows.items():
            medians = {column: _rounded(statistics.median(values)) for column, values in columns.items()}
            made.setdefault(measure, {})[row] = medians.get(ONLY, medians)
    made["tick_ms"] = made.get("tick_ms_by_name", {}).get(OWN, {})
    made["problems"] = results.problems
    made["machine"] = machine()
    made["quick"] = results.quick
    made["seconds"] = round(results.seconds)
    return made


def machine() -> str:
    """The machine in one line."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


# Tables

TITLES = {
    "start_ms": ("Start: ms from handing a task over to the first line of its code", "ms"),
    "query_ms": ("Start: ms from handing a task over to the answer of its first query", "ms"),
    "drained_per_s": ("Drained: tasks a second, all handed over at once, until all are recorded as finished", "per s"),
    "tick_ms_by_name": ("Tick: ms of one round of a scheduler, none due, by the number of schedules", ""),
    "sql_ms_a_due_slot": ("SQL: ms for each slot that is due (100 of them)", "ms"),
    "tick_ms_a_due_slot": ("Whole tick: ms for each slot that is due (100 of them)", "ms"),
    "pss_mb": ("Memory: MB PSS", "MB"),
    "idle_cpu_percent": ("Idle: % of one core", "%"),
    "overdue_first_start_s": ("100,000 missed slots: s from a poller's own start to the first line of a program", "s"),
    "overdue_poller_mb": ("100,000 missed slots: the most memory of the poller, MB RSS", "MB"),
    "overdue_decided_per_s": (
        "100,000 missed slots: slots decided a second, beside two programs",
        "per s",
    ),
    "downloads_per_s": ("Downloads of 1 KB a second through nginx and gunicorn (2 workers)", "per s"),
    "download_gb_per_s": ("Download of 1 GB: GB a second", "GB/s"),
}


def as_markdown(results: Results) -> str:
    """Every table, medians with the middle half of the values behind them."""
    how = "quick run" if results.quick else "thorough run"
    parts = [f"Measured on {machine()}; a {how} of {results.seconds / 60:.0f} minutes."]
    for measure, (title, unit) in TITLES.items():
        rows = results.values.get(measure)
        if rows:
            parts.append(f"### {title}\n\n" + (_by_column(rows) if measure == "tick_ms_by_name" else _list(rows, unit)))
    ratios = _ratios(results)
    if ratios:
        parts.append("### Ratios\n\n" + ratios)
    if results.problems:
        parts.append("### Not measured\n\n" + "\n".join(f"- {problem}" for problem in results.problems))
    return "\n\n".join(parts) + "\n"


def _list(rows: dict[str, dict[str, list[float]]], unit: str) -> str:
    lines = [f"| | median, {unit} | middle half | of |", "|---|--:|--:|--:|"]
    for row, columns in rows.items():
        values = columns[ONLY]
        low, high = spread(values)
        lines.append(
            f"| {_name(row)} | {_text(statistics.median(values))} | {_text(low)} to {_text(high)} | {len(values)} |"
        )
    return "\n".join(lines)


def _by_column(rows: dict[str, dict[str, list[float]]]) -> str:
    columns = sorted({column for row in rows.values() for column in row}, key=int)
    lines = ["| |" + "".join(f" {int(column):,} |" for column in columns), "|---|" + "--:|" * len(columns)]
    for row, values in rows.items():
        cells = [_text(statistics.median(values[column])) if column in values else "" for column in columns]
        lines.append(f"| {_name(row)} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines)


def spread(values: list[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


# What is compared: title, measure, ours, theirs; the ratio is ours to theirs.
COMPARED = (
    ("start beside RQ's fork", "start_ms", "scheduler_warm", "rq_fork"),
    ("start beside RQ's fork, PostgreSQL", "start_ms", "scheduler_warm_pg", "rq_fork_pg"),
    ("first query beside RQ's fork", "query_ms", "scheduler_warm", "rq_fork"),
    ("first query beside RQ's fork, PostgreSQL", "query_ms", "scheduler_warm_pg", "rq_fork_pg"),
    ("start beside manage.py from cron", "start_ms", "scheduler_warm", "cron_manage_py"),
    ("drained beside RQ's fork", "drained_per_s", "scheduler_warm", "rq_fork"),
    ("drained beside RQ's fork, PostgreSQL", "drained_per_s", "scheduler_warm_pg", "rq_fork_pg"),
    ("drained beside Celery, a process a task", "drained_per_s", "scheduler_warm", "celery_process_per_task"),
    ("1 KB download beside has_perm and sendfile2", "downloads_per_s", "scheduler", "guardian_sendfile2"),
    (
        "1 KB download beside has_perm and sendfile2, PostgreSQL",
        "downloads_per_s",
        "scheduler_pg",
        "guardian_sendfile2_pg",
    ),
    ("1 GB download beside nginx static", "download_gb_per_s", "scheduler", "nginx_static"),
)


def _ratios(results: Results) -> str:
    lines = ["| ours to theirs | ratio |", "|---|--:|"]
    for title, measure, ours, theirs in COMPARED:
        one, other = results.median(measure, ours), results.median(measure, theirs)
        if one is not None and other:
            lines.append(f"| {title} | {one / other:.3g} |")
    few, many = (results.median("tick_ms_by_name", OWN, column) for column in ("10", "1000000"))
    if few and many:
        lines.append(f"| tick with 1,000,000 schedules to that with 10 | {many / few:.3g} |")
    both, bare = results.median("pss_mb", "poller_and_warm"), results.median("pss_mb", "bare_django_setup")
    if both is not None and bare is not None:
        lines.append(f"| MB of poller and warm process above twice a bare django.setup() | {both - 2 * bare:.3g} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _name(row: str) -> str:
    star = " (one process for many tasks)" if row.startswith(NOT_ISOLATED) else ""
    return f"**{row}**" if row.startswith(OWN) else f"{row}{star}"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def renewed(page: str, results: Results) -> str:
    """The page of the docs with these results between its marks."""
    before, mark, rest = page.partition(BEGIN)
    _, end_mark, after = rest.partition(END)
    if not mark or not end_mark:
        raise ValueError(f"The page has no “{BEGIN}” … “{END}”.")
    # A heading deeper: they stand in a section of the page.
    return f"{before}{BEGIN}\n{as_markdown(results)}{END}{after}"


# A picture

WIDTH, BAR, LEFT, TOP = 860, 22, 250, 40


def as_svg(results: Results) -> str:
    """Start latencies and drained tasks as bars, on a logarithmic scale: the ways differ by factors of hundreds."""
    panels = [
        ("start_ms", "start, ms (shorter is better)"),
        ("drained_per_s", "drained, tasks a second (longer is better)"),
    ]
    body: list[str] = []
    y = 0
    for measure, title in panels:
        rows = {row: results.median(measure, row) or 0.0 for row in results.values.get(measure, {})}
        if rows:
            body += _panel(title, rows, y)
            y += TOP + BAR * len(rows) + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {max(y, BAR)}" role="img" '
        f'font-family="sans-serif" font-size="13">\n<title>Start latency and throughput beside peers</title>\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(title: str, rows: dict[str, float], y: int) -> list[str]:
    low = log10(max(min(rows.values()), 1e-6)) - 0.3
    high = log10(max(*rows.values(), 1e-6)) if len(rows) > 1 else low + 1
    made = [f'<text x="10" y="{y + 26}" font-weight="bold" fill="#222222">{escape(title)}; logarithmic</text>']
    for number, (row, value) in enumerate(sorted(rows.items(), key=lambda item: item[1])):
        top = y + TOP + number * BAR
        length = max((log10(max(value, 1e-6)) - low) / max(high - low, 1e-6), 0.01) * (WIDTH - LEFT - 90)
        colour = "#205067" if row.startswith(OWN) else "#c9a56b" if row.startswith(NOT_ISOLATED) else "#9aa5ab"
        made += [
            f'<text x="{LEFT - 8}" y="{top + 15}" text-anchor="end" fill="#222222">{escape(row)}</text>',
            f'<rect x="{LEFT}" y="{top + 3}" width="{length:.1f}" height="{BAR - 6}" fill="{colour}"/>',
            f'<text x="{LEFT + length + 6:.1f}" y="{top + 15}" fill="#222222">{_text(value)}</text>',
        ]
    return made
