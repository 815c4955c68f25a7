"""What stands at the top of the main page: what is paused, and alarms that nobody has dismissed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db.models import Exists

from scheduler import access
from scheduler.models import Alarm, Schedule, SchedulerState, Task
from scheduler.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.contrib.auth.models import User
    from django.db.models import QuerySet

    from scheduler.models.alarm import AlarmQuerySet

PAUSES_AT_MOST = 10
ALARMS_AT_MOST = 5


def notices(user: User, task: Task | None) -> dict[str, Any]:
    """All of them, or with a task only its own (and the pause of the whole scheduler)."""
    tasks: QuerySet[Task] = access.visible_tasks(user)
    if task is not None:
        tasks = tasks.filter(pk=task.pk)
    # Mostly there is none, of anybody's, and then it is not asked which of them this person may see.
    task_paused, schedule_paused, alarm_open = _ANY.first(Task) or (False, False, False)
    paused_tasks: list[Task] = []
    paused_schedules: list[Schedule] = []
    alarms: list[Alarm] = []
    if task_paused:
        paused_tasks += tasks.filter(paused_at__isnull=False).order_by("-paused_at")[: PAUSES_AT_MOST + 1]
    if schedule_paused:
        schedules = Schedule.objects.paused().filter(task__in=tasks).order_by("-paused_at")
        paused_schedules += schedules.select_related("task", "recurrence")[: PAUSES_AT_MOST + 1]
    if alarm_open:
        found = with_related(access.visible_alarms(user).open())
        alarms += (found if task is None else found.filter(task=task))[: ALARMS_AT_MOST + 1]
    paused = SchedulerState.paused()
    return {
        "paused": paused,
        "may_resume": paused is not None and access.can_everywhere(user, "pause_all"),
        "paused_tasks": paused_tasks[:PAUSES_AT_MOST],
        "paused_schedules": paused_schedules[:PAUSES_AT_MOST],
        "more_paused": max(len(paused_tasks), len(paused_schedules)) > PAUSES_AT_MOST,
        "alarms": alarm_rows(user, alarms[:ALARMS_AT_MOST]),
        "more_alarms": len(alarms) > ALARMS_AT_MOST,
    }


def _any() -> QuerySet[Any, Any]:
    paused = Task.objects.filter(paused_at__isnull=False), Schedule.objects.paused(), Alarm.objects.open()
    return Task.objects.order_by().values_list(*map(Exists, paused))[:1]


_ANY = Prepared(_any)


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """An alarm on a page."""

    alarm: Alarm
    may_dismiss: bool


def with_related(alarms: AlarmQuerySet) -> AlarmQuerySet:
    """The same alarms, with what a page shows of them."""
    return alarms.select_related("task", "schedule__recurrence", "run__task")


def alarm_rows(user: User, alarms: Iterable[Alarm]) -> list[AlarmRow]:
    """The alarms, each with whether the user may dismiss it."""
    alarms = list(alarms)
    if not alarms:
        return []
    allowed = access.actions_on(user, [alarm.task for alarm in alarms])
    return [
        AlarmRow(alarm, alarm.dismissed_at is None and bool(allowed[alarm.task_id] & access.DISMISS))
        for alarm in alarms
    ]
