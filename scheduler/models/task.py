from __future__ import annotations

import unicodedata
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, validate_email
from django.db import models, transaction
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from scheduler import programs
from scheduler.conf import scheduler_settings
from scheduler.wakeup import wake_on_commit

from .pause import PAUSE_FIELDS, Pausable

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from .run import Run


LARGEST_MB = 2**24  # 16 TB, more than any machine has

# The object permissions of a task. Runs, schedules, files and events have none of their own.
TASK_PERMISSIONS = (
    "view_task",
    "run_task",
    "stop_run",
    "view_output",
    "change_task",
    "delete_task",
    "manage_access",
)


ACTION_LABELS = {
    "view_task": _("see"),
    "run_task": pgettext_lazy("permission", "run"),
    "stop_run": _("stop"),
    "view_output": _("read log and files"),
    "change_task": _("change"),
    "delete_task": _("delete"),
    "manage_access": _("manage access"),
}


def validate_arguments(value: object) -> None:
    """Arguments are a list of strings that can be passed to a program (no NUL)."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValidationError(_("Arguments must be a list of strings."))
    if any("\0" in item for item in value):
        raise ValidationError(_("An argument contains a NUL character, which no program can receive."))


def validate_name(name: str) -> None:
    """A name stands in one line and looks like what it is: in lists, mails and logs that do not clean it.

    Control characters, ends of lines and bidi marks are refused; joiners, as in emoji, are not.
    """
    marks = {"\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
    if any(character in marks or unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        raise ValidationError(
            {"name": _("The name has a line end or another character that cannot be seen. Type the name by hand.")}
        )


class Task(Pausable):
    """What may be run: a program, its arguments, its limits and policies, its owner."""

    class Environment(models.TextChoices):
        DJANGO = "django", _("Django: may use this site's models; holds the site's secrets")
        PLAIN = "plain", _("plain: no Django, no secrets of the site")

    class Overlap(models.TextChoices):
        SKIP = "skip", _("skip the new one")
        QUEUE = "queue", _("let one wait")
        STOP = "stop", _("stop the old one")
        ALLOW = "allow", _("allow some at once")

    class Priority(models.IntegerChoices):
        HIGH = 1, _("high")
        NORMAL = 2, _("normal")
        LOW = 3, _("low")

    class AfterFailure(models.TextChoices):
        KEEP = "keep", _("keep the schedule")
        PAUSE = "pause", _("pause the schedule")

    name = models.CharField(_("name"), max_length=150, unique=True)
    description = models.TextField(_("description"), blank=True)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("owner"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="scheduler_tasks",
    )
    program_root = models.CharField(_("program folder"), max_length=100)
    program_path = models.CharField(_("program"), max_length=500)
    environment = models.CharField(_("environment"), max_length=10, choices=Environment, default=Environment.DJANGO)
    cold_start = models.BooleanField(
        _("cold start"),
        default=False,
        help_text=_("Start a new Python for each run, some tenths of a second slower, with nothing loaded beforehand."),
    )
    interpreter = models.CharField(_("interpreter"), max_length=100, blank=True)  # a name in SCHEDULER["INTERPRETERS"]
    arguments = models.JSONField(_("arguments"), default=list, blank=True, validators=[validate_arguments])
    enabled = models.BooleanField(
        _("enabled"), default=True, help_text=_("A disabled task is not started, by nobody and by no schedule.")
    )
    timeout_seconds = models.PositiveIntegerField(
        _("time limit (seconds)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("The run is stopped after this many seconds; empty: no limit."),
    )
    grace_seconds = models.PositiveIntegerField(
        _("grace (seconds)"),
        default=10,
        validators=[MaxValueValidator(3600)],
        help_text=_("Between asking the program to end (TERM) and ending it (KILL)."),
    )
    memory_mb = models.PositiveIntegerField(
        _("memory of the run (MB)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(8), MaxValueValidator(LARGEST_MB)],
        help_text=_("Of all its processes together. Over it, the kernel ends the run; empty: no limit."),
    )
    max_processes = models.PositiveIntegerField(
        _("processes of the run"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text=_(
            "How many processes and threads it may have at once. No further one can be started; empty: no limit."
        ),
    )
    process_memory_mb = models.PositiveIntegerField(
        _("address space per process (MB)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(16), MaxValueValidator(LARGEST_MB)],
        help_text=_(
            "Per process, and counted before it is used: a program with Django begins at some 300 MB. Over it, the "
            "program gets a MemoryError; empty: no limit."
        ),
    )
    process_cpu_seconds = models.PositiveIntegerField(
        _("processor time per process (seconds)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(2**31 - 1)],
        help_text=_("Per process; its children have as much again. Over it, the kernel ends it; empty: no limit."),
    )
    open_files = models.PositiveIntegerField(
        _("open files per process"),
        null=True,
        blank=True,
        validators=[MinValueValidator(64), MaxValueValidator(1_000_000)],
        help_text=_(
            "Per process, connections included. A run does not start when the poller itself may not have as many; "
            "empty: as the poller."
        ),
    )
    nice = models.PositiveSmallIntegerField(
        _("nice"),
        null=True,
        blank=True,
        validators=[MaxValueValidator(19)],
        help_text=_(
            "1 to 19: leave the processor to others; 19 takes only what nobody else wants. Empty: as the poller."
        ),
    )
    log_mb = models.PositiveIntegerField(
        _("log (MB)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(LARGEST_MB)],
        help_text=_("What the program writes beyond that is dropped, and the run says so."),
    )
    output_mb = models.PositiveIntegerField(
        _("output files (MB)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(LARGEST_MB)],
        help_text=_("All files of a run together. What is over it is not kept, and the run says so."),
    )
    output_files = models.PositiveIntegerField(
        _("number of output files"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(1_000_000)],
        help_text=_("Further files are not kept, and the run says so."),
    )
    cleanup_root = models.CharField(_("program folder of the clean-up"), max_length=100, blank=True)
    cleanup_path = models.CharField(_("clean-up program"), max_length=500, blank=True)
    cleanup_arguments = models.JSONField(
        _("clean-up arguments"), default=list, blank=True, validators=[validate_arguments]
    )
    cleanup_timeout_seconds = models.PositiveIntegerField(
        _("clean-up time limit (seconds)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(3600)],
        help_text=_("The clean-up is ended after this many seconds; empty: 60."),
    )
    overlap = models.CharField(
        _("overlap"),
        max_length=10,
        choices=Overlap,
        default=Overlap.SKIP,
        help_text=_("What to do when a slot comes due while a run of this task is not over."),
    )
    max_runs = models.PositiveSmallIntegerField(
        _("runs at once"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text=_("For “allow some at once”: how many. Otherwise it is one."),
    )
    group = models.ForeignKey(
        "ConcurrencyGroup",
        verbose_name=_("group"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="tasks",
        help_text=_("Of all tasks in a group only so many runs are processed at once, on all machines together."),
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"),
        choices=Priority,
        default=Priority.NORMAL,
        help_text=_(
            "Who starts first when not all can. A step is worth a day of waiting, so that none waits for ever."
        ),
    )
    retries = models.PositiveSmallIntegerField(
        _("retries"),
        default=0,
        validators=[MaxValueValidator(100)],
        help_text=_("How often a failed run is tried again, also one whose end nobody saw and that may have run."),
    )
    retry_delay_seconds = models.PositiveIntegerField(
        _("retry after (seconds)"),
        default=60,
        validators=[MaxValueValidator(7 * 24 * 3600)],
        help_text=_("Between a failure and the first retry."),
    )
    retry_factor = models.FloatField(
        _("back-off"),
        default=1.0,
        validators=[MinValueValidator(1.0), MaxValueValidator(10.0)],
        help_text=_("Each later retry waits so many times as long as the one before it; 1: always as long."),
    )
    after_failure = models.CharField(
        _("after the last failure"),
        max_length=10,
        choices=AfterFailure,
        default=AfterFailure.KEEP,
        help_text=_("When no retry is left. A paused schedule runs nothing until a person resumes it."),
    )
    late_after_seconds = models.PositiveIntegerField(
        _("late after (seconds)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text=_("A run that still waits so long after it was due raises an alarm; empty: none does."),
    )
    alarm_addressees = models.TextField(
        _("alarms to"),
        blank=True,
        help_text=_("E-mail addresses, one a line, of those who are told of late, missed and far too long runs."),
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ["name"]
        permissions = [
            ("run_task", "Can run task"),
            ("stop_run", "Can stop runs of task"),
            ("view_output", "Can view log and output files of task"),
            ("manage_access", "Can manage access to task"),
        ]
        indexes = [
            models.Index(fields=["paused_at"], condition=Q(paused_at__isnull=False), name="scheduler_task_paused")
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("scheduler:task-detail", args=[self.pk])

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; the owner gets every permission on the task when the task is created."""
        created = self._state.adding
        if not created and kwargs.get("update_fields") is None:
            names = {field.name for field in self._meta.concrete_fields if not field.primary_key}
            kwargs["update_fields"] = names - PAUSE_FIELDS
        with transaction.atomic():
            super().save(*args, **kwargs)
            if created and self.owner is not None:
                self.grant(self.owner, *TASK_PERMISSIONS)
            elif not created and not {"group", "group_id", "priority"}.isdisjoint(kwargs["update_fields"]):
                self._keep_runs_in_line()

    def _keep_runs_in_line(self) -> None:
        """Give the runs that wait or are processed the task's group and priority, which count for them, too."""
        of_others = ~models.Q(lane=self.lane, priority=self.priority)
        if self.runs.unfinished().filter(of_others).update(lane=self.lane, priority=self.priority):
            wake_on_commit()

    @property
    def lane(self) -> int:
        """Where its runs wait for a place: in the lane of its group, or in that of all tasks without one (0)."""
        return self.group_id or 0

    def clean(self) -> None:
        validate_name(self.name)
        try:
            programs.resolve(self.program_root, self.program_path)
        except programs.ProgramError as error:
            raise ValidationError({"program_path": str(error)}) from error
        try:
            programs.interpreter(self.interpreter)
        except programs.ProgramError as error:
            raise ValidationError({"interpreter": str(error)}) from error
        self._clean_cleanup()
        if self.overlap != self.Overlap.ALLOW:
            self.max_runs = 1  # dropped, not refused: the form shows it always
        for address in self.alarm_addresses:
            try:
                validate_email(address)
            except ValidationError as error:
                text = _("“%(address)s” is not an e-mail address. Write one a line.") % {"address": address}
                raise ValidationError({"alarm_addressees": text}) from error

    def _clean_cleanup(self) -> None:
        if not self.cleanup_path:
            return
        try:
            programs.resolve(self.cleanup_root, self.cleanup_path)
        except programs.ProgramError as error:
            raise ValidationError({"cleanup_path": str(error)}) from error
        users = scheduler_settings().program_users
        if users.get(self.cleanup_root) != users.get(self.program_root):
            text = _("Its folder belongs to another Unix user than the program's. Choose one of the same user.")
            raise ValidationError({"cleanup_path": text})

    @property
    def cleanup_program(self) -> str:
        """The clean-up program's name, as that of ``program``; empty when there is none."""
        return programs.join(self.cleanup_root, self.cleanup_path) if self.cleanup_path else ""

    @property
    def alarm_addresses(self) -> list[str]:
        """The addresses of those who are told of alarms."""
        return self.alarm_addressees.replace(",", " ").split()

    @property
    def program(self) -> str:
        """The program's name for people and forms: ``root/relative/path.py``."""
        return programs.join(self.program_root, self.program_path)

    def grant(self, user: User, *codenames: str) -> None:
        """Give the user object permissions on this task; those that it has already are kept."""
        from django.contrib.auth.models import Permission

        from .permissions import TaskUserObjectPermission

        unknown = set(codenames) - set(TASK_PERMISSIONS)
        if unknown:
            raise ValueError(f"not permissions of a task: {', '.join(sorted(unknown))}")
        permissions = Permission.objects.filter(
            content_type__app_label="scheduler", content_type__model="task", codename__in=codenames
        )
        TaskUserObjectPermission.objects.bulk_create(
            [TaskUserObjectPermission(user=user, permission=each, content_object=self) for each in permissions],
            ignore_conflicts=True,
        )

    def start_now(
        self,
        *,
        by: User | None,
        now: datetime,
        arguments: list[str] | None = None,
        again: Run | None = None,
        uuid: UUID | None = None,
    ) -> Run:
        """Queue a run that starts as soon as there is a place; ``arguments`` replace the task's own.

        Raises ValidationError when the task is disabled or the arguments cannot be passed on.
        """
        return self.start_at(now, by=by, now=now, arguments=arguments, again=again, uuid=uuid)

    def start_at(
        self,
        at: datetime,
        *,
        by: User | None,
        now: datetime,
        arguments: list[str] | None = None,
        again: Run | None = None,
        uuid: UUID | None = None,
    ) -> Run:
        """Queue a run that starts at an instant; ``again`` is the run that it repeats.

        With a ``uuid`` the same request starts one run however often it is sent: the second raises IntegrityError.
        """
        from .run import Run, RunEvent

        if not self.enabled:
            raise ValidationError(_("“%(task)s” is disabled. Enable it, then start it.") % {"task": self.name})
        chosen = self.arguments if arguments is None else arguments
        validate_arguments(chosen)
        with transaction.atomic():
            run = Run.objects.create(
                uuid=uuid or uuid4(),
                task=self,
                arguments=chosen,
                due_at=at,
                # Nothing is left to decide: a manual run waits for its instant and for a place.
                ready_at=now,
                lane=self.lane,
                priority=self.priority,
                queued_at=now,
                trigger=Run.Trigger.MANUAL if again is None else Run.Trigger.AGAIN,
                triggered_by=again,
                requested_by=by,
                requested_by_name=by.get_username() if by else "",
            )
            run.record(RunEvent.What.QUEUED, now=now, user=by)
            wake_on_commit()
        return run
