"""The state of a run in one sentence, as far as anybody can know it now, and what a person can do about it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.utils import formats, timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler.states import Reason, Status

if TYPE_CHECKING:
    from scheduler.models import Run

    from .rows import Row

SIGKILL = 9
# So long after its grace time a process that was killed should be gone, and its run be finished.
PATIENCE = timedelta(seconds=10)

_BY_REASON = {
    Reason.EXIT_CODE: _("Its log says why."),
    Reason.SIGNAL: _("Something outside of the scheduler ended it, or the program did so itself."),
    Reason.OUT_OF_MEMORY: _(
        "Find out what takes so much. The limit, if it was one, is the task's “memory of the run”."
    ),
    Reason.CPU_LIMIT: _("Its log says what it was at. The limit is the task's “processor time per process”."),
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

_DOES_NOT_END = _(
    "What was killed and does not end waits in the kernel, mostly for a disk or a network that does not answer, or "
    "belongs to another Unix user. Mend that, or restart the machine: the run is over when it is gone."
)


def sentence(row: Row, *, left: str = "") -> str:
    """What is so at this instant: the row alone cannot know that nobody has looked for a while.

    ``left`` names the processes that do not end although its supervisor is gone and they were killed.
    """
    run = row.run
    if run.status == Status.QUEUED and row.note:
        return row.note
    if row.unconfirmed and run.started_at is not None:
        text = gettext("Was processing on host %(host)s, process %(pid)s, since %(time)s, when a poller last looked.")
        started = formats.date_format(timezone.localtime(run.started_at), "Y-m-d H:i:s")
        text %= {"host": run.host_name, "pid": run.pid, "time": started}
        if run.cancel_requested_by_name:
            asked = gettext("%(user)s has asked to stop it.") % {"user": run.cancel_requested_by_name}
            return f"{text} {asked}"
        return text
    if left and run.status == Status.PROCESSING:
        text = gettext("Its supervisor is gone; what it left on host %(host)s was killed and does not end: %(names)s.")
        return text % {"host": run.host_name, "names": left}
    return run.sentence


def advice(row: Row, *, pollers: bool, left: str = "", lives: bool = False) -> str:
    """One or two sentences, or nothing when there is nothing to do.

    ``pollers``: whether any poller is up; ``left``: as above; ``lives``: whether its page shows processes of it.
    """
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
        case Status.PROCESSING if left:
            return str(_DOES_NOT_END)
        case Status.PROCESSING if lives and _should_have_ended(row):
            late = gettext("The processes below have not ended although their time is over.")
            return f"{late} {_DOES_NOT_END}"
        case Status.PROCESSING if run.cancel_requested_at is not None:
            text = gettext("Its processes were asked to end; what still runs %(seconds)s s after that is killed.")
            return text % {"seconds": run.task.grace_seconds}
        case Status.FAILED | Status.SKIPPED:
            return _of_finished(run)
    return ""


def _should_have_ended(row: Row) -> bool:
    asked, grace = row.run.cancel_requested_at, timedelta(seconds=row.run.task.grace_seconds)
    return asked is not None and row.now > asked + grace + PATIENCE


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
