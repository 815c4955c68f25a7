"""Delete old runs with their logs and files, by age and by number, so that the history does not grow for ever.

A run is deleted when it finished more than --days ago and is not among the newest --keep runs of its task. Runs that
are queued or processing are never touched, and neither is a slot that its schedule has still to pass: somebody
cancelled it, and without its row it would be planned again.
"""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from scheduler.task import run

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from scheduler.models import Run, Task

RUNS_AT_ONCE = 300


def old_runs(*, finished_before: datetime, keep: int, task: Task | None) -> QuerySet[Run]:
    """The runs that may go, oldest first."""
    from django.db.models import F, Q, Window
    from django.db.models.functions import Coalesce, RowNumber
    from django.utils import timezone

    from scheduler.models import Run

    runs = Run.objects.finished()
    if task is not None:
        runs = runs.filter(task=task)
    # The place is counted among all finished runs of the task, so the other conditions must not be seen by the window.
    ranked = runs.annotate(
        place=Window(RowNumber(), partition_by="task", order_by=[F("finished_at").desc(), F("id").desc()])
    ).filter(place__gt=keep)
    return (
        Run.objects.finished()
        .annotate(last_slot=Coalesce("slot_until", "slot_at"))
        .filter(Q(last_slot=None) | Q(last_slot__lt=timezone.now()))
        .filter(Q(last_slot=None) | Q(schedule__next_run=None) | Q(last_slot__lt=F("schedule__next_run__slot_at")))
        .filter(pk__in=ranked.values("pk"), finished_at__lt=finished_before)
        .order_by("id")
    )


def show(ids: list[int]) -> None:
    from scheduler.models import Run

    for each in Run.objects.filter(pk__in=ids).select_related("task").order_by("id"):
        run.log(f"#{each.pk} {each.task}: {each.get_status_display()} {each.finished_at:%Y-%m-%d %H:%M} UTC")


def whole_number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 100_000:
        raise argparse.ArgumentTypeError("give a number from 0 to 100000")
    return number


def size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def main() -> int:
    parser = argparse.ArgumentParser(description="Delete old finished runs with their logs and files.")
    parser.add_argument(
        "--days",
        type=whole_number,
        default=90,
        metavar="N",
        help="only runs that finished more than N days ago; 0: the number alone decides (default: %(default)s)",
    )
    parser.add_argument(
        "--keep",
        type=whole_number,
        default=10,
        metavar="N",
        help="never the newest N of each task; 0: the age alone decides (default: %(default)s)",
    )
    parser.add_argument("--task", metavar="NAME", help="only runs of this task")
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, list what would go")
    arguments = parser.parse_args(run.arguments)

    from django.db import transaction
    from django.db.models import Count, Sum
    from django.utils import timezone

    from scheduler.models import OutputFile, Run, Task

    task = Task.objects.filter(name=arguments.task).first() if arguments.task is not None else None
    if arguments.task is not None and task is None:
        parser.error(f"there is no task “{arguments.task}”")

    chosen = list(
        old_runs(
            finished_before=timezone.now() - timedelta(days=arguments.days), keep=arguments.keep, task=task
        ).values_list("pk", flat=True)
    )
    runs = files = size_in_all = 0
    chunks = [chosen[start : start + RUNS_AT_ONCE] for start in range(0, len(chosen), RUNS_AT_ONCE)]
    for ids in chunks:
        # A transaction a chunk: what is deleted stays deleted when this is stopped, and others get their turn.
        with transaction.atomic():
            found = OutputFile.objects.filter(run__in=ids).aggregate(files=Count("pk"), size=Sum("size"))
            if arguments.dry_run:
                show(ids)
                runs += len(ids)
            else:
                # The files are removed from the disk by the poller of the machine that has them.
                _rows, by_model = Run.objects.finished().filter(pk__in=ids).delete()
                runs += by_model.get("scheduler.Run", 0)
        files += found["files"]
        size_in_all += found["size"] or 0
        run.progress(runs, len(chosen), "runs")
    would = "would be " if arguments.dry_run else ""
    run.message(f"{runs} runs with {files} files ({size(size_in_all)}) {would}deleted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
