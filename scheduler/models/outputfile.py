from __future__ import annotations

import uuid
from datetime import datetime  # noqa: TC003
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Sum
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from scheduler.conf import scheduler_settings
from scheduler.wakeup import wake_on_commit

from .run import Run

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class OutputFileQuerySet(models.QuerySet["OutputFile"]):
    def of_program(self) -> Self:
        """Those that the program left behind; not the archives of them."""
        return self.filter(kind=OutputFile.Kind.OUTPUT)


class OutputFile(models.Model):
    """A file that a run left behind, collected into the store as ``<run uuid>/<id>``."""

    class Kind(models.TextChoices):
        OUTPUT = "output", _("output file")
        ARCHIVE = "archive", _("all files as a ZIP")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="files")
    kind = models.CharField(_("kind"), max_length=10, choices=Kind, default=Kind.OUTPUT)
    name = models.CharField(_("name"), max_length=150, help_text=_("For display and download; never a path."))
    size = models.BigIntegerField(_("size (bytes)"))
    sha256 = models.CharField("SHA-256", max_length=64)
    created_at = models.DateTimeField(_("collected"))

    objects = OutputFileQuerySet.as_manager()

    class Meta:
        verbose_name = _("output file")
        verbose_name_plural = _("output files")
        default_permissions = ()
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(fields=["run", "kind", "name"], name="scheduler_outputfile_name_once_a_run")
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("scheduler:file", args=[self.pk])


class ArchiveQuerySet(models.QuerySet["Archive"]):
    def unfinished(self) -> Self:
        """Those that a poller has yet to build."""
        return self.filter(file=None, problem="")


class Archive(models.Model):
    """The request for a ZIP of all files of a run, and what became of it. The poller of the run's host has it built."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.OneToOneField(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="archive")
    requested_at = models.DateTimeField(_("requested"))
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("requested by"),
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    done_bytes = models.BigIntegerField(_("packed (bytes)"), default=0)
    total_bytes = models.BigIntegerField(_("of (bytes)"))
    problem = models.TextField(_("problem"), blank=True)
    file = models.OneToOneField(
        OutputFile, verbose_name=_("file"), null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )

    objects = ArchiveQuerySet.as_manager()

    class Meta:
        verbose_name = _("archive")
        verbose_name_plural = _("archives")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)

    @property
    def percent(self) -> int:
        return int(min(self.done_bytes / self.total_bytes, 1) * 100) if self.total_bytes else 0

    @classmethod
    def request(cls, run: Run, *, by: User, now: datetime) -> Archive:
        """Ask for the ZIP of a finished run's files; one that is there or under way is returned as it is.

        Raises ValidationError with one sentence when the run has no files, is not over or has too much.
        """
        if not run.is_finished:
            raise ValidationError(gettext("The run is not over; its files are collected at its end."))
        total = run.files.of_program().aggregate(total=Sum("size"))["total"]
        if total is None:
            raise ValidationError(gettext("The run has no files."))
        most = scheduler_settings().archive_bytes
        if total > most:
            raise ValidationError(
                gettext("The files are larger (%(size)d MB) than a ZIP may be (%(most)d MB). Download them one by one.")
                % {"size": total // 1024**2, "most": most // 1024**2}
            )
        with transaction.atomic():
            cls.objects.filter(run=run).exclude(problem="").delete()  # a failed one is tried again
            archive, created = cls.objects.get_or_create(
                run=run, defaults={"requested_at": now, "requested_by": by, "total_bytes": total}
            )
            if created:
                wake_on_commit()
        return archive
