"""The chain of a schedule's slots without processes: a poller's rounds, ends of runs, and the ledger of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from scheduler.models import Recurrence, Run, Schedule, Task
from scheduler.models.follow_up import after_end, lock_for_end
from scheduler.states import Reason, Status

MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    """An instant of 24 November 2026, or of the date that is given too; in UTC."""
    return datetime.fromisoformat(text if "-" in text else f"2026-11-24 {text}").replace(tzinfo=UTC)


def every(count: int, unit: str) -> Recurrence:
    return Recurrence.objects.get_or_create(name=f"{count} {unit}", kind="every", every=count, unit=unit)[0]


def planned(task: Task, *, minutes: int = 60, now: str = "07:30", anchor: str = "08:00", **values: object) -> Schedule:
    """A schedule in UTC whose rule counts since long, planned at ``now``."""
    rule = every(minutes, "minutes")
    schedule = Schedule.objects.create(task=task, recurrence=rule, anchor=at(anchor), time_zone="UTC", **values)
    schedule.stale_at = at(now)  # the clock of this test, not the machine's
    Schedule.objects.filter(pk=schedule.pk).update(stale_at=at(now))
    schedule.plan(at(now))
    return schedule


def tick(now: datetime) -> None:
    """What a poller's round does about slots."""
    for stale in Schedule.objects.stale():
        stale.plan(now)
    for broken in Schedule.objects.broken():
        broken.mend(now)
    for run in Run.objects.due(now):
        run.decide(now)


def start(run: Run, now: datetime) -> Run:
    assert run.claim(host=run.uuid, host_name="here", now=now)
    return run


def end(run: Run, now: datetime, status: Status = Status.COMPLETED, reason: Reason = Reason.EXIT_CODE) -> None:
    """The run's program ends; what follows is queued."""
    lock_for_end(run)
    code = None if reason != Reason.EXIT_CODE else int(status == Status.FAILED)
    assert Run.objects.transition(
        run.pk, to=status, token=run.claim_token, reason=reason, exit_code=code, finished_at=now
    )
    after_end(run.pk, now)


def start_and_end(run: Run, now: datetime, status: Status = Status.COMPLETED) -> None:
    end(start(run, now), now, status)


def ledger(schedule: Schedule) -> list[tuple[str, str, str]]:
    """Slot, status and reason of every slot's row; a run that waits for its place is “ready”."""
    return [
        (
            f"{run.slot_at:%H:%M}",
            "ready" if run.status == Status.QUEUED and run.ready_at else str(run.status),
            str(run.reason),
        )
        for run in schedule.runs.filter(slot_at__isnull=False).order_by("slot_at")
    ]
