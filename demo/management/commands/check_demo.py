from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from demo import check


class Command(BaseCommand):
    help = "Run every task of the demo to its end, print what happened, and exit 1 when that is not what should have."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--poller", type=int, metavar="PID", help="give up when this process has ended")
        parser.add_argument("--seconds", type=int, default=300, help="give up after so many seconds (default: 300)")

    def handle(self, *args: Any, **options: Any) -> None:
        queued = check.queue_all(timezone.now())
        given_up = check.wait(queued, limit=timedelta(seconds=options["seconds"]), poller=options["poller"])
        outcomes = check.outcomes(queued)
        rows = [("TASK", "STATUS", "SECONDS", "FILES", "")]
        for each in outcomes:
            seconds = "" if each.seconds is None else f"{each.seconds:.1f}"
            problem = f"  <- {each.problem}" if each.problem else ""
            rows.append((each.run.task.name, each.run.status, seconds, str(each.files), each.run.sentence + problem))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        for row in rows:
            name, status, seconds, files = (value.ljust(width) for value, width in zip(row, widths, strict=False))
            self.stdout.write(f"{name}  {status}  {seconds}  {files}  {row[4]}".rstrip())
        wrong = sum(bool(each.problem) for each in outcomes)
        if given_up or wrong:
            raise CommandError(given_up or f"{wrong} of {len(outcomes)} tasks did not end as they should.")
        self.stdout.write(f"All {len(outcomes)} tasks ended as they should.")
