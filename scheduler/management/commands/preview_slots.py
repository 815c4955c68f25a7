from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext

from scheduler import calendars, recurrences
from scheduler.preview import preview

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from django.core.management.base import CommandParser

MOST_SLOTS = 100_000


class Command(BaseCommand):
    help = (
        "Print the next slots of a rule, one a line: the instant in UTC, the local time with its offset, and what is "
        "special about it; separated by tabs. LOCAL is YYYY-MM-DDTHH:MM on the clocks of the zone."
    )
    requires_system_checks = ()  # no database, no folders

    def add_arguments(self, parser: CommandParser) -> None:
        rule = parser.add_mutually_exclusive_group(required=True)
        rule.add_argument("--cron", metavar="LINE", help="five fields, or an alias such as @daily")
        rule.add_argument("--every", metavar="N", help="with --unit: every N units")
        parser.add_argument("--unit", metavar="UNIT", help="minutes, hours, days, weeks, months or years")
        parser.add_argument(
            "--anchor", metavar="LOCAL", help="the first slot, from which all are counted; without it: the time --after"
        )
        parser.add_argument("--timezone", metavar="ZONE", required=True, help="such as Europe/Amsterdam")
        parser.add_argument("--after", metavar="LOCAL", required=True, help="only slots later than this")
        parser.add_argument("--count", metavar="N", required=True, help="how many slots at most")
        parser.add_argument(
            "--blocked",
            metavar="DAYS",
            action="append",
            default=[],
            help="mark slots in these as blocked: 2026-12-25, 12-25, sat-sun, “daily 01:00-02:30” (repeatable)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            zone = recurrences.named_zone(options["timezone"])
            rule = _rule(options)
            after = _instant("--after", options["after"], zone)
            anchor = after if options["anchor"] is None else _instant("--anchor", options["anchor"], zone)
            calendar = calendars.read(", ".join(options["blocked"]), zone, options["blocked"])
        except (recurrences.InvalidRule, calendars.InvalidCalendar) as error:
            raise CommandError(str(error)) from error
        count = _number("--count", options["count"])
        if not 1 <= count <= MOST_SLOTS:
            raise CommandError(gettext("--count takes a number from 1 to %(most)d.") % {"most": MOST_SLOTS})
        for slot in preview(rule, anchor=anchor, zone=zone, after=after, count=count, calendar=calendar):
            utc = slot.at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="minutes")
            local = slot.local.isoformat(timespec="minutes")
            self.stdout.write(f"{utc}Z\t{local}\t{'; '.join(slot.marks)}")


def _rule(options: dict[str, Any]) -> recurrences.Rule:
    if options["cron"] is not None:
        if options["unit"] is not None:
            raise CommandError(gettext("--unit goes with --every; a cron line says by itself when it matches."))
        return recurrences.Cron(options["cron"])
    if options["unit"] is None:
        raise CommandError(
            gettext("--every needs --unit as well: minutes, hours, days, weeks, months or years, as in: --unit days.")
        )
    return recurrences.Every(_number("--every", options["every"]), options["unit"])


def _number(option: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise CommandError(
            gettext("%(option)s takes a whole number, not “%(value)s”.") % {"option": option, "value": value}
        ) from error


def _instant(option: str, value: str, zone: ZoneInfo) -> datetime:
    try:
        wall = datetime.strptime(value, "%Y-%m-%dT%H:%M")
    except ValueError as error:
        text = gettext("%(option)s takes a date and a time such as 2026-03-29T04:30, not “%(value)s”.")
        raise CommandError(text % {"option": option, "value": value}) from error
    return recurrences.shown_instant(wall, zone)
