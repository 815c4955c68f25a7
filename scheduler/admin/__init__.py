"""The scheduler's rows in the Django admin: one module a page, and ``base`` for what all of them keep to.

What a person may see and do is decided by ``scheduler.access`` alone; the admin's own model permissions are not asked.
"""

from __future__ import annotations

from .audit import AuditEntryAdmin
from .calendars import CalendarAdmin
from .groups import ConcurrencyGroupAdmin
from .pollers import PollerAdmin
from .recurrences import RecurrenceAdmin
from .runs import RunAdmin
from .schedules import ScheduleAdmin
from .tasks import TaskAdmin

__all__ = [
    "AuditEntryAdmin",
    "CalendarAdmin",
    "ConcurrencyGroupAdmin",
    "PollerAdmin",
    "RecurrenceAdmin",
    "RunAdmin",
    "ScheduleAdmin",
    "TaskAdmin",
]
