from __future__ import annotations

import os
import pwd
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone
from django.utils.translation import gettext

from scheduler import recurrences
from scheduler.crontab_import import Kind, NoProgramError, import_crontab

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.core.management.base import CommandParser

MOST_BYTES = 4 * 1024**2


class Command(BaseCommand):
    help = (
        "Make tasks and schedules of a crontab, and say of each line what became of it; a second time nothing is taken "
        "twice. Exit code 1 if some lines could not be taken. Run it as the poller's user."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a crontab; - for the standard input: crontab -l | …")
        parser.add_argument("--user-column", action="store_true", help="a system crontab: the user after the times")
        parser.add_argument(
            "--owner", metavar="NAME", help="the user who owns the tasks and may do everything with them"
        )
        parser.add_argument(
            "--timezone", metavar="ZONE", help="of the times without CRON_TZ; without it: the site's time zone"
        )
        parser.add_argument("--program", metavar="ROOT/PATH", default="", help="which run_command.py, if not the first")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            zone = recurrences.named_zone(options["timezone"] or timezone.get_default_timezone_name()).key
            outcomes = import_crontab(
                _read(options["file"]),
                now=timezone.now(),
                default_zone=zone,
                own_user=_own_user(),
                owner=_owner(options["owner"]),
                user_column=options["user_column"],
                program=options["program"],
                dry_run=options["dry_run"],
            )
        except (recurrences.InvalidRule, NoProgramError) as error:
            raise CommandError(str(error)) from error
        for outcome in outcomes:
            text = outcome.text
            if outcome.kind is Kind.REFUSED:
                text = self.style.ERROR(gettext("NOT TAKEN") + ": ") + text
            self.stdout.write(gettext("line %(number)d") % {"number": outcome.number} + f": {text}")
        count = Counter(outcome.kind for outcome in outcomes)
        values = {"taken": count[Kind.TAKEN], "known": count[Kind.KNOWN], "refused": count[Kind.REFUSED], "zone": zone}
        self.stdout.write(
            gettext(
                "%(taken)d taken, %(known)d there already, %(refused)d not taken. "
                "Times without CRON_TZ are read in %(zone)s."
            )
            % values
        )
        if options["dry_run"]:
            self.stdout.write(gettext("Nothing was written, because of --dry-run."))
        elif values["taken"]:
            self.stdout.write(gettext("Now remove the taken lines from the crontab: else cron runs them as well."))
        if values["refused"]:
            raise CommandError(
                gettext("Lines that could not be taken: %(refused)d. The reasons are above, marked NOT TAKEN.") % values
            )


def _read(name: str) -> bytes:
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        text = gettext("“%(file)s” cannot be read: %(error)s.")
        raise CommandError(text % {"file": name, "error": error.strerror or error}) from error
    if len(data) > MOST_BYTES:
        text = gettext("“%(file)s” has more than %(most)d MiB: that is no crontab.")
        raise CommandError(text % {"file": name, "most": MOST_BYTES // 1024**2})
    return data


def _owner(name: str | None) -> User | None:
    if name is None:
        return None
    users = get_user_model()
    try:
        return users._default_manager.get_by_natural_key(name)
    except users.DoesNotExist as error:
        text = gettext("There is no user “%(name)s”. Give the user name of an account of this site.")
        raise CommandError(text % {"name": name}) from error


def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's number without a name
        return str(os.geteuid())
