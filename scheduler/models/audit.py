from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from .task import Task


class AuditEntry(models.Model):
    """Who did what, when and from where. Names are kept as text: the row outlives the account, the task and the run."""

    class Action(models.TextChoices):
        CREATE = "create", _("created the task")
        CHANGE = "change", _("changed the task")
        DELETE = "delete", _("deleted the task")
        SCHEDULE = "schedule", _("changed its schedules")
        ACCESS = "access", _("changed access to the task")
        RUN = "run", _("started a run")
        STOP = "stop", _("stopped a run")
        DELETE_RUN = "delete_run", _("deleted a run")
        DOWNLOAD = "download", _("downloaded a file")
        VIEW_LOG = "view_log", _("downloaded a log")
        PAUSE = "pause", _("paused")
        RESUME = "resume", _("resumed")

    at = models.DateTimeField(_("time"), db_index=True)
    action = models.CharField(_("action"), max_length=12, choices=Action)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), null=True, on_delete=models.SET_NULL, related_name="+"
    )
    user_name = models.CharField(_("user name"), max_length=150)
    task = models.ForeignKey(
        Task, verbose_name=_("task"), null=True, on_delete=models.SET_NULL, related_name="audit_entries"
    )
    task_name = models.CharField(_("task name"), max_length=150, blank=True)
    run_number = models.BigIntegerField(_("run"), null=True)  # no foreign key: the run may be deleted
    object_name = models.CharField(_("what"), max_length=200, blank=True)
    address = models.CharField(_("from"), max_length=45, blank=True)
    text = models.TextField(_("details"), blank=True)
    # The same fact is told once: downloads come in many Range requests.
    once = models.CharField(max_length=120, null=True, unique=True, editable=False)  # noqa: DJ001  (unique where set)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        default_permissions = ("view",)
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.user_name} {self.get_action_display()} {self.object_name or self.task_name}"
