from __future__ import annotations

import uuid

from django.db import models
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from .run import Run


class OutputFile(models.Model):
    """A file that a run left behind, collected into the store as ``<run uuid>/<id>``."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, verbose_name=_("run"), on_delete=models.CASCADE, related_name="files")
    name = models.CharField(_("name"), max_length=150, help_text=_("For display and download; never a path."))
    size = models.BigIntegerField(_("size (bytes)"))
    sha256 = models.CharField("SHA-256", max_length=64)
    created_at = models.DateTimeField(_("collected"))

    class Meta:
        verbose_name = _("output file")
        verbose_name_plural = _("output files")
        default_permissions = ()
        ordering = ["name", "id"]
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="scheduler_outputfile_name_once_a_run")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("scheduler:file", args=[self.pk])
