"""What a run's status and reason can be, and which status may follow which.

Everything that writes or tests a status asserts against this module.
"""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Status(TextChoices):
    """Where a run is. A request ("stop this") is a column of the run, never a status."""

    QUEUED = "queued", _("queued")
    # Waits for its slot, or (with ready_at set) for a free place.
    PROCESSING = "processing", _("processing")
    # A poller has claimed it: its program is starting, running or ending.
    COMPLETED = "completed", _("completed")
    # The program ended with exit code 0.
    FAILED = "failed", _("failed")
    # The program ended in any other way, or nobody can say how.
    CANCELLED = "cancelled", _("cancelled")
    # A person ended it, before or while it ran.
    SKIPPED = "skipped", _("skipped")
    # Its slot came due and was decided not to be run; the reason says why.


class Reason(TextChoices):
    """Why a run is finished, in one word."""

    EXIT_CODE = "exit_code", _("exit code")
    # The program ended by itself; the exit code says how.
    SIGNAL = "signal", _("signal")
    # A signal that the scheduler did not send ended the program.
    TIMED_OUT = "timed_out", _("timed out")
    # The scheduler stopped it at the task's time limit.
    OUT_OF_MEMORY = "out_of_memory", _("out of memory")
    # The kernel killed it and counted so in the run's own cgroup.
    CPU_LIMIT = "cpu_limit", _("processor time used up")
    # The kernel ended it at the task's limit of processor time for each process.
    LAUNCH_ERROR = "launch_error", _("launch error")
    # The program could not be started; it did not run.
    LOST = "lost", _("lost")
    # Nobody saw its end (machine restarted, supervisor killed); it may have run.
    STOPPED_BY_USER = "stopped_by_user", _("stopped by a user")
    # A person asked for it.
    OVERLAP = "overlap", _("overlap")
    # The task's previous run was not over when the slot came due.
    REPLACED = "replaced", _("replaced")
    # Stopped while it ran, because the next slot came due and the task's policy is to stop the old run.
    CATCH_UP = "catch_up", _("catch-up")
    # Slots that passed while no poller was up; a later one stands for them.
    MISSED = "missed", _("missed")
    # The slot passed while no poller was up, and its schedule does not catch up.
    TOO_LATE = "too_late", _("too late")
    # The slot was decided later than its schedule allows.
    BLOCKED = "blocked", _("blocked")
    # The slot lies in the blackout calendar of its schedule.
    BAD_RULE = "bad_rule", _("bad rule")
    # The schedule's rule could not be computed; the schedule was disabled.
    PAUSED = "paused", _("paused")
    # The scheduler, the task or the schedule was paused, or the task disabled, when the slot came due.
    SCHEDULE_GONE = "schedule_gone", _("schedule deleted")
    # The schedule was deleted before the slot came due.


UNFINISHED = frozenset({Status.QUEUED, Status.PROCESSING})
FINISHED = frozenset(Status) - UNFINISHED

# status -> the statuses from which it may be reached
SOURCES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset(),
    Status.PROCESSING: frozenset({Status.QUEUED}),
    Status.COMPLETED: frozenset({Status.PROCESSING}),
    Status.FAILED: frozenset({Status.PROCESSING}),
    Status.CANCELLED: frozenset({Status.QUEUED, Status.PROCESSING}),
    Status.SKIPPED: frozenset({Status.QUEUED}),
}
