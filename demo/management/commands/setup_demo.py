from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from demo import contents


class Command(BaseCommand):
    help = "Fill this database with the demo's people, tasks and schedules, once; later calls change nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = contents.set_up(timezone.now(), contents.logins_file())
        except (OSError, ValueError) as error:
            raise CommandError(f"The demo's log-ins cannot be kept: {error}") from error
        if made:
            self.stdout.write(
                f"The demo's people, tasks and schedules are there; its log-ins are in {contents.logins_file()}."
            )
