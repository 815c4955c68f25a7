"""How a task's last runs went: bars for a picture, and how long it usually takes."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import JSONField, OuterRef, Subquery
from django.db.models.functions import JSONObject
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.text import get_text_list
from django.utils.translation import gettext, ngettext

from scheduler.models import Run, Task
from scheduler.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.sql.compiler import SQLCompiler
    from django.utils.safestring import SafeString

LAST = 15
# "Usually" wants some experience.
USUAL_OF_AT_LEAST = 3
# What differs by less than this from the usual duration is as usual.
NOTABLE_FACTOR = 2
NOTABLE_AT_LEAST = timedelta(seconds=5)

BAR_WIDTH, BAR_STEP, HEIGHT, LOWEST = 4, 6, 14, 3  # px


class _AsList(Subquery):
    """The ``entry`` of each row of a subquery, as one JSON list: the last few of each task, in one query."""

    template = "(SELECT JSONB_AGG(listed.entry) FROM (%(subquery)s) listed)"
    output_field = JSONField()

    def as_sqlite(self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any) -> Any:
        template = "(SELECT JSON_GROUP_ARRAY(JSON(listed.entry)) FROM (%(subquery)s) listed)"
        return self.as_sql(compiler, connection, template=template, **context)


@dataclass(frozen=True)
class Past:
    """The last runs of one task, the oldest first: how each ended and how long its program ran."""

    runs: Sequence[tuple[str, timedelta | None]]

    @cached_property
    def usual(self) -> timedelta | None:
        """The median of the completed ones."""
        seconds = [
            took.total_seconds() for status, took in self.runs if status == Status.COMPLETED and took is not None
        ]
        return timedelta(seconds=statistics.median(seconds)) if len(seconds) >= USUAL_OF_AT_LEAST else None

    def is_notable(self, took: timedelta) -> bool:
        """Whether a run took far longer, or far shorter, than usual."""
        if self.usual is None or abs(took - self.usual) < NOTABLE_AT_LEAST:
            return False
        return took > self.usual * NOTABLE_FACTOR or took * NOTABLE_FACTOR < self.usual

    @cached_property
    def in_words(self) -> str:
        """Such as “Last 12 runs: 10 completed, 2 failed”."""
        counts = Counter(status for status, _took in self.runs)
        parts = [f"{counts[status]} {status.label}" for status in Status if counts[status]]
        total = len(self.runs)
        return ngettext("Last run: %(runs)s", "Last %(n)d runs: %(runs)s", total) % {
            "n": total,
            "runs": get_text_list(parts, gettext("and")),
        }

    @cached_property
    def picture(self) -> SafeString | str:
        """SVG: a bar for each run, as high as it took long; what was not run is low."""
        if not self.runs:
            return ""
        longest = max((took for _status, took in self.runs if took), default=None)
        bars: dict[str, str] = {}
        for number, (status, took) in enumerate(self.runs):
            height = LOWEST
            if took and longest:
                height += round((HEIGHT - LOWEST) * (took / longest))
            bar = f"M{number * BAR_STEP} {HEIGHT}v-{height}h{BAR_WIDTH}v{height}z"
            bars[status] = bars.get(status, "") + bar
        width = LAST * BAR_STEP - (BAR_STEP - BAR_WIDTH)
        return format_html(
            '<svg class="spark" role="img" viewBox="0 0 {} {}" width="{}" height="{}"><title>{}</title>'
            '<path class="spark-base" d="M0 {}h{}v1h-{}z"/>{}</svg>',
            *(width, HEIGHT + 1, width, HEIGHT + 1, self.in_words, HEIGHT, width, width),
            format_html_join("", '<path class="spark-{}" d="{}"/>', bars.items()),
        )


def past_of(tasks: Iterable[int]) -> dict[int, Past]:
    """Task id -> how its last runs went, in one query for all of them."""
    ids = set(tasks)
    if not ids:
        return {}
    last = (
        Run.objects.filter(task=OuterRef("pk"), finished_at__isnull=False)
        .order_by("-finished_at", "-id")
        .values(entry=JSONObject(status="status", begin="started_at", end="finished_at"))[:LAST]
    )
    rows = Task.objects.filter(pk__in=ids).order_by().values_list("pk", _AsList(last))
    return {pk: Past([(each["status"], _took(each)) for each in reversed(entries or [])]) for pk, entries in rows}


def _took(entry: dict[str, str | None]) -> timedelta | None:
    begin, end = entry["begin"], entry["end"]
    if begin is None or end is None:
        return None
    return max(datetime.fromisoformat(end) - datetime.fromisoformat(begin), timedelta(0))
