from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from scheduler.doctor import examine

if TYPE_CHECKING:
    from django.core.management.base import CommandParser


class Command(BaseCommand):
    help = "Look at the whole set-up on this machine: a line each, green or what to do; exit code 1 if anything is red."
    requires_system_checks = ()  # they are one of the lines

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", default="", help="the site's public address, to try a download through it")

    def handle(self, *args: Any, **options: Any) -> None:
        is_well = True
        for finding in examine(url=options["url"].rstrip("/"), now=timezone.now()):
            is_well &= finding.is_well
            mark = self.style.SUCCESS("ok   ") if finding.is_well else self.style.ERROR("WRONG")
            self.stdout.write(f"{mark}  {finding.what:<13} {finding.text}")
        if not is_well:
            sys.exit(1)
