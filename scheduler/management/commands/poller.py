from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scheduler.executors.local import LocalExecutor
from scheduler.poller import PollerDaemon


class Command(BaseCommand):
    help = "Start what is due and track what runs, until TERM or Ctrl-C; running tasks go on without it."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            PollerDaemon(LocalExecutor()).run()
        except OSError as error:
            raise CommandError(
                f"The scheduler's folder cannot be used: {error.strerror or error} ({error.filename}). "
                "Make it writable for this user, or set SCHEDULER['ROOT'] to another folder."
            ) from error
