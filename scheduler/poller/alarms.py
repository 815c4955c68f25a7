"""Alarms: finding runs that are late or run for too long, and telling people what was found, once an alarm."""

from __future__ import annotations

import logging
import statistics
import time
from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.utils import formats, timezone
from django.utils.translation import gettext, ngettext

from scheduler import signals
from scheduler.conf import scheduler_settings
from scheduler.models import Alarm, Run, SchedulerState, Task
from scheduler.poller.each import each

if TYPE_CHECKING:
    from uuid import UUID

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
BATCH = 200
# Mail is sent between two rounds: a server that does not answer must not hold runs up for long, nor again and again.
MAIL_SECONDS = 5
MAIL_PAUSE_SECONDS = 300.0
LINES_IN_A_MAIL = 50
# A run is far longer than usual when it takes several times the median of the last completed ones of its task, and a
# minute more: what takes seconds takes a few more on a busy machine.
USUAL_OF = 20
USUAL_OF_AT_LEAST = 5
LONG_FACTOR = 3
LONG_AT_LEAST = timedelta(minutes=1)


class Alarms:
    """Looks every few seconds; other pollers may do the same at once."""

    def __init__(self) -> None:
        self._next_look = 0.0
        self._no_mail_until = 0.0
        # Of each run in progress what was usual when it was first looked at, so that this is asked once a run
        self._usual: dict[int, timedelta | None] = {}

    def look(self, now: datetime, *, host: UUID | None = None) -> None:
        """Raise the alarms that are due, and tell of those that nobody was told of.

        ``host`` is the one whose runs in progress are looked at; None when it has none.
        """
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        raise_late(now)
        if host is not None:
            self.raise_long(host, now)
        self.tell(now)

    def raise_long(self, host: UUID, now: datetime) -> None:
        """Raise an alarm for each run in progress on a host that takes far longer than those before it did."""
        started = Run.objects.processing_on(host).filter(started_at__lte=now - LONG_AT_LEAST)
        runs = list(started.exclude(alarms__kind=Alarm.Kind.LONG))
        known = self._usual
        self._usual = {run.pk: known[run.pk] if run.pk in known else usual_duration(run.task_id) for run in runs}
        for run in runs:
            each(run, lambda run: self._raise_if_long(run, now))

    def _raise_if_long(self, run: Run, now: datetime) -> None:
        usual, elapsed = self._usual[run.pk], run.elapsed(now)
        if usual is None or elapsed is None or elapsed < max(usual * LONG_FACTOR, usual + LONG_AT_LEAST):
            return
        whole_seconds = timedelta(seconds=round(usual.total_seconds()))
        Alarm.raise_for(run, Alarm.Kind.LONG, now=now, text=str(whole_seconds))

    def tell(self, now: datetime) -> None:
        """Send the signal of each new alarm, and one mail a task.

        Each alarm is marked before it is told: one that is lost in a crash is still on the pages, and none comes twice.
        """
        told: dict[int, list[Alarm]] = defaultdict(list)
        for alarm in Alarm.objects.untold().select_related("task", "schedule__recurrence", "run__task")[:BATCH]:
            if Alarm.objects.untold().filter(pk=alarm.pk).update(told_at=now):
                alarm.told_at = now
                told[alarm.task_id].append(alarm)
                for receiver, answer in signals.alarm.send_robust(Alarm, alarm=alarm):
                    if isinstance(answer, Exception):
                        logger.error("alarm %s: %r failed", alarm.pk, receiver, exc_info=answer)
        for alarms in told.values():
            each(alarms[0].task, lambda task, alarms=alarms: self._mail(task, alarms))  # type: ignore[misc]

    def _mail(self, task: Task, alarms: list[Alarm]) -> None:
        if not task.alarm_addresses:
            return
        if time.monotonic() < self._no_mail_until:
            logger.warning("task %s: mail about %s alarms left out, the last one failed", task.pk, len(alarms))
            return
        subject = ngettext("%(task)s: %(count)d alarm", "%(task)s: %(count)d alarms", len(alarms))
        lines = [_line(alarm) for alarm in alarms[:LINES_IN_A_MAIL]]
        if len(alarms) > LINES_IN_A_MAIL:
            more = len(alarms) - LINES_IN_A_MAIL
            lines.append(ngettext("And %(count)d more.", "And %(count)d more.", more) % {"count": more})
        message = EmailMessage(
            subject % {"task": task.name, "count": len(alarms)},
            "\n\n".join(lines) + "\n",
            settings.DEFAULT_FROM_EMAIL,
            task.alarm_addresses,
            connection=get_connection(timeout=MAIL_SECONDS),
        )
        try:
            message.send()
        except OSError as error:  # SMTPException is one
            self._no_mail_until = time.monotonic() + MAIL_PAUSE_SECONDS
            logger.warning("task %s: mail about an alarm cannot be sent: %s", task.pk, error)


def usual_duration(task_id: int) -> timedelta | None:
    """The median of how long a task's last completed runs took; None when they are too few to say."""
    last = Run.objects.completed_of(task_id).only("started_at", "finished_at")[:USUAL_OF]
    took = [run.elapsed(run.finished_at) for run in last if run.finished_at is not None]
    seconds = [each.total_seconds() for each in took if each is not None]
    return timedelta(seconds=statistics.median(seconds)) if len(seconds) >= USUAL_OF_AT_LEAST else None


def raise_late(now: datetime) -> None:
    """Raise an alarm for each run that waits for longer than its task allows; not where somebody paused it."""
    if SchedulerState.paused() is not None:
        return
    watched = Task.objects.filter(enabled=True, paused_at=None, late_after_seconds__isnull=False)
    for seconds in watched.order_by().values_list("late_after_seconds", flat=True).distinct():
        late = Run.objects.overdue(now - timedelta(seconds=seconds or 0)).filter(
            task__in=watched.filter(late_after_seconds=seconds), schedule__paused_at=None
        )
        for run in late.exclude(alarms__kind=Alarm.Kind.LATE)[:BATCH]:
            each(run, lambda run: Alarm.raise_for(run, Alarm.Kind.LATE, now=now))


def _line(alarm: Alarm) -> str:
    time_text = formats.date_format(timezone.localtime(alarm.at), "Y-m-d H:i:s T")
    if alarm.run is None:
        return f"{time_text} {alarm.sentence}"
    run = gettext("Run #%(run)s: %(sentence)s") % {"run": alarm.run.pk, "sentence": alarm.sentence}
    return f"{time_text} {run}\n{scheduler_settings().public_url}{alarm.run.get_absolute_url()}"
