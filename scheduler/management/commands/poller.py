from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from scheduler.executors.local import LocalExecutor
from scheduler.poller import PollerDaemon


class Command(BaseCommand):
    help = "Start what is due and track what runs, until TERM or Ctrl-C; running tasks go on without it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--drain",
            action="store_true",
            help="At TERM start nothing more and wait for what runs on this machine; a second TERM ends at once.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            PollerDaemon(LocalExecutor(), drains=options["drain"]).run()
        except OSError as error:
            raise CommandError(
                f"The scheduler's folder cannot be used: {error.strerror or error} ({error.filename}). "
                "Make it writable for this user, or set SCHEDULER['ROOT'] to another folder."
            ) from error
