"""The state of a run in one sentence, as far as anybody can know it now, and what a person can do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler.states import Reason, Status

if TYPE_CHECKING:
    from scheduler.models import Run

    from .rows import Row

SIGKILL = 9

_BY_REASON = {
    Reason.EXIT_CODE: _("Its log says why."),
    Reason.SIGNAL: _("Something outside of the scheduler ended it, or the program did so itself."),
    Reason.LAUNCH_ERROR: _("The program has not run. Mend what the sentence above names, then run it again."),
    Reason.LOST: _(
        "See in its log and its files how far it came. Run it again only if its work may be done twice without harm."
    ),
    Reason.OVERLAP: _("What becomes of such a slot is the task's “overlap”. Run the task now if it is wanted."),
    Reason.MISSED: _("What becomes of missed slots is the schedule's “catch-up”. Run the task now if it is wanted."),
    Reason.TOO_LATE: _("How late is too late stands in its schedule. Run the task now if it is wanted all the same."),
    Reason.BLOCKED: _("Run the task now if it is wanted all the same."),
    Reason.BAD_RULE: _("Mend the rule of the schedule, then enable it."),
    Reason.PAUSED: _("Resume what is paused. Run the task now if this slot is still wanted."),
}


def sentence(row: Row) -> str:
    """What is so at this instant: the row alone cannot know that nobody has looked for a while."""
    run = row.run
    if run.status == Status.QUEUED and row.note:
        return row.note
    if row.unconfirmed and run.started_at is not None and run.cancel_requested_at is None:
        text = gettext("Was processing on host %(host)s, process %(pid)s, since %(time)s, when a poller last looked.")
        started = formats.date_format(timezone.localtime(run.started_at), "Y-m-d H:i:s")
        return text % {"host": run.host_name, "pid": run.pid, "time": started}
    return run.sentence


def advice(row: Row, *, pollers: bool) -> str:
    """One or two sentences, or nothing when there is nothing to do; ``pollers``: whether any poller is up."""
    run = row.run
    match run.status:
        case Status.QUEUED if row.waits and not pollers:
            return gettext("No poller is up: nothing starts. Start one: “manage.py poller”, or its service.")
        case Status.PROCESSING if row.unconfirmed:
            text = gettext(
                "It may run or be over: only a poller on %(host)s can tell, and stop it. Start one there; it finds out "
                "by itself."
            )
            return text % {"host": run.host_name}
        case Status.PROCESSING if run.cancel_requested_at is not None:
            text = gettext("Its processes were asked to end; what still runs %(seconds)s s after that is killed.")
            return text % {"seconds": run.task.grace_seconds}
        case Status.FAILED | Status.SKIPPED:
            return _of_finished(run)
    return ""


def _of_finished(run: Run) -> str:
    match run.reason:
        case Reason.SIGNAL if run.signal == SIGKILL:
            return gettext("Often the machine was out of memory: its kernel log says so (“journalctl -k”).")
        case Reason.TIMED_OUT if run.task.timeout_seconds:
            text = gettext(
                "The task's limit is %(limit)s s now. Its log says what it was at; raise the limit if need be."
            )
            return text % {"limit": run.task.timeout_seconds}
        case Reason.TIMED_OUT:
            return gettext("The task has no limit any more.")
    return str(_BY_REASON.get(Reason(run.reason), ""))
