"""What programs take on their command lines: asked for by the pages, found out by the poller."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Self

from django.db import models, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from scheduler.wakeup import wake_on_commit

from .task import Task

# Modules that a program imports, and what it reads, may change without the program's file: then an answer is old.
RENEW_AFTER = timedelta(hours=1)
RENEW_PROBLEM_AFTER = timedelta(minutes=1)


class ProgramFormQuerySet(models.QuerySet["ProgramForm"]):
    def waiting(self) -> Self:
        """Those that a poller has yet to find out."""
        return self.filter(asked_at__isnull=False)


class ProgramForm(models.Model):
    """What a program, as its file is now, takes on its command line; a request until a poller has asked it."""

    program_root = models.CharField(_("program folder"), max_length=100)
    program_path = models.CharField(_("program"), max_length=500)
    environment = models.CharField(_("environment"), max_length=10, choices=Task.Environment)
    interpreter = models.CharField(_("interpreter"), max_length=100, blank=True)
    sha256 = models.CharField("SHA-256", max_length=64)
    asked_at = models.DateTimeField(null=True)
    answered_at = models.DateTimeField(null=True)
    # As supervisor/describe.py says it
    answer = models.JSONField(null=True, default=None)
    problem = models.TextField(blank=True)

    objects = ProgramFormQuerySet.as_manager()

    class Meta:
        verbose_name = _("form of a program")
        verbose_name_plural = _("forms of programs")
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["program_root", "program_path", "environment", "interpreter"], name="scheduler_programform_once"
            )
        ]
        indexes = [models.Index(fields=["id"], condition=Q(asked_at__isnull=False), name="scheduler_programform_asked")]

    def __str__(self) -> str:
        return f"{self.program_root}/{self.program_path}"

    @classmethod
    def of(cls, task: Task, *, sha256: str, now: datetime) -> ProgramForm:
        """What is known of a task's program whose file has this hash; asked for when it is not known or old."""
        program = {
            "program_root": task.program_root,
            "program_path": task.program_path,
            "environment": task.environment,
            "interpreter": task.interpreter,
        }
        # Looked for without a transaction: on SQLite that would keep everybody from writing, for a page that is read.
        row = cls.objects.filter(**program).first()
        if row is None:
            with transaction.atomic():
                row, created = cls.objects.get_or_create(**program, defaults={"sha256": sha256, "asked_at": now})
                if created:
                    wake_on_commit()
        if row.sha256 != sha256:
            row._ask(now, sha256=sha256, answer=None, problem="", answered_at=None)
        elif row.asked_at is None and row.answered_at is not None:
            age = RENEW_PROBLEM_AFTER if row.problem else RENEW_AFTER
            if now - row.answered_at > age:
                row._ask(now)
        return row

    def _ask(self, now: datetime, **values: object) -> None:
        for name, value in {**values, "asked_at": now}.items():
            setattr(self, name, value)
        with transaction.atomic():
            self.save(update_fields=[*values, "asked_at"])
            wake_on_commit()

    def take_answer(self, now: datetime, *, answer: dict[str, object] | None = None, problem: str = "") -> None:
        """Write down what a poller has found out, unless the file has changed since it was asked."""
        values = {"answer": answer, "problem": problem, "answered_at": now, "asked_at": None}
        type(self).objects.filter(pk=self.pk, sha256=self.sha256).update(**values)

    @property
    def is_waiting(self) -> bool:
        """Nobody has answered yet; an old answer that is asked for once more is still one."""
        return self.answered_at is None
