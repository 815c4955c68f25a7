from __future__ import annotations

import secrets
import signal
from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from django.conf import settings
from django.db import models, transaction
from django.db.models import Count, Exists, OuterRef, ProtectedError, Q
from django.db.models.deletion import CASCADE
from django.dispatch import receiver
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from scheduler.prepared import Blank, PreparedInsert, PreparedRows, PreparedUpdate, batched, one_of
from scheduler.states import FINISHED, SOURCES, UNFINISHED, Reason, Status
from scheduler.wakeup import wake_on_commit

from . import locks, turns
from .group import ConcurrencyGroup, in_use_of
from .pause import in_this_language
from .program_version import ProgramVersion
from .schedule import Schedule
from .task import Task, validate_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from django.contrib.auth.models import User
    from django.db.models.deletion import Collector

# Among how many runs of a task its last success is looked for
LAST_RUNS = 500
WHY_LENGTH = 200
MB = 1024**2


def cascade_unless_processing(
    collector: Collector, field: models.Field[Any, Any], sub_objs: models.QuerySet[Run], using: str
) -> None:
    """Deleting a task deletes its runs, but not while one of them is being processed."""
    busy: set[models.Model] = set(sub_objs.filter(status=Status.PROCESSING)[:20])
    if busy:
        raise ProtectedError(gettext("The task has a run in progress. Stop it, then delete the task."), busy)
    CASCADE(collector, field, sub_objs, using)


class RunQuerySet(models.QuerySet["Run"]):
    # Words for sets

    def unfinished(self) -> Self:
        return self.filter(status__in=UNFINISHED)

    def finished(self) -> Self:
        return self.filter(status__in=FINISHED)

    def processing(self) -> Self:
        return self.filter(status=Status.PROCESSING)

    def queued(self) -> Self:
        return self.filter(status=Status.QUEUED)

    def in_status(self, status: str) -> Self:
        return self.filter(status=status)

    def between(self, begin: datetime | None, end: datetime | None) -> Self:
        """By when they ended, else by when they were claimed, else by when they are due."""
        runs = self
        for comparison, instant in (("gte", begin), ("lt", end)):
            if instant is not None:
                runs = runs.filter(
                    Q(**{f"finished_at__{comparison}": instant})
                    | Q(status=Status.PROCESSING, **{f"claimed_at__{comparison}": instant})
                    | Q(status=Status.QUEUED, **{f"due_at__{comparison}": instant})
                )
        return runs

    def undecided(self) -> Self:
        """Slots in the queue of which nobody has decided yet whether they are run."""
        return self.filter(status=Status.QUEUED, ready_at=None)

    def due(self, now: datetime) -> Self:
        """Undecided slots whose instant has come, oldest first."""
        return self.undecided().filter(due_at__lte=now).order_by("due_at", "id")

    def waiting(self) -> Self:
        """Runs that are decided and wait for their instant or for a place."""
        return self.filter(status=Status.QUEUED, ready_at__isnull=False)

    def ready(self, now: datetime) -> Self:
        """Runs that wait only for a place, oldest first; not those whose schedule is paused."""
        return self.waiting().filter(due_at__lte=now, schedule__paused_at=None).order_by("due_at", "id")

    def upcoming(self, now: datetime) -> Self:
        """Runs in the queue whose instant has not come yet, decided or not, the next one first."""
        return self.queued().filter(due_at__gt=now).order_by("due_at", "id")

    def startable(self, now: datetime) -> Self:
        """Ready runs for which there is a place, of tasks that are enabled and not paused; none in a pause of all."""
        return self.ready(now).filter(turns.may_start("task__", task=OuterRef("task"))).order_by(*turns.by_turn())

    def overdue(self, before: datetime) -> Self:
        """Those that were due at an instant that is some time ago, and still stand in the queue."""
        return self.queued().filter(due_at__lte=before).order_by("due_at", "id")

    def in_lane(self, lane: int | OuterRef) -> Self:
        """Those that take or wait for the places of a group."""
        return self.filter(lane=lane, lane__gt=0)

    def next_startable(self, now: datetime, count: int) -> list[Run]:
        """At most so many runs that may start together, in the order of their turns."""
        return turns.next_startable(now, count)

    def explained(self) -> Self:
        """The same runs, each with the answers that its sentence would ask for one by one."""
        return self.select_related("task__group").annotate(
            in_pause=Exists(turns.pause()),
            schedule_in_pause=Exists(Schedule.objects.paused().filter(pk=OuterRef("schedule"))),
            under_way=turns.under_way(task=OuterRef("task")),
            in_use=in_use_of(OuterRef("task__group")),
        )

    def of_slots(self) -> Self:
        """Those that a schedule asked for, each with the slot that it stands for; the latest slot first."""
        return self.filter(slot_at__isnull=False).order_by("-slot_at", "-id")

    def not_run(self) -> Self:
        """Those that are over and whose program was never started."""
        return self.filter(started_at=None, finished_at__isnull=False)

    def last_success_before(self, run: Run) -> Run | None:
        """The last run of the same task before this one that was completed, if it is one of the last few hundred."""
        before = self.filter(task=run.task_id, pk__lt=run.pk).order_by("-pk").values("pk")[:LAST_RUNS]
        completed = self.filter(pk__in=before, status=Status.COMPLETED).select_related("version")
        return completed.order_by("-pk").first()

    def processing_on(self, host: UUID) -> Self:
        return self.processing().filter(host=host)

    def completed_of(self, task_id: int) -> Self:
        """The completed runs of a task, the last one first."""
        return self.filter(task=task_id, status=Status.COMPLETED).order_by("-id")

    # The only writer of a status

    def transition(self, run_id: int, *, to: Status, token: str = "", **values: Any) -> bool:
        """Move one run to another status if it is in an allowed source status and holds this claim token.

        The row count is the lock: False means that somebody else got there first, and nothing was changed.
        """
        names = ("status", *sorted(values))
        if (to, names) not in _TRANSITIONS:
            _TRANSITIONS[to, names] = PreparedUpdate(lambda: _movable_one(to), names)
        return bool(_TRANSITIONS[to, names].update(Run, run_id=run_id, token=token, status=to, **values))

    def transition_all(self, run_ids: Iterable[int], *, to: Status, token: str = "", **values: Any) -> int:
        """The same for several runs at once; how many were moved."""
        return _movable(to, pk__in=run_ids, claim_token=token).update(status=to, **values)

    def cancel_waiting(self, *, by: User, now: datetime, at_most: int) -> list[Run]:
        """Cancel the first of these that wait and that no schedule asked for, by a few statements; those that were.

        ``Run.cancel`` is for one; a script may have queued a hundred thousand.
        """
        with transaction.atomic():
            waiting = self.waiting().filter(schedule=None).order_by("pk").select_related("task")
            # One that a poller is just claiming is passed over.
            found = list(waiting.select_for_update(of=("self",), skip_locked=True, no_key=True)[:at_most])
            self.model.objects.transition_all(
                [run.pk for run in found],
                to=Status.CANCELLED,
                reason=Reason.STOPPED_BY_USER,
                finished_at=now,
                cancel_requested_at=now,
                cancel_requested_by=by,
                cancel_requested_by_name=by.get_username(),
            )
            RunEvent.objects.bulk_create(
                RunEvent(run=run, what=RunEvent.What.FINISHED, at=now, user=by, user_name=by.get_username())
                for run in found
            )
        return found

    def claim(self, runs: Sequence[Run], *, host: UUID, host_name: str, now: datetime) -> list[Run]:
        """Take runs for a host, in one transaction; none in a pause, of each task and group as many as it has places.

        The rows of the tasks are locked first, then those of their groups, in order: counting and claiming without it
        lets two pollers exceed a limit. A task or group that somebody else holds is passed over: another poller claims
        its runs, or they are claimed in the next round.
        """
        taken: list[tuple[Run, Task, str]] = []
        with transaction.atomic():
            tasks = _lock_tasks({run.task_id for run in runs})
            groups = ConcurrencyGroup.objects.locked(task.lane for task in tasks.values() if task.lane)
            in_use = _count_in_use(groups)
            for run in runs:
                task = tasks.get(run.task_id)
                if task is None or not task.enabled or task.is_paused:
                    continue
                if (run.lane, run.priority) != (task.lane, task.priority):
                    # It was queued in the instant in which its task was changed.
                    self.filter(pk=run.pk).update(lane=task.lane, priority=task.priority)
                if task.lane and (task.lane not in groups or in_use[task.lane] >= groups[task.lane].max_runs):
                    continue
                token = secrets.token_hex(16)
                if _CLAIM.update(
                    Run,
                    run_id=run.pk,
                    token="",
                    places=task.max_runs,
                    status=Status.PROCESSING,
                    claim_token=token,
                    claimed_at=now,
                    host=host,
                    host_name=host_name,
                    program=task.program,
                ):
                    in_use[task.lane] += 1
                    taken.append((run, task, token))
            RunEvent.write(
                RunEvent(run=run, what=RunEvent.What.CLAIMED, text=host_name, at=now) for run, _task, _token in taken
            )
        for run, task, token in taken:
            run.task, run.claim_token, run.host, run.status = task, token, host, Status.PROCESSING
        return [run for run, _task, _token in taken]


def _lock_tasks(keys: Collection[int]) -> dict[int, Task]:
    """Those tasks that nobody else holds, as they are now, kept from other pollers until the transaction's end."""
    found: dict[int, Task] = {}
    for some in batched(sorted(keys)):
        found |= {task.pk: task for task in _locked(len(some)).all(Task, **some)}
    return found


@cache
def _locked(count: int) -> PreparedRows[Task]:
    def build() -> models.QuerySet[Task]:
        tasks = Task.objects.filter(one_of("pk", count, Task._meta.pk)).order_by("pk")
        tasks = tasks.select_for_update(no_key=True, skip_locked=True)
        # In the same statement: a pause that is committed after this waits for the claim.
        lock = locks.as_expression(locks.Lock.PAUSE, shared=True)
        return tasks if lock is None else tasks.annotate(pause_lock=lock)

    return PreparedRows(build)


def _count_in_use(groups: Collection[int]) -> Counter[int]:
    """How many places of each group are taken; none costs no query."""
    if not groups:
        return Counter()
    counted = Run.objects.processing().filter(lane__in=groups, lane__gt=0).order_by().values("lane")
    return Counter(dict(counted.values_list("lane", Count("pk"))))


_TOKEN = models.CharField(max_length=32)
# Built when they are first needed: a status to move to, and the fields that are written with it.
_TRANSITIONS: dict[tuple[Status, tuple[str, ...]], PreparedUpdate] = {}


def _movable(to: Status, **which: Any) -> RunQuerySet:
    """Those of certain runs that may be moved to a status."""
    return Run.objects.filter(status__in=SOURCES[to], **which)


def _movable_one(to: Status) -> RunQuerySet:
    return _movable(to, pk=Blank("run_id", Run._meta.pk), claim_token=Blank("token", _TOKEN))


def _claimable() -> RunQuerySet:
    """One run, whose task is locked, if there is a place for it and nothing is paused."""
    places = Blank("places", Task._meta.get_field("max_runs"))
    paused = Schedule.objects.paused().filter(pk=OuterRef("schedule"))
    return (
        _movable_one(Status.PROCESSING)
        .filter(~Exists(turns.pause()), ~Exists(paused))
        .annotate(under_way=turns.under_way(task=OuterRef("task")))
        .filter(under_way__lt=places)
    )


_CLAIM = PreparedUpdate(_claimable, ("status", "claim_token", "claimed_at", "host", "host_name", "program"))


class Run(models.Model):
    """One occurrence of a task: from queued to its end."""

    Status = Status
    Reason = Reason

    class Trigger(models.TextChoices):
        SCHEDULE = "schedule", _("schedule")
        MANUAL = "manual", _("started by a user")
        AGAIN = "again", _("run again")
        RETRY = "retry", _("retry")
        FOLLOW_UP = "follow_up", _("follow-up")

    uuid = models.UUIDField(default=uuid4, unique=True, editable=False)
    task = models.ForeignKey(Task, verbose_name=_("task"), on_delete=cascade_unless_processing, related_name="runs")
    schedule = models.ForeignKey(
        Schedule, verbose_name=_("schedule"), null=True, blank=True, on_delete=models.SET_NULL, related_name="runs"
    )
    trigger = models.CharField(_("trigger"), max_length=10, choices=Trigger, default=Trigger.SCHEDULE)
    triggered_by = models.ForeignKey(
        "self",
        verbose_name=_("triggered by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="triggered",
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("started by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    requested_by_name = models.CharField(max_length=150, blank=True)  # kept when the account goes
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)  # 2 is the first retry
    arguments = models.JSONField(_("arguments"), default=list, blank=True, validators=[validate_arguments])
    program = models.CharField(_("program"), max_length=600, blank=True)  # as it was when it was started
    # Not indexed: nobody asks for the runs of a version.
    version = models.ForeignKey(
        ProgramVersion,
        verbose_name=_("program version"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
    )

    slot_at = models.DateTimeField(_("slot"), null=True, blank=True)
    slot_until = models.DateTimeField(_("last slot of a gap"), null=True, blank=True)
    slot_count = models.PositiveIntegerField(_("slots"), default=1)
    # As its task has them; kept in line by the task while the run is not over.
    lane = models.BigIntegerField(default=0, editable=False)  # the id of the task's group, or 0
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Task.Priority, default=Task.Priority.NORMAL, editable=False
    )

    queued_at = models.DateTimeField(_("queued"))
    due_at = models.DateTimeField(_("due"))
    ready_at = models.DateTimeField(_("decided"), null=True, blank=True)
    claimed_at = models.DateTimeField(_("claimed"), null=True, blank=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    status = models.CharField(_("status"), max_length=10, choices=Status, default=Status.QUEUED)
    reason = models.CharField(_("reason"), max_length=20, choices=Reason, blank=True)
    detail = models.TextField(_("detail"), blank=True)  # what the system said, untranslated
    exit_code = models.IntegerField(_("exit code"), null=True, blank=True)
    signal = models.PositiveSmallIntegerField(_("signal"), null=True, blank=True)

    # What the run has reached of its limits, with their values at that time: {"log_bytes": 1048576}
    limits_reached = models.JSONField(_("limits reached"), default=dict, blank=True)

    message = models.TextField(_("message"), blank=True)
    progress_done = models.FloatField(_("progress"), null=True, blank=True)
    progress_total = models.FloatField(_("of"), null=True, blank=True)
    progress_label = models.CharField(max_length=200, blank=True)
    reports_offset = models.BigIntegerField(default=0)  # how much of reports.jsonl has been read, in bytes

    claim_token = models.CharField(max_length=32, blank=True, default="")
    host = models.UUIDField(_("host"), null=True, blank=True)
    host_name = models.CharField(_("host name"), max_length=255, blank=True)
    pid = models.PositiveIntegerField(_("process"), null=True, blank=True)

    cancel_requested_at = models.DateTimeField(_("stop requested"), null=True, blank=True)
    cancel_requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("stop requested by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    cancel_requested_by_name = models.CharField(max_length=150, blank=True)
    cancel_why = models.CharField(_("why it was stopped"), max_length=WHY_LENGTH, blank=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        default_permissions = ()
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["schedule", "slot_at"], name="scheduler_run_slot_once"),
            models.CheckConstraint(
                name="scheduler_run_finished_has_reason",
                condition=(Q(status__in=sorted(UNFINISHED)) & Q(finished_at=None) & Q(reason=""))
                | (Q(status__in=sorted(FINISHED)) & Q(finished_at__isnull=False) & ~Q(reason="")),
            ),
            models.CheckConstraint(
                name="scheduler_run_processing_is_claimed",
                condition=(Q(status=Status.QUEUED) & Q(claim_token="") & Q(host=None))
                | (Q(status=Status.PROCESSING) & ~Q(claim_token="") & Q(host__isnull=False))
                | Q(status__in=sorted(FINISHED)),
            ),
        ]
        indexes = [
            models.Index(fields=["due_at", "id"], condition=Q(status=Status.QUEUED), name="scheduler_run_queue"),
            # After the queue's: without statistics SQLite takes the later one of two that serve a query alike.
            models.Index(
                fields=["due_at", "id"],
                condition=Q(status=Status.QUEUED, ready_at=None),
                name="scheduler_run_undecided",
            ),
            models.Index(
                fields=["task", "due_at", "id"],
                condition=Q(status=Status.QUEUED, ready_at__isnull=False),
                name="scheduler_run_waiting",
            ),
            models.Index(
                fields=["lane", "priority", "due_at", "id"],
                condition=Q(status=Status.QUEUED, ready_at__isnull=False),
                name="scheduler_run_lanes",
            ),
            models.Index(
                fields=["lane"], condition=Q(status=Status.PROCESSING, lane__gt=0), name="scheduler_run_lane_in_use"
            ),
            models.Index(fields=["task", "status", "-id"], name="scheduler_run_task_status"),
            models.Index(fields=["host"], condition=Q(status=Status.PROCESSING), name="scheduler_run_host"),
            models.Index(fields=["-finished_at", "-id"], name="scheduler_run_finished"),
            models.Index(
                fields=["task", "-finished_at", "-id"],
                condition=Q(finished_at__isnull=False),
                name="scheduler_run_task_finished",
            ),
            # What most runs are not: lists of these need not walk through all the others.
            models.Index(
                fields=["status", "-finished_at", "-id"],
                condition=Q(status__in=sorted(FINISHED - {Status.COMPLETED})),
                name="scheduler_run_not_completed",
            ),
            models.Index(
                fields=["task", "status", "-finished_at", "-id"],
                condition=Q(status__in=sorted(FINISHED - {Status.COMPLETED})),
                name="scheduler_run_task_not_done",
            ),
            models.Index(
                fields=["trigger", "-finished_at", "-id"],
                condition=Q(finished_at__isnull=False, trigger__in=["manual", "again", "retry", "follow_up"]),
                name="scheduler_run_not_scheduled",
            ),
            models.Index(
                fields=["task", "trigger", "-finished_at", "-id"],
                condition=Q(finished_at__isnull=False, trigger__in=["manual", "again", "retry", "follow_up"]),
                name="scheduler_run_task_not_sched",
            ),
            models.Index(fields=["task", "-id"], name="scheduler_run_task"),
            # The ledger of a task's slots, and those of them that were not run.
            models.Index(
                fields=["task", "-slot_at", "-id"], condition=Q(slot_at__isnull=False), name="scheduler_run_slots"
            ),
            models.Index(
                fields=["task", "-slot_at", "-id"],
                condition=Q(slot_at__isnull=False, started_at=None, finished_at__isnull=False),
                name="scheduler_run_slots_not_run",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task} #{self.pk}"

    def get_absolute_url(self) -> str:
        return reverse("scheduler:run-detail", args=[self.pk])

    # Verbs

    def decide(self, now: datetime) -> bool:
        """Decide what becomes of this slot, which is due; False when somebody else has done so meanwhile."""
        if self.schedule is not None:
            return self.schedule.decide(self, now)
        return Run.objects.transition(self.pk, to=Status.CANCELLED, reason=Reason.SCHEDULE_GONE, finished_at=now)

    def claim(self, *, host: UUID, host_name: str, now: datetime) -> bool:
        """Take this run for a host, if nothing is paused and its task has a place for it; False otherwise."""
        return bool(Run.objects.claim([self], host=host, host_name=host_name, now=now))

    def record(self, what: RunEvent.What, text: str = "", *, now: datetime, user: User | None = None) -> None:
        """Write one line of this run's history."""
        name = user.get_username() if user else ""
        RunEvent.write([RunEvent(run=self, what=what, text=text, at=now, user=user, user_name=name)])

    def cancel(self, *, by: User, now: datetime, why: str = "") -> bool:
        """End this run: one that waits is cancelled here and now, for one that is processed it is asked for.

        ``why`` is for people, and cut to the column. Returns False when the run was over already (or its stop was
        already asked for); that is not an error.
        """
        requested: dict[str, Any] = {
            "cancel_requested_at": now,
            "cancel_requested_by": by,
            "cancel_requested_by_name": by.get_username(),
            "cancel_why": why[:WHY_LENGTH],
        }
        with transaction.atomic():
            schedule = Schedule.objects.locked(self.schedule_id) if self.schedule_id is not None else None
            cancelled = Run.objects.transition(
                self.pk, to=Status.CANCELLED, reason=Reason.STOPPED_BY_USER, finished_at=now, **requested
            )
            if cancelled:
                self.record(RunEvent.What.FINISHED, now=now, user=by)
                if schedule is not None and schedule.next_run_id == self.pk and self.slot_at is not None:
                    # The slot was still the head of its schedule's chain: the next one takes its place.
                    schedule.insert_next(after=self.slot_at, now=now)
                return True
            asked = Run.objects.processing().filter(pk=self.pk, cancel_requested_at=None).update(**requested)
            if asked:
                self.record(RunEvent.What.STOP_REQUESTED, requested["cancel_why"], now=now, user=by)
                wake_on_commit()
            return bool(asked)

    def replace(self, now: datetime) -> bool:
        """Ask for the end of this run, in progress, because the next one of its task takes its place."""
        asked = bool(
            Run.objects.processing().filter(pk=self.pk, cancel_requested_at=None).update(cancel_requested_at=now)
        )
        if asked:
            self.record(RunEvent.What.STOP_REQUESTED, now=now)
            wake_on_commit()
        return asked

    @property
    def is_replaced(self) -> bool:
        """Whether the scheduler itself asked for its end; the name of a person outlives the account."""
        return self.cancel_requested_at is not None and not self.cancel_requested_by_name

    # What it looks like to people

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def log_path(self) -> str:
        """The log's path in the store, relative to it."""
        return f"{self.uuid}/{self.uuid}"

    @property
    def progress_percent(self) -> int | None:
        """0 to 100, or None when the task has not said how much there is to do."""
        if self.progress_done is None or not self.progress_total or self.progress_total <= 0:
            return None
        return int(min(max(self.progress_done / self.progress_total, 0), 1) * 100)

    def elapsed(self, now: datetime) -> timedelta | None:
        """How long its program has run, until now or until its end; None when it was never started."""
        if self.started_at is None:
            return None
        return max((self.finished_at or now) - self.started_at, timedelta(0))

    @property
    def sentence(self) -> str:
        """The state in one sentence."""
        match self.status:
            case Status.QUEUED:
                return self._sentence_queued()
            case Status.PROCESSING:
                return self._sentence_processing()
        return f"{self._sentence_finished()} {self.limits_in_words}".strip()

    @property
    def limits_in_words(self) -> str:
        """Which limits it has reached that did not end it, in sentences; empty when there are none."""
        sentences = {
            "processes": gettext("It reached its limit of %(limit)s processes at once, and could start no more."),
            "log_bytes": gettext("Its log reached %(limit)s; the rest was dropped."),
            "output_files": gettext("It left more than %(limit)s files; the others were not kept."),
            "output_bytes": gettext("Its files were larger than %(limit)s in all; not all were kept."),
        }
        return " ".join(
            sentences[name] % {"limit": _size(limit) if name.endswith("_bytes") else limit}
            for name, limit in self.limits_reached.items()
            if name in sentences
        )

    def _sentence_queued(self) -> str:
        if self.ready_at is None or self.due_at > timezone.now():
            return gettext("Starts at %(time)s.") % {"time": _local(self.due_at)}
        if not self.task.enabled:
            return gettext("Waits until the task is enabled.")
        if self.task.is_paused:
            return gettext("Waits until the task is resumed.")
        if self._known("schedule_in_pause", lambda: self.schedule is not None and self.schedule.is_paused):
            return gettext("Waits until its schedule is resumed.")
        if self._known("in_pause", turns.pause().exists):
            return gettext("Waits until the scheduler is resumed.")
        task, group = self.task, self.task.group
        under_way = self._known("under_way", task.runs.processing().count)
        if under_way >= task.max_runs:
            values = {"in_use": under_way, "places": task.max_runs}
            return gettext("Waits until another run of its task ends (%(in_use)d of %(places)d at once).") % values
        if group is not None:
            in_use = self._known("in_use", Run.objects.processing().in_lane(group.pk).count)
            if in_use >= group.max_runs:
                return gettext("Waits for a place in the group “%(group)s” (%(in_use)d of %(places)d in use).") % {
                    "group": group,
                    "in_use": in_use,
                    "places": group.max_runs,
                }
        return gettext("Waits for a free place.")

    def _known(self, name: str, ask: Callable[[], int]) -> int:
        """What ``explained()`` has found out for it; else it is asked for now."""
        known = vars(self)
        return known[name] if name in known else ask()

    def _sentence_processing(self) -> str:
        values = {"host": self.host_name, "pid": self.pid, "time": _local(self.started_at or self.claimed_at)}
        if self.is_replaced:
            return gettext("Is being stopped: the next run of its task takes its place.")
        if self.cancel_requested_at is not None:
            values |= {"user": self.cancel_requested_by_name, "why": self.cancel_why}
            text = gettext("Is being stopped, as %(user)s asked: %(why)s")
            return (text if self.cancel_why else gettext("Is being stopped, as %(user)s asked.")) % values
        if self.started_at is None:
            return gettext("Is being started on host %(host)s since %(time)s.") % values
        return gettext("Processing on host %(host)s, process %(pid)s, since %(time)s.") % values

    def _sentence_finished(self) -> str:
        values = {
            "code": self.exit_code,
            "limit": self.task.timeout_seconds,
            "user": self.cancel_requested_by_name,
            "detail": self.detail,
            "host": self.host_name,
            "signal": _signal_name(self.signal),
            "until": _local(self.slot_until),
            "memory": _size(self.limits_reached.get("memory_bytes", 0)),
            "seconds": self.limits_reached.get("cpu_seconds"),
            "why": self.cancel_why,
        }
        match self.reason:
            case Reason.EXIT_CODE if self.exit_code == 0:
                return gettext("Completed.")
            case Reason.EXIT_CODE:
                return gettext("Failed: the program ended with exit code %(code)s.") % values
            case Reason.SIGNAL:
                return (
                    gettext("Failed: the program was ended by %(signal)s, which the scheduler did not send.") % values
                )
            case Reason.TIMED_OUT:
                return gettext("Failed: stopped at its time limit.")
            case Reason.OUT_OF_MEMORY if "memory_bytes" in self.limits_reached:
                return (
                    gettext("Failed: ended by the kernel, as its processes used more than %(memory)s together.")
                    % values
                )
            case Reason.OUT_OF_MEMORY:
                return gettext("Failed: ended by the kernel, as the machine had no memory left.")
            case Reason.CPU_LIMIT:
                return (
                    gettext("Failed: ended by the kernel, as it had used its %(seconds)s seconds of processor time.")
                    % values
                )
            case Reason.LAUNCH_ERROR:
                return gettext("Failed: the program could not be started: %(detail)s") % values
            case Reason.LOST:
                return gettext("Lost on host %(host)s; it may have run. %(detail)s") % values
            case Reason.STOPPED_BY_USER if self.started_at is None:
                text = gettext("Cancelled by %(user)s before it started: %(why)s")
                return (text if self.cancel_why else gettext("Cancelled by %(user)s before it started.")) % values
            case Reason.STOPPED_BY_USER if self.cancel_why:
                return gettext("Stopped by %(user)s: %(why)s") % values
            case Reason.STOPPED_BY_USER:
                return gettext("Stopped by %(user)s.") % values
            case Reason.OVERLAP:
                return gettext("Not run: the task's previous run was not over.")
            case Reason.CATCH_UP if self.slot_count > 1:
                return ngettext(
                    "Not run: no poller was up for %(count)d slot until %(until)s; a later one stands for it.",
                    "Not run: no poller was up for %(count)d slots until %(until)s; a later one stands for them.",
                    self.slot_count,
                ) % {**values, "count": self.slot_count}
            case Reason.CATCH_UP:
                return gettext("Not run: no poller was up at the time; a later slot stands for it.")
            case Reason.REPLACED:
                return gettext("Stopped: the next run of its task took its place.")
            case Reason.MISSED:
                return gettext("Not run: no poller was up at the time, and its schedule does not catch up.")
            case Reason.TOO_LATE:
                return gettext("Not run: it was too late for it when a poller came to it.")
            case Reason.BLOCKED:
                return gettext("Not run: blocked by the calendar “%(detail)s”.") % values
            case Reason.BAD_RULE:
                return gettext("Not run: its schedule was disabled. %(detail)s") % values
            case Reason.PAUSED if self.detail:
                return gettext("Not run: paused by %(detail)s") % {"detail": in_this_language(self.detail)}
            case Reason.PAUSED:
                return gettext("Not run: the task was disabled.")
            case Reason.SCHEDULE_GONE:
                return gettext("Not run: its schedule was deleted.")
        return str(self.get_reason_display())


def _local(instant: datetime | None) -> str:
    # Not DATETIME_FORMAT: it ends in "a.m." in some languages, and the sentence ends here.
    return formats.date_format(timezone.localtime(instant), "Y-m-d H:i:s") if instant else ""


def _size(count: int) -> str:
    """As the form of the task counts: a MB is 1024 * 1024 bytes."""
    if count % MB:
        return ngettext("%(count)d byte", "%(count)d bytes", count) % {"count": count}
    return gettext("%(count)d MB") % {"count": count // MB}


def _signal_name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return gettext("signal %(number)s") % {"number": number}


class RunEvent(models.Model):
    """One line of a run's history: what happened, when, and by whom."""

    class What(models.TextChoices):
        QUEUED = "queued", _("queued")
        DECIDED = "decided", _("decided")
        CLAIMED = "claimed", _("claimed by a poller")
        STARTED = "started", _("program started")
        MESSAGE = "message", _("message")
        STOP_REQUESTED = "stop_requested", _("stop requested")
        FINISHED = "finished", _("finished")
        NOT_COLLECTED = "not_collected", _("file not collected")
        PROCESSES_ENDED = "processes_ended", _("left-over processes ended")
        PROCESSES_KILLED = "processes_killed", _("did not end when asked, and were killed")
        PROCESSES_LEFT = "processes_left", _("were killed and do not end")
        CLEANED_UP = "cleaned_up", _("clean-up command ended")
        NOT_LIMITED = "not_limited", _("limits of the whole run were not enforced")
        LAUNCHED_AGAIN = "launched_again", _("launched again")
        RECOVERED = "recovered", _("recovered from its run folder")
        RETRY_QUEUED = "retry_queued", _("retry queued")
        SCHEDULE_PAUSED = "schedule_paused", _("schedule paused")
        FOLLOW_UP_LEFT_OUT = "follow_up_left_out", _("follow-up left out, its task is disabled")
        REPORTS_DROPPED = "reports_dropped", _("reports dropped")
        ALARM = "alarm", _("alarm")

    run = models.ForeignKey(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(_("time"))
    what = models.CharField(_("what"), max_length=20, choices=What)
    text = models.TextField(_("text"), blank=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    user_name = models.CharField(max_length=150, blank=True)  # kept when the account goes

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        default_permissions = ()
        ordering = ["id"]
        indexes = [models.Index(fields=["run", "what", "id"], name="scheduler_runevent_what")]

    def __str__(self) -> str:
        return f"{self.get_what_display()} {self.text_in_words}".strip()

    @property
    def text_in_words(self) -> str:
        """The text, in the current language where it names a reason or a kind of alarm."""
        from .alarm import Alarm

        known = {self.What.DECIDED.value: Reason.choices, self.What.ALARM.value: Alarm.Kind.choices}
        return str(dict(known.get(self.what, ())).get(self.text, self.text))

    @classmethod
    def write(cls, events: Iterable[RunEvent]) -> None:
        """Insert several at once."""
        _EVENTS.insert(list(events))


_EVENTS: PreparedInsert[RunEvent] = PreparedInsert()


class ProcessSample(models.Model):
    """What a run's processes used when they were last looked at; one row a run, overwritten."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE, primary_key=True, related_name="sample")
    at = models.DateTimeField(_("time"))
    # xgettext:no-python-format
    cpu_percent = models.FloatField(_("CPU (% of one core)"))
    memory_bytes = models.BigIntegerField(_("memory (bytes)"))
    memory_peak_bytes = models.BigIntegerField(_("most memory (bytes)"))
    # [{"pid", "parent", "name", "cpu_percent", "memory_bytes"}], parents first, at most 100
    processes = models.JSONField(_("processes"), default=list)

    class Meta:
        verbose_name = _("process sample")
        default_permissions = ()


class StoreRemoval(models.Model):
    """A run whose row is gone and whose folders are still to be removed, by the poller of the host that has them."""

    uuid = models.UUIDField(primary_key=True)
    host = models.UUIDField(db_index=True)

    class Meta:
        default_permissions = ()


@receiver(models.signals.post_delete, sender=Run, dispatch_uid="scheduler.run.remove_folders")
def _remove_folders(*, instance: Run, **_kwargs: Any) -> None:
    """Ask for the removal of a deleted run's folders; a signal, because rows also go by cascade and in bulk."""
    if instance.host is not None:
        StoreRemoval.objects.get_or_create(uuid=instance.uuid, defaults={"host": instance.host})
        wake_on_commit()
