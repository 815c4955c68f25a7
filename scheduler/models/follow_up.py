"""What comes after a run's end: a retry, a pause of its schedule, other tasks."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from scheduler import delays
from scheduler.states import Status
from scheduler.wakeup import wake_on_commit

from . import locks
from .run import Run, RunEvent
from .schedule import Schedule
from .task import Task


class FollowUp(models.Model):
    """When this task completes, fails or ends, run that one."""

    class On(models.TextChoices):
        COMPLETES = "completes", _("completes")
        FAILS = "fails", _("fails, and is not tried again")
        ENDS = "ends", _("ends in any way")

    task = models.ForeignKey(Task, verbose_name=_("task"), on_delete=models.CASCADE, related_name="follow_ups")
    on = models.CharField(_("when it"), max_length=10, choices=On, default=On.COMPLETES)
    then = models.ForeignKey(
        Task,
        verbose_name=_("run then"),
        on_delete=models.CASCADE,
        related_name="follows",
        help_text=_("It runs with its own arguments, as soon as there is a place."),
    )

    class Meta:
        verbose_name = _("follow-up")
        verbose_name_plural = _("follow-ups")
        default_permissions = ()
        ordering = ["task", "id"]
        constraints = [
            models.UniqueConstraint(fields=["task", "on", "then"], name="scheduler_followup_once"),
            models.CheckConstraint(
                name="scheduler_followup_not_itself",
                condition=~Q(then=F("task")),
                violation_error_message=_("A task cannot follow itself: it would run for ever."),
            ),
        ]

    def __str__(self) -> str:
        # Without names: it stands in the history of one task, and not everybody there may see the other.
        return f"{self.get_on_display()}: #{self.then_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save. Raises ValidationError for a cycle, also from a program: it would run for ever."""
        with transaction.atomic():
            self._refuse_cycle()
            super().save(*args, **kwargs)

    def clean(self) -> None:
        if self.task_id is not None and self.then_id is not None:
            self._refuse_cycle()

    def _refuse_cycle(self) -> None:
        way = self.way_back()
        if way:
            raise ValidationError({"then": self.circle([task.name for task in way])})

    @staticmethod
    def circle(names: list[str]) -> str:
        """The sentence about a circle of tasks with these names."""
        text = _("This would be a circle that runs for ever: %(way)s. Leave one of its follow-ups out.")
        return text % {"way": " → ".join(names)}

    def way_back(self) -> list[Task]:
        """The tasks along a way from ``then`` back to ``task``; empty when there is none."""
        # Within a transaction, such as a form's: whoever is adding another arrow is waited for, and its arrow seen.
        locks.take(locks.Lock.FOLLOW_UPS)
        edges: dict[int, set[int]] = {}
        for source, target in FollowUp.objects.exclude(pk=self.pk).values_list("task_id", "then_id"):
            edges.setdefault(source, set()).add(target)
        ways = [[self.task_id, self.then_id]]
        seen: set[int] = set()
        while ways:
            way = ways.pop()
            if way[-1] == self.task_id:
                tasks = Task.objects.in_bulk(way)
                return [tasks[pk] for pk in way]
            if way[-1] not in seen:
                seen.add(way[-1])
                ways += [[*way, target] for target in sorted(edges.get(way[-1], ()))]
        return []


def lock_for_end(run: Run) -> None:
    """Take the locks that ``after_end`` needs for a run that failed, before the run's own.

    The order is task, schedule, run, everywhere.
    """
    list(Task.objects.select_for_update(no_key=True).filter(pk=run.task_id).order_by("pk").values_list("pk"))
    if run.schedule_id is not None:
        Schedule.objects.locked(run.schedule_id)


def after_end(run_id: int, now: datetime) -> None:
    """Queue what follows a run that was processed and has ended now; in the transaction that wrote its end.

    A failed run is tried again as often as its task says, and only the last failure counts as one: then its schedule
    is paused, where the task asks for that, and follow-ups run.
    """
    run = Run.objects.select_related("task", "schedule").get(pk=run_id)
    task, schedule = run.task, run.schedule
    failed = run.status == Status.FAILED
    if failed and task.enabled and run.attempt <= task.retries:
        _retry(run, now)
        return
    if failed and schedule is not None and task.after_failure == Task.AfterFailure.PAUSE:
        why = f"Run #{run.pk} failed."  # kept, in English: people of several languages read it
        if schedule.pause(by=None, why=why, now=now):
            run.record(RunEvent.What.SCHEDULE_PAUSED, str(schedule), now=now)
    occasions = {
        Status.COMPLETED.value: [FollowUp.On.COMPLETES, FollowUp.On.ENDS],
        Status.FAILED.value: [FollowUp.On.FAILS, FollowUp.On.ENDS],
        Status.CANCELLED.value: [FollowUp.On.ENDS],
    }
    # Two occasions may name the same task: it runs once.
    names = task.follow_ups.filter(on__in=occasions.get(run.status, [])).values("then")
    for then in Task.objects.filter(pk__in=names).order_by("pk"):
        if then.enabled:
            _queue_after(run, now, task=then, arguments=then.arguments, due_at=now, trigger=Run.Trigger.FOLLOW_UP)
        else:
            # Without its name: who may see this run may not see that task.
            run.record(RunEvent.What.FOLLOW_UP_LEFT_OUT, f"#{then.pk}", now=now)


def _retry(run: Run, now: datetime) -> None:
    task = run.task
    delay = delays.retry_delay(
        run.attempt, base=timedelta(seconds=task.retry_delay_seconds), factor=max(task.retry_factor, 1.0)
    )
    retry = _queue_after(
        run,
        now,
        task=task,
        schedule=run.schedule,
        arguments=run.arguments,
        due_at=now + delay,
        trigger=Run.Trigger.RETRY,
        attempt=run.attempt + 1,
        requested_by=run.requested_by,
        requested_by_name=run.requested_by_name,
    )
    run.record(RunEvent.What.RETRY_QUEUED, f"#{retry.pk}", now=now)


def _queue_after(run: Run, now: datetime, *, task: Task, **values: Any) -> Run:
    values |= {"task": task, "lane": task.lane, "priority": task.priority}
    follower = Run.objects.create(triggered_by=run, ready_at=now, queued_at=now, **values)
    follower.record(RunEvent.What.QUEUED, f"#{run.pk}", now=now)
    wake_on_commit()
    return follower
