"""Where the marks of the charts stand; the templates draw them. Nothing is styled here: a strict CSP has no style."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

from scheduler.templatetags.scheduler_display import run_title

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from scheduler.models import Run

# Of a chart of durations, in units of its own
WIDTH, HEIGHT = 720, 140
WIDEST_BAR = 24
LOWEST_BAR = 2

# Of a lane in the timeline: a unit is a minute
LANE_HEIGHT = 16
LANE_GAP = 3
NARROWEST_BAR = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One run in a chart."""

    run: Run
    url: str
    title: str
    """Which run, how it ended, from when to when."""
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class DurationChart:
    """How long runs took, oldest first."""

    bars: list[Bar]
    longest: timedelta
    usual: timedelta
    usual_y: float
    width: int = WIDTH
    height: int = HEIGHT


def duration_chart(runs: Sequence[Run], now: datetime) -> DurationChart | None:
    """A bar for each run that was started, in the order given; None when there is none."""
    taken = [(run, elapsed) for run in runs if (elapsed := run.elapsed(now)) is not None]
    if not taken:
        return None
    seconds = [elapsed.total_seconds() for _run, elapsed in taken]
    longest = max(max(seconds), 0.001)
    step = min(WIDTH / len(taken), WIDEST_BAR)
    bars = []
    for index, (run, _elapsed) in enumerate(taken):
        height = max(seconds[index] / longest * HEIGHT, LOWEST_BAR)
        x, y = index * step + step * 0.1, HEIGHT - height
        size = round(x, 2), round(y, 2), round(step * 0.8, 2), round(height, 2)
        bars.append(Bar(run, run.get_absolute_url(), run_title(run), *size))
    usual = median(seconds)
    usual_y = round(HEIGHT - usual / longest * HEIGHT, 2)
    return DurationChart(bars, timedelta(seconds=max(seconds)), timedelta(seconds=usual), usual_y)


@dataclass(frozen=True, slots=True)
class Span:
    """A run's part of a day: from when to when, and whether its program ran at all."""

    run: Run
    start: datetime
    end: datetime
    ran: bool
    url: str
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """All runs of one task, or on one host, in a day; what overlaps stands one above the other."""

    bars: list[Bar]
    width: int
    height: int


def lane(spans: Sequence[Span], *, start: datetime, end: datetime) -> Lane:
    """The bars of one lane, by their start. Each takes the highest row that is free."""
    length = (end.timestamp() - start.timestamp()) / 60
    free: list[float] = []
    placed: list[tuple[Span, int, float, float]] = []
    for span in sorted(spans, key=lambda each: (each.start, each.end)):
        left = max((span.start.timestamp() - start.timestamp()) / 60, 0)
        right = min((span.end.timestamp() - start.timestamp()) / 60, length)
        width = max(right - left, NARROWEST_BAR)
        left = min(left, length - width)
        # By its true end: bars that are drawn wider than they are do not overlap for that.
        row = next((number for number, until in enumerate(free) if until <= left), len(free))
        if row == len(free):
            free.append(0)
        free[row] = max(right, left)
        placed.append((span, row, left, width))
    step = LANE_HEIGHT + LANE_GAP
    height = max(len(free), 1) * step + LANE_GAP
    bars = [
        Bar(span.run, span.url, span.title, round(left, 2), row * step + LANE_GAP, round(width, 2), LANE_HEIGHT)
        for span, row, left, width in placed
    ]
    return Lane(bars, round(length), height)
